"""Fused functions that are right, wrong or raise, tried on the CPU in the place of a GPU."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import pytest
import torch

from saal_fast import _config, _native, kmeans
from saal_fast._utils import proofs
from saal_fast._utils.proofs import Proof, findings, proven
from saal_fast.ops.common import registration, trials
from saal_fast.ops.common.triton import KERNEL_DTYPES
from saal_fast.ops.cross_entropy import reference as cross_entropy
from saal_fast.ops.flat import reference as flat
from saal_fast.ops.ghost import reference as ghost
from saal_fast.ops.tiles import reference as tiles

CPU = torch.device("cpu")
TRIALS = {
    "tile_norm": (trials.tile_norms, tiles.norm),
    "tile_apply": (trials.tile_steps, tiles.apply),
    "ghost_norm": (trials.ghost_norms, ghost.norm),
    "ghost_apply": (trials.ghost_steps, ghost.apply),
    "flat_norm": (trials.flat_norms, flat.norm),
    "flat_step": (trials.flat_steps, flat.step),
    "cross_entropy": (trials.logits, cross_entropy.cross_entropy),
}


@pytest.fixture(autouse=True)
def _none_found(monkeypatch):
    monkeypatch.setattr(proofs, "_found", {})


def draw(device):
    yield (torch.arange(5.0, device=device) - 2,)


def double(x):
    return 2 * x


def wrong(x):
    return torch.where(x == 2, 4.1, 2 * x)


def fails(x):
    raise RuntimeError("no kernel image is available")


WRONG = {
    "a number": (wrong, "it is off by 0.1, more than 0.004, on its drawn input 0"),
    "nan": (lambda x: 2 * x / (x != 2), "it is off by (inf|nan)"),
    "shape": (lambda x: 2 * x[:3], r"it gave torch.float32 \[3\] for torch.float64 \[5\]"),
    "type": (lambda x: (2 * x).long(), "it gave torch.int64"),
    "count": (lambda x: (2 * x, x), "it gave 2 results for 1"),
    "raises": (fails, "it raised RuntimeError: no kernel image is available"),
    "empty": (lambda x: torch.full_like(x, torch.nan), "it is off by nan"),
}


def test_what_is_right_is_proven():
    assert proven(Proof("double", draw, double, double), CPU)
    assert findings() == {"double on cpu": "proven"}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_left_out_with_its_reason(kind, caplog):
    fused, why = WRONG[kind]
    with caplog.at_level(logging.WARNING):
        assert not proven(Proof("double", draw, fused, double), CPU)
    assert "double is left out on cpu" in caplog.text
    with pytest.raises(AssertionError, match=f"left out: {why}"):
        raise AssertionError(findings()["double on cpu"])
    shown = _config.show_config()
    assert shown.proofs == findings()
    assert "left out: it " in str(shown)


def test_whole_numbers_are_compared_exactly():
    off = lambda x: x.long() + (x == 2)  # noqa: E731
    assert not proven(Proof("whole", draw, off, torch.Tensor.long), CPU)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_what_says_nothing_about_the_function_is_raised_and_tried_again(error):
    def interrupted(x):
        raise error

    with pytest.raises(error):
        proven(Proof("double", draw, interrupted, double), CPU)
    assert proven(Proof("double", draw, double, double), CPU)


def test_one_trial_a_process_and_device_also_with_threads():
    calls = []

    def slow(x):
        calls.append(1)
        time.sleep(0.05)
        return 2 * x

    proof, answers = Proof("slow", draw, slow, double), []
    threads = [threading.Thread(target=lambda: answers.append(proven(proof, CPU))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, len(calls)) == ([True] * 8, 1)
    assert proven(proof, torch.device("cpu", 0))  # another device
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", KERNEL_DTYPES)
@pytest.mark.parametrize("name", TRIALS)
def test_the_trials_suit_their_operations(name, dtype):
    """They run, they find the plain code right, and they notice a result that is a hundredth off in one number."""
    trials_of, plain = TRIALS[name]
    drawn = partial(trials_of, dtype=dtype)

    def spoilt(*args):
        found = plain(*args)
        many = found if isinstance(found, tuple) else (found,)
        spoilt = many[-1].clone()
        at = spoilt.abs().argmax()
        spoilt.view(-1)[at] *= 1.1 if spoilt.dtype != torch.float32 else 1.01
        return (*many[:-1], spoilt) if isinstance(found, tuple) else spoilt

    assert proven(Proof(name, drawn, plain, plain), CPU)
    assert not proven(Proof(f"spoilt {name}", drawn, spoilt, plain), CPU)


@pytest.mark.parametrize("good", [True, False])
def test_an_operator_asks_before_its_kernel_serves(good, monkeypatch):
    """The rule that `register` gives to CUDA, taken by itself."""
    served = []

    class Op:
        _name = "saal_fast::double"

        def register_kernel(self, device):
            return served.append

        def register_vmap(self, rule):
            pass

    class Module:
        double = staticmethod(lambda x: double(x) if good else wrong(x))

    monkeypatch.setattr(registration.triton, "usable", lambda args: True)
    monkeypatch.setattr(registration, "import_module", lambda name: Module)
    registration.register(
        Op(), double, shared=(False,), triton_module="some.triton", trials=lambda device, dtype: draw(device)
    )
    x = torch.tensor([2.0, 3.0])
    assert torch.equal(served[0](x), 2 * x)
    assert proofs.findings()["saal_fast::double of float32 on cpu"].startswith("proven" if good else "left out")
    with pytest.raises(TypeError, match="expected trials for saal_fast::double"):
        registration.register(Op(), double, shared=(False,), triton_module="some.triton")


@pytest.mark.parametrize("good", [True, False])
def test_the_cuda_seeder_proves_itself(good, monkeypatch):
    """With the CPU's own search in the place of the CUDA module's."""

    def search(data, *args):
        found = kmeans._draw(data, *args)
        return found if good else found._replace(rows=found.rows[::-1].copy())

    monkeypatch.setattr(kmeans, "_search_cuda", search)
    assert proven(kmeans._PROOF, CPU) is good
    monkeypatch.setattr(_native, "cuda", object)

    class Fake:
        """x as `_draw_cuda` sees it."""

        device, shape = torch.device("cuda", 0), (40, 3)

    monkeypatch.setattr(kmeans, "proven", lambda proof, device: good)
    monkeypatch.setattr(kmeans, "_search_cuda", lambda *args: "searched")
    data = kmeans.Data(Fake, None, None, [])
    assert kmeans._draw_cuda(data, 5, "random", 0, "plain", False) == ("searched" if good else None)
