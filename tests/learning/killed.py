"""Runs the learner in children that are killed (SIGKILL) in each phase, then lets another child finish.

    python killed.py FOLDER PHASES...

writes FOLDER/whole (never killed) and, for each of these phases, FOLDER/<phase> (killed there in round 2, and resumed), and
prints each phase's name once its child was killed where it should be. Children are forked: torch is imported once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from learners import learner, oracle, problem

from saal_fast import strategies
from saal_fast.learning import Accuracy, Training, store

ROUNDS, KILLED_IN = 3, 2
PHASES = (
    "making",
    "training",
    "evaluating",
    "choosing",
    "labelling",
    "writing model",
    "before model's rename",
    "after model's rename",
    "writing fit",
    "before fit's rename",
    "after fit's rename",
    "before ask's rename",
    "after ask's rename",
    "before tell's rename",
    "after tell's rename",
    "logging",
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Counts how often a phase begins, and kills the process in the round it should."""

    def __init__(self, phase):
        self.phase, self.counts = phase, {}

    def begins(self, phase, round_=None):
        self.counts[phase] = self.counts.get(phase, 0) + 1
        if phase == self.phase and (self.counts[phase] if round_ is None else round_) == KILLED_IN:
            die()


def wrap_writes(killer):
    """Kills inside the writing of a record: amid the bytes, and on either side of the rename."""
    kinds = {"fit.pt": "model", "fit.json": "fit", "ask.json": "ask", "tell.json": "tell"}

    def kind(path):
        number, _, rest = path.name.lstrip(".").removesuffix(".part").partition("-")
        return kinds.get(rest), int(number) if rest else 0

    replace, opened, log = Path.replace, Path.open, store.Store.log

    def replace_(self, target):
        name, round_ = kind(self)
        killer.begins(f"before {name}'s rename", round_)
        result = replace(self, target)
        killer.begins(f"after {name}'s rename", round_)
        return result

    def open_(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        name, round_ = kind(self) if self.suffix == ".part" else (None, 0)
        if f"writing {name}" == killer.phase and round_ == KILLED_IN:
            file.write(b"half of a record")
            file.flush()
            die()
        return file

    def log_(self, **event):
        if killer.phase == "logging" and event.get("round") == KILLED_IN:
            with (self.folder / store.LOG_FILE).open("a") as file:
                file.write('{"time": "half of a li')
            die()
        log(self, **event)

    Path.replace, Path.open, store.Store.log = replace_, open_, log_


class Choosing(strategies.SAAL):
    """SAAL, killed after it has chosen."""

    def select(self, *args, **kwargs):
        chosen = super().select(*args, **kwargs)
        self.killer.begins("choosing")
        return chosen


def run(folder, phase=None):
    killer = Killer(phase)
    wrap_writes(killer)
    strategy = Choosing(rho=0.5)
    strategy.killer = killer
    train, evaluate = Training(epochs=2, batch_size=5), Accuracy(*problem(20, seed=1))

    def train_(model, labelled, hook):
        numbers = train(model, labelled, hook)
        killer.begins("training")
        return numbers

    def evaluate_(model):
        killer.begins("evaluating")
        return evaluate(model)

    def oracle_(indices):
        labels = oracle(indices)
        killer.begins("labelling")
        return labels

    made = learner(folder, strategy=strategy, train=train_, evaluate=evaluate_, warm_start=True)
    make = made._phases.factory

    def factory():
        killer.begins("making")
        return make()

    made._phases.factory = factory
    made.run(oracle_, ROUNDS)


def forked(work):
    """How a child ended that did `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # a child must not go on as its parent
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder, phases):
    torch.set_num_threads(1)
    learner().run(oracle, 1)  # whatever torch imports on first use, it imports once
    assert forked(lambda: run(folder / "whole")) == 0
    for phase in phases:
        if forked(lambda phase=phase: run(folder / phase, phase)) == -signal.SIGKILL:
            print(phase, flush=True)
        assert forked(lambda phase=phase: run(folder / phase)) == 0, phase


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
