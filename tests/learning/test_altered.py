"""Files of a run that were altered and signed anew, and model files of earlier rounds."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from learners import contents, learner, oracle

from saal_fast.learning import DamagedRecordError, Training, read, rewind


def made(folder, rounds=2, run=True, **options):
    one = learner(folder, train=Training(epochs=1), **({"strategy": "entropy"} | options))
    if run:
        one.run(oracle, rounds)
    return one


def sign(path, change):
    """Alters a record, and signs it anew."""
    record = json.loads(path.read_text())["record"]
    change(record)
    body = json.dumps(record, sort_keys=True)
    path.write_text(f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}", "record": {body}}}\n')


def replace_model(folder, number, content):
    """Puts another content in a model file, or these bytes, and signs it anew."""
    path = folder / f"{number:04d}-fit.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sign(folder / f"{number:04d}-fit.json", lambda record: record.update(model=digest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "7.weight": s["7.weight"][:, :3]}, r"does not fit the Sequential .*7\.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "7.bias"}, r"does not fit .*7\.bias"),
        (lambda s: {**s, "8.weight": torch.ones(1)}, r"does not fit .*8\.weight"),
        (lambda s: {**s, "7.weight": "words"}, r"does not fit .*7\.weight"),
    ],
    ids=["shape", "missing", "stray", "no tensor"],
)
def test_a_model_file_that_was_signed_anew_is_named(tmp_path, change, message):
    made(tmp_path)
    path = tmp_path / "0003-fit.pt"
    state = torch.load(path, weights_only=True)
    replace_model(tmp_path, 3, {**state, "model": change(state["model"])})
    with pytest.raises(DamagedRecordError, match=rf"(?s)0003-fit\.pt is not what was written: it {message}.*retrain\(\)"):
        _ = made(tmp_path, run=False).model
    with pytest.raises(DamagedRecordError, match="came out otherwise"):
        made(tmp_path, run=False).retrain()
    assert made(tmp_path, run=False).retrain(exact=False) == [3]
    assert torch.equal(made(tmp_path, run=False).model.state_dict()["7.weight"], state["model"]["7.weight"])


@pytest.mark.parametrize("content", [b"", b"no model", {"model": {}}, [1, 2], torch.ones(2)], ids=str)
def test_a_model_file_of_another_kind_is_named(tmp_path, content):
    made(tmp_path)
    replace_model(tmp_path, 3, content)
    with pytest.raises(DamagedRecordError, match=r"0003-fit\.pt is not what was written"):
        _ = made(tmp_path, run=False).model


def test_a_warm_start_names_the_file_that_does_not_fit(tmp_path):
    made(tmp_path, warm_start=True)
    rewind(tmp_path, 3)
    replace_model(tmp_path, 2, {"model": {"0.weight": torch.ones(1)}, "hook": {}})
    with pytest.raises(DamagedRecordError, match=r"0002-fit\.pt is not what was written: it does not fit"):
        made(tmp_path, warm_start=True)


def test_a_strategy_state_that_does_not_fit_is_named(tmp_path):
    made(tmp_path, strategy="ll4al", rounds=1)
    rewind(tmp_path, 1, "ask")
    state = torch.load(tmp_path / "0001-fit.pt", weights_only=True)
    replace_model(tmp_path, 1, {**state, "hook": {"nothing": torch.ones(1)}})
    with pytest.raises(DamagedRecordError, match=r"0001-fit\.pt .*is not that of the strategy 'll4al'"):
        made(tmp_path, strategy="ll4al", rounds=1)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("0001-ask.json", lambda r: r.pop("indices")),
        ("0001-ask.json", lambda r: r.update(indices=[1, 1, 2, 3])),
        ("0001-ask.json", lambda r: r.update(indices=[1, 2, 3, 600])),
        ("0001-tell.json", lambda r: r["labels"].pop()),
        ("0001-tell.json", lambda r: r["indices"].__setitem__(0, 59)),
        ("0002-fit.json", lambda r: r.update(model=None)),
        ("0002-fit.json", lambda r: r.pop("seeds")),
    ],
)
def test_a_record_that_was_signed_anew_is_named(tmp_path, file, change):
    made(tmp_path)
    sign(tmp_path / file, change)
    with pytest.raises(DamagedRecordError, match=f"{file} is not what was written: it"):
        made(tmp_path)


@pytest.mark.parametrize("warm", [False, True])
def test_damaged_models_of_earlier_rounds_are_noticed_where_all_are_kept(tmp_path, warm):
    one = made(tmp_path, keep_models="all", warm_start=warm)
    before = contents(tmp_path)
    path = tmp_path / "0001-fit.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for other in (one, made(tmp_path, run=False, keep_models="all", warm_start=warm)):
        with pytest.raises(DamagedRecordError, match=r"0001-fit\.pt is not what was written.*retrain\(\)"):
            other.fit()
    assert made(tmp_path, run=False, keep_models="all", warm_start=warm).retrain() == [1]
    assert contents(tmp_path) == before
    one.fit()
    path.unlink()  # a file that was taken away on purpose
    one.fit()


def test_a_folder_in_bytes_is_a_folder(tmp_path):
    made(os.fsencode(tmp_path / "run"))
    assert (tmp_path / "run" / "settings.json").is_file()
    assert len(read(os.fsencode(tmp_path / "run"))[1]) == 4
    with pytest.raises(ValueError, match="got an empty one"):
        made(b"")


def test_positions_and_labels_of_negative_strides():
    one = learner(None, train=Training(epochs=1), strategy="random")
    asked = one.ask().numpy()
    one.tell(asked[::-1], (asked % 3)[::-1])
    rows, labels = one.labelled
    assert torch.equal(labels[9:], rows[9:] % 3)


@pytest.mark.parametrize("seed", [np.random.RandomState(0), np.random.default_rng(0)])
def test_a_seed_that_is_a_generator_of_numpy(seed):
    with pytest.raises(TypeError, match=r"expected seed to be a whole number, got \w+; .*int\(seed\.\w+\(2\*\*31\)\)"):
        learner(None, seed=seed)
