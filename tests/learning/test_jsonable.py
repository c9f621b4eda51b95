"""Records are strict JSON, also of numbers that JSON lacks; and folders may begin with ~."""

import json
import math

import numpy as np
import pytest
import torch
from learners import contents, learner, oracle

from saal_fast.learning import Training, read, rewind
from saal_fast.learning.jsonable import dumps, to_float, to_jsonable
from saal_fast.learning.store import CHECKSUM_KEY, Store, _digest

ODD = [math.nan, math.inf, -math.inf, 0.1, -0.0, 1e300]


def strict(path):
    """What any reader of JSON makes of a file, line by line."""

    def refuse(word):
        raise AssertionError(f"{path} holds {word}, which is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_numbers_come_back():
    back = [to_float(value) for value in json.loads(dumps(to_jsonable(ODD)))]
    np.testing.assert_array_equal(back, ODD)
    assert dumps(to_jsonable({"b": (1, None, "x"), "a": {3: math.nan}})) == '{"a": {"3": null}, "b": [1, null, "x"]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(ODD)


def test_records_and_log_are_strict_json(tmp_path):
    options = {
        "strategy": "random",  # its scores are NaN
        "train": Training(epochs=0),  # its loss is NaN
        "evaluate": lambda _: {"nan": math.nan, "far": math.inf, "down": -math.inf, "half": 0.5},
        "settings": {"limit": math.nan, "most": math.inf},
    }
    one = learner(tmp_path, **options)
    one.run(oracle, 2)
    files = [*tmp_path.glob("*.json"), tmp_path / "log.jsonl"]
    assert len(files) == 11
    assert all(strict(path) for path in files)
    record = strict(tmp_path / "0002-fit.json")[0]["record"]
    assert record["training"] == {"loss": None}
    assert record["metrics"] == {"nan": None, "far": "Infinity", "down": "-Infinity", "half": 0.5}
    again = learner(tmp_path, **options)  # and its settings are the same
    for rounds in (one.rounds, again.rounds, read(tmp_path)[1]):
        assert math.isnan(rounds[2].training["loss"])
        np.testing.assert_equal(rounds[2].metrics, options["evaluate"](None))
        assert rounds[2].scores.isnan().all()
        assert rounds[2].scores.dtype == torch.float64


def test_records_of_before_that_hold_nan_are_read(tmp_path):
    options = {"strategy": "random", "train": Training(epochs=0)}
    learner(tmp_path, **options).run(oracle, 1)
    path = tmp_path / "0001-ask.json"
    old = json.dumps(strict(path)[0]["record"], sort_keys=True).replace("null", "NaN")
    assert "NaN" in old
    path.write_text(f'{{"{CHECKSUM_KEY}": "{_digest(old.encode())}", "record": {old}}}\n')
    assert learner(tmp_path, **options).rounds[1].scores.isnan().all()


@pytest.mark.parametrize("folder", ["~/run", "~"])
def test_home_is_where_a_shell_says(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    learner(folder, train=Training(epochs=1)).fit()
    where = tmp_path / folder.removeprefix("~").strip("/")
    assert "0001-fit.json" in contents(where)
    assert len(read(folder)[1]) == 2
    rewind(folder, 1)
    assert len(read(folder)[1]) == 1
    assert Store(folder).folder == where
    assert not (tmp_path / "~").exists()
