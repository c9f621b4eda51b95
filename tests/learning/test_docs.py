"""The examples of docs/active-learning.md run as they stand."""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from learners import CLASSES, network, problem
from torch.utils.data import DataLoader

import saal_fast
from saal_fast.learning import Labelled
from saal_fast.strategies import make

PAGE = Path(__file__).parents[2] / "docs" / "active-learning.md"


def test_the_pages_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 3
    images, labels = problem()
    test_images, test_labels = problem(30, seed=1)
    names = {
        "saal_fast": saal_fast,
        "torch": torch,
        "F": F,
        "DataLoader": DataLoader,
        "MyNetwork": network,
        "images": images,
        "labels": labels % CLASSES,
        "first_rows": torch.arange(9),
        "test_images": test_images,
        "test_labels": test_labels,
    }
    exec(blocks[0], names)
    assert names["learner"].rounds[-1].labelled == len(images)
    assert "{'accuracy': " in capsys.readouterr().out
    exec(blocks[1].replace("7, 7", "1, 2").replace("3, 0", "2, 0"), names)  # of three classes
    assert len(names["learner"].ask()) == 16
    exec(blocks[2], names)
    model, data = network(), Labelled(images, torch.arange(12), labels[:12])
    for strategy in ("saal", "ll4al"):
        hook = make(strategy).training(model, labelled=data.inputs)
        assert names["train"](model, data, hook)["loss"] > 0
        hook.close()
