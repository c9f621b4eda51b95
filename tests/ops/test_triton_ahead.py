"""Second rung: every kernel and tuning choice compiled for each architecture, and held to what the hardware has.

Registers and shared memory beyond that depend on the compiler: they are held to the budget of one release of Triton.
`python tests/ops/ahead.py` writes the budget anew, when a kernel has changed or for another release.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("triton.backends.compiler", reason="triton is not installed")
ahead = pytest.importorskip("ahead")

BUDGET = json.loads(ahead.BUDGET.read_text())
CASES = {name: (capability, launch) for name, capability, launch in ahead.cases()}
QUICK = [name for name in CASES if ahead.QUICK.match(name)]


def check_limits(name):
    capability, launch = CASES[name]
    taken = ahead.figures(launch, capability)
    beyond = ahead.beyond_limits(launch, capability, taken)
    assert not beyond, f"{name} takes " + "; ".join(beyond)
    return taken


def test_the_budget_knows_every_case_and_spills_are_few():
    assert BUDGET["cases"].keys() == CASES.keys()
    spilled = {name: allowed["spilled"] for name, allowed in BUDGET["cases"].items() if allowed["spilled"]}
    assert not spilled.keys() & set(QUICK)
    assert len(spilled) < 0.05 * len(CASES)
    assert all(amount <= 32 for amount in spilled.values()), spilled  # bytes a thread, of the 1020 in registers


@pytest.mark.parametrize(
    ("taken", "beyond"),
    [
        ({"registers": 128, "shared": 163 * 1024, "spilled": 0}, []),
        ({"registers": 256, "shared": 0, "spilled": 0}, ["256 registers a thread", "131072 registers a block"]),
        ({"registers": 129, "shared": 0, "spilled": 0}, ["66048 registers a block"]),
        ({"registers": 8, "shared": 163 * 1024 + 1, "spilled": 0}, ["166913 bytes of shared memory"]),
    ],
)
def test_what_an_a100_lacks_is_told(taken, beyond):
    launch = next(launch for _, launch in CASES.values() if launch.config.num_warps == 4)
    launch = replace(launch, config=replace(launch.config, num_warps=16))
    assert [line.split(", at most")[0] for line in ahead.beyond_limits(launch, 80, taken)] == beyond


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
def test_within_the_hardwares_limits_and_without_a_spill(name):
    assert check_limits(name)["spilled"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - set(QUICK)))
def test_within_the_hardwares_limits_everywhere(name):
    check_limits(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_within_budget(name):
    installed = ahead.triton.__version__
    if installed != BUDGET["triton"]:
        pytest.skip(f"the budget is of triton {BUDGET['triton']}, not {installed}: `python tests/ops/ahead.py` renews it")
    taken = check_limits(name)
    over = {what: (taken[what], most) for what, most in BUDGET["cases"][name].items() if taken[what] > most}
    assert not over, f"{name} takes (taken, allowed) {over}"
