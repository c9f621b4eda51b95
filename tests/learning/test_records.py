"""What can happen to a folder: damage, another run, a full disk, a read-only folder, two learners at once."""

import errno
import itertools
import json
import os
import re
import resource
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from learners import contents, learner, oracle

from saal_fast._utils.rng import seeded
from saal_fast.learning import DamagedRecordError, LockedError, Training, rewind, store
from saal_fast.learning.seeds import Seeds
from saal_fast.learning.store import Store
from saal_fast.strategies import SAAL

RECORDS = ["0001-fit.json", "0001-ask.json", "0001-tell.json", "0002-fit.json", "0002-ask.json", "0003-fit.json"]


def crossed(ones, others, one, other):
    """All pairs; quickly those of this one or this other."""
    return [
        pytest.param(a, b, marks=() if a == one or b == other else pytest.mark.slow)
        for a, b in itertools.product(ones, others)
    ]


def made(folder, rounds=2, **options):
    one = learner(folder, train=Training(epochs=1), strategy="entropy", **options)
    one.run(oracle, rounds)
    return one


@pytest.fixture
def folder(tmp_path):
    made(tmp_path / "run")
    return tmp_path / "run"


def follow_the_message(error, folder):
    """Calls rewind as the message says, and trains the model of a round so far back again if it is gone."""
    advice = re.search(r"saal_fast\.learning\.rewind\('(.*)', (\d+)(?:, '(\w+)')?\)", str(error))
    assert advice[1] == str(folder)
    rewind(advice[1], int(advice[2]), advice[3])
    before = contents(folder)
    learner(folder, train=Training(epochs=1), strategy="entropy").retrain()
    assert before.items() <= contents(folder).items()


def comes_before(name, record):
    """Whether a record was written before another."""

    def place(file):
        number, _, phase = file.removesuffix(".json").partition("-")
        return int(number), ("fit", "ask", "tell").index(phase)

    return name == "settings.json" or place(name) < place(record)


@pytest.mark.parametrize(
    ("record", "damage"), crossed(RECORDS, ["empty", "cut", "flipped", "noise", "other"], "0002-fit.json", "flipped")
)
def test_a_damaged_record_is_named_and_earlier_rounds_stay(folder, record, damage):
    before = contents(folder)
    path = folder / record
    data = bytearray(path.read_bytes())
    other = (folder / RECORDS[RECORDS.index(record) - 1]).read_bytes()
    place = data.index(b'"seeds"')
    flipped = data[:place] + bytes([data[place + 1] ^ 1]) + data[place + 1 :]
    path.write_bytes(
        {"empty": b"", "cut": data[:-20], "flipped": flipped, "noise": b"\x00\xffnothing", "other": other[:50]}[damage]
    )
    with pytest.raises(DamagedRecordError, match="is not what was written") as caught:
        made(folder)
    assert str(path) in str(caught.value)
    assert {n: b for n, b in contents(folder).items() if n != record} == {n: b for n, b in before.items() if n != record}
    follow_the_message(caught.value, folder)
    assert {name: data for name, data in contents(folder).items() if name.endswith(".json")} == {
        name: data for name, data in before.items() if name.endswith(".json") and comes_before(name, record)
    }
    made(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("record", RECORDS[:-1])
def test_a_record_that_is_gone_is_named(folder, record):
    before = contents(folder)
    (folder / record).unlink()
    with pytest.raises(DamagedRecordError, match=f"{record} is not what was written: it is gone") as caught:
        made(folder)
    follow_the_message(caught.value, folder)
    assert set(contents(folder)) >= {name for name in before if name.endswith(".json") and comes_before(name, record)}
    made(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_model_is_named(folder, damage):
    path = folder / "0003-fit.pt"
    data = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(data[:-1])
    with pytest.raises(DamagedRecordError, match=r"0003-fit\.pt is not what was written"):
        _ = made(folder).model
    rewind(folder, 3)
    made(folder)
    assert path.read_bytes() == data


def test_damaged_settings_are_named(folder):
    (folder / "settings.json").write_text("{}")
    with pytest.raises(DamagedRecordError, match=r"settings\.json"):
        made(folder)
    (folder / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"holds rounds, but no settings\.json.*rewrite_settings=True"):
        made(folder)


@pytest.mark.parametrize("text", ["{}", None], ids=["damaged", "gone"])
def test_settings_are_written_anew_when_asked_for(folder, text):
    before, path = contents(folder), folder / "settings.json"
    path.unlink() if text is None else path.write_text(text)
    made(folder, rewrite_settings=True)
    assert contents(folder) == before  # all rounds are as they were, and so are the settings
    with pytest.raises(ValueError, match="holds another run: k was 4 and is 5"):  # whole ones are not written over
        made(folder, k=5, rewrite_settings=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 5}, "seed was 3 and is 5"),
        ({"k": 3}, "k was 4 and is 3"),
        ({"candidates": None}, "candidates was 20 and is None"),
        ({"warm_start": True}, "warm_start was False and is True"),
        ({"labelled": None, "initial": 4}, "start was"),
        ({"labelled": (range(9), [1] * 9)}, "start was"),
        ({"settings": {"note": [1, (2,)]}}, r"more was None and is \{'note': \[1, \[2\]\]\}"),
    ],
)
def test_another_run_in_the_folder_is_refused(folder, options, difference):
    with pytest.raises(ValueError, match=f"holds another run: {difference}"):
        made(folder, **options)


def test_another_strategy_in_the_folder_is_refused(folder):
    with pytest.raises(ValueError, match="strategy was 'entropy' and is 'saal'"):
        learner(folder)


def test_records_are_plain_and_models_are_kept_as_asked(tmp_path):
    made(tmp_path / "last")
    made(tmp_path / "all", keep_models="all")
    assert [p.name for p in sorted((tmp_path / "last").glob("*.pt"))] == ["0002-fit.pt", "0003-fit.pt"]
    assert [p.name for p in sorted((tmp_path / "all").glob("*.pt"))] == [f"000{n}-fit.pt" for n in (1, 2, 3)]
    record = json.loads((tmp_path / "last" / "0002-fit.json").read_text())["record"]
    assert record["labelled"] == 13
    assert record["seeds"]["bit_generator"] == "PCG64"


@pytest.mark.parametrize(
    ("failing", "code"),
    crossed(
        ["0002-fit.pt", "0002-fit.json", "0002-ask.json", "0002-tell.json"],
        [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO],
        "0002-fit.json",
        errno.ENOSPC,
    ),
)
def test_a_disk_that_fails_is_reported_and_the_run_goes_on_from_there(tmp_path, monkeypatch, code, failing):
    whole = tmp_path / "whole"
    made(whole)
    folder, sync = tmp_path / "failing", os.fsync

    def fsync(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith(f".{failing}.part"):
            raise OSError(code, os.strerror(code))
        sync(handle)

    one = learner(folder, train=Training(epochs=1), strategy="entropy")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="rounds written before are intact") as caught:
        one.run(oracle, 2)
    assert caught.value.errno == code
    assert str(folder / failing) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    kept = contents(folder)
    assert failing not in kept
    assert not list(folder.glob(".*.part"))
    assert all(contents(whole)[name] == data for name, data in kept.items() if name.endswith(".json"))
    monkeypatch.undo()
    one.run(oracle, 2)  # the very same learner goes on; its seeds have not moved
    assert contents(folder) == contents(whole)


def test_a_limit_of_the_system_is_reported(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = learner(tmp_path, train=Training(epochs=1))
    kept = contents(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # a model is larger
    try:
        with pytest.raises(
            OSError, match=r"cannot write .*0001-fit\.pt; the rounds written before are intact: File too large"
        ):
            one.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == kept
    one.fit()


@pytest.fixture
def open_folder():
    """A folder that everyone may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "run"


@contextmanager
def not_root():
    """Inside, root is nobody: the file system's permissions hold."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_reported(open_folder):
    made(open_folder, rounds=1)
    kept = contents(open_folder)
    open_folder.chmod(0o555)
    (open_folder / store.LOCK_FILE).chmod(0o444)
    try:
        with not_root(), pytest.raises(PermissionError, match="cannot write into the folder"):
            made(open_folder)
        (open_folder / store.LOCK_FILE).chmod(0o666)
        (open_folder / store.LOG_FILE).chmod(0o666)
        message = r"cannot write .*0002-ask\.json; the rounds written before are intact: Permission denied"
        with not_root(), pytest.raises(PermissionError, match=message):
            made(open_folder)
    finally:
        open_folder.chmod(0o755)
    assert contents(open_folder) == kept
    made(open_folder)


@pytest.mark.parametrize("place", ["/proc/self/run", "file/run"])
def test_a_folder_that_cannot_be_made_is_reported(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot make the folder"):
        learner(tmp_path / place)


def test_two_at_once_are_kept_apart(tmp_path):
    one, other = learner(tmp_path), learner(tmp_path)

    def train(model, labelled, hook):
        with pytest.raises(LockedError, match="another process is at work"):
            other.ask()
        with pytest.raises(LockedError, match="another process is at work"):
            learner(tmp_path)
        with pytest.raises(LockedError):
            rewind(tmp_path, 0)

    busy = learner(tmp_path, train=train)
    busy.fit()
    asked = other.ask()  # goes on from what the first has written
    assert one.ask().tolist() == asked.tolist()
    one.tell(asked, [0] * 4)
    assert other.acquired == 0
    assert other.fit().labelled == 13
    assert other.acquired == 1


def test_rewind_needs_a_number_and_a_phase(tmp_path):
    with pytest.raises(ValueError, match="expected a round's number >= 0, got -1"):
        rewind(tmp_path, -1)
    with pytest.raises(TypeError, match="expected a round's number to be a whole number"):
        rewind(tmp_path, 1.5)
    with pytest.raises(ValueError, match="expected phase to be one of fit, ask, tell, or None; got 'train'"):
        rewind(tmp_path, 1, "train")


def test_the_log_cannot_be_written(tmp_path):
    (tmp_path / store.LOG_FILE).mkdir()
    with pytest.raises(OSError, match=r"cannot write .*log\.jsonl; the rounds on disk are intact"):
        Store(tmp_path).log(event="fit")


def test_seeds_go_on_from_their_state():
    seeds = Seeds(7)
    seeds.draw()
    state = json.loads(json.dumps(seeds.state))
    drawn = [seeds.draw() for _ in range(3)]
    other = Seeds(0)
    other.restore(state)
    assert [other.draw() for _ in range(3)] == drawn
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_seeded_leaves_the_callers_generator_also_on_errors():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded(2**62 + 5):
        raise KeyError(float(torch.rand(())))
    assert torch.equal(torch.rand(3), expected)


def test_tensors_are_checked_in_memory_too(tmp_path):
    for where in (None, tmp_path):
        kept = Store(where)
        checksum = kept.write_tensors("0000-fit", {"a": torch.ones(2)})
        assert torch.equal(kept.read_tensors("0000-fit", checksum)["a"], torch.ones(2))
        with pytest.raises(DamagedRecordError, match="its checksum differs"):
            kept.read_tensors("0000-fit", "0")
        with pytest.raises(DamagedRecordError, match="it is gone"):
            kept.read_tensors("0001-fit", checksum)
        assert kept.names() == ["0000-fit.pt"]
    assert Path(tmp_path / "0000-fit.pt").is_file()


@pytest.mark.parametrize("record", ["0004-fit.json", "0004-ask.json", "0004-fit.pt"])
def test_a_warm_start_survives_a_damaged_last_round(tmp_path, record):
    one = made(tmp_path, rounds=3, warm_start=True)
    one.ask()
    before = contents(tmp_path)
    (tmp_path / record).write_bytes(b"")
    with pytest.raises(DamagedRecordError, match=r"retrain\(\)" if record.endswith("pt") else r"rewind\(.*, 4"):
        _ = made(tmp_path, rounds=3, warm_start=True).model
    rewind(tmp_path, 4)
    again = learner(tmp_path, train=Training(epochs=1), strategy="entropy", warm_start=True)
    assert len(again.model.state_dict()) == len(one.model.state_dict())  # that of the round before
    again.ask()
    assert contents(tmp_path) == before


def test_a_model_that_is_gone_stops_no_run_that_begins_anew_each_round(tmp_path):
    made(tmp_path, rounds=3)
    rewind(tmp_path, 3)
    again = learner(tmp_path, train=Training(epochs=1), strategy="entropy")
    with pytest.raises(DamagedRecordError, match=r"0002-fit\.pt .*it is gone\. .* all labels too: ActiveLearner\.retrain"):
        _ = again.model
    assert again.fit().labelled == 17


@pytest.mark.parametrize(("phase", "left"), [("tell", ["fit", "ask"]), ("ask", ["fit"]), ("fit", []), (None, [])])
def test_a_round_can_be_rewound_in_part(folder, phase, left):
    before = contents(folder)
    rewind(folder, 2, phase)
    there = {name for name in contents(folder) if name.startswith("0002-") and name.endswith(".json")}
    assert there == {f"0002-{name}.json" for name in left}
    assert (folder / "0002-fit.pt").exists() == ("fit" in left)
    assert not list(folder.glob("0003-*"))
    seen = []

    def train(model, labelled, hook):
        seen.append(len(labelled))
        return Training(epochs=1)(model, labelled, hook)

    learner(folder, train=train, strategy="entropy").run(oracle, 2)
    assert seen == ([17] if "fit" in left else [13, 17])  # a training that was whole is not done again
    assert contents(folder) == before


@pytest.mark.parametrize(("number", "start"), crossed([0, 1, 2], [{}, {"labelled": None, "initial": 5}], 0, {}))
def test_a_learner_alive_notices_a_rewind(tmp_path, number, start):
    one = learner(tmp_path, train=Training(epochs=1), strategy="entropy", **start)
    one.run(oracle, 2)
    before = contents(tmp_path)
    rewind(tmp_path, number)
    one.run(oracle, 2)
    assert contents(tmp_path) == before
    rewind(tmp_path, 2)
    asked = one.ask()
    one.tell(asked, [0, 1, 2, 0])  # other labels: another model of the same round
    one.fit()
    again = learner(tmp_path, train=Training(epochs=1), strategy="entropy", **start)
    for mine, read in zip(one.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(mine, read)


@pytest.mark.parametrize("phase", ["tell", "ask", "fit"])
def test_a_learner_alive_notices_a_round_done_again_by_another(tmp_path, phase):
    """The same files are there, of other content."""
    one = learner(tmp_path, train=Training(epochs=1), strategy="entropy")
    one.run(oracle, 2)
    rewind(tmp_path, 1, phase)
    other = learner(tmp_path, train=Training(epochs=1), strategy="entropy")
    other.retrain()
    for _ in range(2):
        rows = other.ask()
        other.tell(rows, [0, 0, 1, 2])
    other.fit()
    one.ask()
    assert one.labelled[1].tolist() == other.labelled[1].tolist()
    assert one.rounds[2].training == other.rounds[2].training
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"strategy": SAAL(rho=0.1)}, "strategy_options was"),
        ({"strategy": SAAL(objective="diff")}, "strategy_options was"),
        ({"train": Training(epochs=2)}, "training was"),
    ],
)
def test_other_options_in_the_folder_are_refused(tmp_path, options, difference):
    given = {"strategy": SAAL(), "train": Training(epochs=1)}
    learner(tmp_path, **given)
    learner(tmp_path, **given)
    learner(tmp_path, **(given | {"train": Training(epochs=1, progress=False)}))
    with pytest.raises(ValueError, match=f"holds another run: {difference}"):
        learner(tmp_path, **(given | options))


def test_another_pool_is_refused_and_runs_of_before_go_on(tmp_path, monkeypatch):
    one = learner(tmp_path)
    pool = torch.zeros_like(one._phases.pool)
    monkeypatch.setattr("learners.problem", lambda *_, **__: (pool, torch.arange(60) % 3))
    with pytest.raises(ValueError, match="holds another run: pool_sha256 was"):
        learner(tmp_path)
    monkeypatch.undo()
    kept = Store(tmp_path)
    old = kept.read("settings")
    kept.write("settings", {k: v for k, v in old.items() if k not in ("strategy_options", "training", "pool_sha256")})
    assert learner(tmp_path).acquired == 0


def test_rewind_makes_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a run"):
        rewind(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()
