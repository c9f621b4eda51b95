"""Second rung: every kernel and tuning choice compiled for each architecture, and held to its budget.

`python tests/ops/ahead.py` writes the budget anew, when a kernel has changed.
"""

from __future__ import annotations

import json

import pytest

pytest.importorskip("triton.backends.compiler", reason="triton is not installed")
ahead = pytest.importorskip("ahead")

BUDGET = json.loads(ahead.BUDGET.read_text())
CASES = {name: (capability, launch) for name, capability, launch in ahead.cases()}
QUICK = [name for name in CASES if ahead.QUICK.match(name)]


def held(name):
    capability, launch = CASES[name]
    taken = ahead.figures(launch, capability)
    over = {what: (taken[what], most) for what, most in BUDGET[name].items() if taken[what] > most}
    assert not over, f"{name} takes (taken, allowed) {over}"


def test_the_budget_knows_every_case_and_allows_no_spill():
    assert BUDGET.keys() == CASES.keys()
    assert all(allowed["spilled"] == 0 for allowed in BUDGET.values())


def test_every_kernel_and_every_tuning_choice_is_compiled():
    lists = {
        "tile_norm": ahead.tiles.NORM_CONFIGS,
        "tile_apply": ahead.tiles.APPLY_CONFIGS,
        "ghost_norm": ahead.ghost.NORM_CONFIGS,
        "ghost_apply": ahead.ghost.APPLY_CONFIGS,
        "cross_entropy": ahead.cross_entropy.CONFIGS,
        "flat_norm": ahead.flat.CONFIGS,
        "flat_step": ahead.flat.CONFIGS,
    }
    for capability in ahead.CAPABILITIES:
        for kernel, configs in lists.items():
            compiled = [name for name in CASES if name.startswith(f"sm_{capability} {kernel} ")]
            assert {name.split()[-1] for name in compiled} == {c.name for c in configs}


@pytest.mark.parametrize("name", QUICK)
def test_within_budget(name):
    held(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - set(QUICK)))
def test_within_budget_everywhere(name):
    held(name)
