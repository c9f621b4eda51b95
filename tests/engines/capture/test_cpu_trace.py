"""Work written down as operations and run again: on other inputs, of other strides, and as often as one likes."""

from __future__ import annotations

import models
import pytest
import torch
from scored import scored
from torch import nn

import saal_fast
from saal_fast.engines import Problem
from saal_fast.engines.capture import captured
from saal_fast.engines.capture.captured_engine import CapturedEngine
from saal_fast.engines.capture.cpu_trace import cpu_trace
from saal_fast.engines.ghost import Ghost
from saal_fast.perturbation import L2, Adaptive, Lp
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

RULES = {"L2": L2(0.3), "adaptive": Adaptive(0.2), "L3": Lp(0.2, 3)}


CASES = [
    *((name, "L2", False) for name in ("mlp", "conv2d_stride")),
    *(pytest.param(name, "L2", False, marks=pytest.mark.slow) for name in ("linear_used_twice", "vit", "lstm")),
    ("conv2d_stride", "adaptive", True),
    ("mlp", "L3", True),
    *(pytest.param("conv2d_stride", rule, True, marks=pytest.mark.slow) for rule in ("L2", "L3")),
    *(pytest.param("mlp", rule, True, marks=pytest.mark.slow) for rule in ("L2", "adaptive")),
    *(pytest.param("resnet", rule, every, marks=pytest.mark.slow) for rule in RULES for every in (False, True)),
    *(pytest.param(name, "adaptive", True, marks=pytest.mark.slow) for name in ("vit", "convnext", "lstm")),
]


@pytest.mark.parametrize(("name", "rule", "everything"), CASES)
def test_a_replay_scores_other_samples_as_the_engine_does(name, everything, rule, monkeypatch):
    if everything:
        models.factor_everything(monkeypatch)
    case = models.build(name, torch.float64)
    engine = Ghost(Problem.of(case.model.eval(), RULES[rule], Classification()))
    x = case.pool[:3]

    def work(inputs):
        return engine(Batch((inputs[0],), {}, 3, labels=inputs[1]))

    label = torch.tensor([0, 1, 0])
    with torch.no_grad():
        engine(Batch((x,), {}, 3, labels=label))
        replay = cpu_trace(work, [x, label])
        inside = torch.arange(9) % 2  # labels come as slices, which begin inside of their memory
        pools = [x, x.flip(0)]
        if x.is_floating_point():
            pools.append(x.movedim(1, -1).contiguous().movedim(-1, 1) - 0.1)
        for k, pool in enumerate(pools * 2):
            given = [pool.clone(), inside[k : k + 3]]
            before = [t.clone() for t in given]
            torch.testing.assert_close(replay(given), work(given), rtol=1e-9, atol=1e-12)
            assert all(torch.equal(t, b) for t, b in zip(given, before, strict=True))


def test_what_no_input_enters_is_computed_once_and_views_are_joined():
    weight = torch.randn(4, 3)

    def work(inputs):
        return inputs[0].t().unsqueeze(0).squeeze(0).t() @ (weight.exp() + 1).t().contiguous()

    x = torch.randn(2, 3)
    replay = cpu_trace(work, [x])
    calls = [n.target for n in replay.__closure__[0].cell_contents.graph.nodes if n.op == "call_function"]
    assert calls == [torch.ops.aten.clone.default, torch.ops.aten.mm.default]
    torch.testing.assert_close(replay([x + 1]), work([x + 1]))


def test_what_is_written_over_is_made_anew_each_time():
    def work(inputs):
        room = torch.zeros(2, 3)
        room[:, 1:].add_(inputs[0])
        return room.t() * 2

    x = torch.ones(2, 2)
    replay = cpu_trace(work, [x])
    for k in range(3):
        torch.testing.assert_close(replay([x * k]), work([x * k]))


def test_score_captures_on_a_cpu_after_many_batches(monkeypatch):
    monkeypatch.setattr("saal_fast.engines.capture.captured_engine.CPU_TRACE_AFTER", 3)
    made = []

    def noted(engine, device):
        made.append(captured(engine, device))
        return made[-1]

    case = models.build("conv2d_stride", torch.float32)
    pool = torch.cat([case.pool] * 5)
    want = saal_fast.score(case.model, pool, engine="reference", details=True)
    got = scored(case.model, pool, batch_size=2, capture=noted)
    assert len(made[0].replays) == 1
    assert made[0].refused is None
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss, rtol=1e-4, atol=1e-6)
    assert torch.equal(got.label, want.label)


def test_a_replay_that_gives_other_numbers_is_not_used(caplog):
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    engine = Ghost(Problem.of(model, L2(0.1), Classification()))
    one = CapturedEngine(engine, lambda work, inputs: lambda given: work([t + 1 for t in given]))
    with caplog.at_level("INFO", "saal_fast"):
        for _ in range(3):
            torch.testing.assert_close(one(Batch((x,), {}, 5, 0)), engine(Batch((x,), {}, 5, 0)))
    assert one.replays == {}
    assert "a replay gives another perturbed_loss" in caplog.text
