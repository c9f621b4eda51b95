import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from killed import PHASES
from learners import contents

from saal_fast.learning import store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")


QUICKLY = ("training", "writing fit", "after ask's rename", "logging")
SLOWLY = tuple(phase for phase in PHASES if phase not in QUICKLY)
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs of some phases, run once, and the phases that were killed where they should be."""

    @cache
    def of(phases):
        folder = tmp_path_factory.mktemp("killed")
        command = [sys.executable, Path(__file__).with_name("killed.py"), folder, *phases]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder, done.stdout.splitlines()

    return of


@pytest.mark.parametrize(
    ("phases", "phase"),
    [*((QUICKLY, phase) for phase in QUICKLY), *(pytest.param(SLOWLY, phase, marks=SLOW) for phase in SLOWLY)],
)
def test_killed_and_resumed_the_records_are_the_same_bit_for_bit(runs, phases, phase):
    folder, killed = runs(phases)
    assert phase in killed
    whole = contents(folder / "whole")
    assert contents(folder / phase) == whole
    assert {f"{n:04d}-{p}.json" for n in range(1, 4) for p in ("fit", "ask", "tell")} <= set(whole)


@pytest.mark.parametrize("phases", [QUICKLY, pytest.param(SLOWLY, marks=SLOW)], ids=["some phases", "all others"])
def test_nothing_half_written_is_left(runs, phases):
    folder, _ = runs(phases)
    for phase in phases:
        left = {path.name for path in (folder / phase).iterdir()} - set(contents(folder / phase))
        assert left == {store.LOG_FILE, store.LOCK_FILE}


def test_the_log_survives_a_torn_line(runs):
    folder, _ = runs(QUICKLY)
    lines = (folder / "logging" / store.LOG_FILE).read_text().splitlines()
    torn = lines.index('{"time": "half of a li')
    whole = [json.loads(line) for line in lines[:torn] + lines[torn + 1 :]]
    assert [event["event"] for event in whole].count("resume") == 1
    fits = [event for event in whole if event["event"] == "fit"]
    assert fits[-1]["labelled"] == 9 + 3 * 4
    assert fits[-1]["seconds"]["train"] > 0
