"""Which batches are recorded, replayed, or run as ever. A recorder that runs the work again plays the CUDA graph."""

from __future__ import annotations

import logging

import models
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

import saal_fast
from saal_fast.engines import Problem
from saal_fast.engines.capture import recorder as graphs
from saal_fast.engines.capture.recorder import CannotRecord, Graphed, Rehearsal
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost import engine as ghost
from saal_fast.engines.ghost.backends import GHOSTED, Routes
from saal_fast.perturbation import L2
from saal_fast.pools import Batch, Stream
from saal_fast.scoring import score as scoring
from saal_fast.tasks import Classification


class Tape:
    """Plays the recorder: `recorded` has the shapes, `replayed` a shape a call; results are of the inputs given."""

    def __init__(self, fail=None):
        self.recorded, self.replayed, self.fail = [], [], fail

    def __call__(self, work, inputs):
        if self.fail:
            raise self.fail
        self.recorded.append([tuple(t.shape) for t in inputs])
        held = [t.clone() for t in inputs]

        def replay(given):
            self.replayed.append([tuple(t.shape) for t in given])
            for t, new in zip(held, given, strict=True):
                t.copy_(new)
            return tree_map(torch.clone, work(held))

        return replay


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def taped(monkeypatch, tape):
    monkeypatch.setattr(scoring, "graphed", lambda engine, device: Graphed(engine, tape))
    return tape


@pytest.mark.parametrize("labels", [None, torch.arange(23) % 3])
def test_a_shape_is_recorded_on_its_second_batch_and_the_odd_last_batch_never(labels, monkeypatch):
    model, pool = network(), torch.randn(23, 6)
    want = saal_fast.score(model, pool, labels=labels, details=True)
    tape = taped(monkeypatch, Tape())
    got = saal_fast.score(model, pool, labels=labels, batch_size=5, details=True)
    shapes = [(5, 6)] if labels is None else [(5, 6), (5,)]
    assert tape.recorded == [shapes]
    assert tape.replayed == [shapes] * 3  # of four whole batches the second was rehearsed, and replayed to be compared
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss)
    assert torch.equal(got.label, want.label)


def test_every_shape_by_itself_and_no_more_than_most(monkeypatch):
    tape, engine = Tape(), engine_of(network())
    monkeypatch.setattr(graphs, "MOST", 2)
    one = Graphed(engine, tape)
    for _ in range(4):
        for size in (2, 3, 4):
            x = torch.randn(size, 6)
            want = engine(Batch((x,), {}, size, 0), None)
            torch.testing.assert_close(one(Batch((x,), {}, size, 0), None), want)
    assert tape.recorded == [[(2, 6)], [(3, 6)]]
    assert tape.replayed == [[(2, 6)], [(3, 6)]] * 3


def engine_of(model):
    return Ghost(Problem.of(model.eval(), L2(0.1), Classification()))


def batch(x):
    return Batch((x,), {}, len(x), 0)


def test_what_cannot_be_recorded_is_logged_once_and_runs_as_ever(caplog, monkeypatch):
    model, pool = network(), torch.randn(23, 6)
    want = saal_fast.score(model, pool)
    taped(monkeypatch, Tape(RuntimeError("operation not permitted when stream is capturing\nmore")))
    with caplog.at_level(logging.INFO, "saal_fast"):
        torch.testing.assert_close(saal_fast.score(model, pool, batch_size=5), want)
    told = [r.message for r in caplog.records if "recorded" in r.message]
    assert told == ["batches are not recorded: RuntimeError: operation not permitted when stream is capturing"]


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) * (2 if x.sum() > 0 else 1)


def test_a_model_that_asks_for_values_is_not_recorded(monkeypatch, caplog):
    model, pool = Asks(), torch.randn(23, 6)
    want = saal_fast.score(model, pool, engine="reference")
    tape = taped(monkeypatch, Tape())
    with caplog.at_level(logging.INFO, "saal_fast"):
        torch.testing.assert_close(saal_fast.score(model, pool, batch_size=5), want)
    assert tape.recorded == []
    assert "makes the host wait for values on the device" in caplog.text


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.to("meta"),
        lambda x: x.nonzero(),
        lambda x: x.sum().item(),
        lambda x: torch.ones(2, device="meta").copy_(x),
    ],
)
def test_what_a_rehearsal_refuses(work):
    with pytest.raises(CannotRecord, match=r"aten::\w+.* (makes the host wait|copies from cpu to meta)"), Rehearsal():
        work(torch.ones(2))


def test_numbers_may_come_along():
    with Rehearsal():
        assert (torch.ones(2, device="meta") * torch.tensor(2.0)).device.type == "meta"


@pytest.mark.parametrize(("name", "records"), [("mlp", 1), ("resnet", 1), ("vit", 1), ("convnext", 1), ("bert", 0)])
def test_models_are_rehearsed_without_complaint(name, records, monkeypatch):
    """All but those of transformers, which ask whether any token is masked."""
    monkeypatch.setattr(ghost, "routes_for", lambda problem: Routes(ghosts=GHOSTED, loss=True, packed=True))
    case = models.build(name, torch.float32)
    tape = taped(monkeypatch, Tape())
    size = len(case.pool if isinstance(case.pool, torch.Tensor) else next(iter(case.pool.values())))
    saal_fast.score(case.model, case.pool, batch_size=size // 2)
    assert len(tape.recorded) == records


class Caches(nn.Module):
    """Keeps a tensor that it makes anew where it is too short, as rotary embeddings do."""

    def __init__(self):
        super().__init__()
        self.layer, self.cache = nn.Linear(6, 3), None

    def forward(self, x):
        if self.cache is None or len(self.cache) < x.shape[1]:
            self.cache = torch.arange(x.shape[1]) / 2.0
        return self.layer(x * self.cache[: x.shape[1], None]).mean(1)


def test_what_a_graph_reads_is_kept():
    model = Caches()
    one = Graphed(engine_of(model), Tape())
    for _ in range(2):
        one(batch(torch.randn(2, 4, 6)), None)
    kept, cache = next(iter(one.replays.values()))[1], model.cache
    pointers = {t.untyped_storage().data_ptr() for t in kept}
    assert {p.data_ptr() for p in (cache, *model.parameters())} <= pointers


def test_where_memory_runs_out_the_graphs_are_given_up(monkeypatch, caplog):
    engine = engine_of(network())
    one, x = Graphed(engine, Tape()), torch.randn(4, 6)
    for _ in range(2):
        one(batch(x), None)
    assert one.replays
    failures = [torch.OutOfMemoryError("no memory")]

    def scarce(batch, labels):
        if failures:
            raise failures.pop()
        return engine(batch, labels)

    one.engine = scarce
    torch.testing.assert_close(one(batch(x[:3]), None), engine(batch(x[:3]), None))
    assert not one.replays
    failures.append(torch.OutOfMemoryError("no memory"))
    with pytest.raises(torch.OutOfMemoryError):  # there are none to give up: batches are halved above
        one(batch(x[:3]), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    @pytest.mark.parametrize("name", ["mlp", "resnet", "vit", "convnext"])
    def test_a_replay_gives_what_the_engine_gives(self, name):
        case = models.build(name, torch.float32)
        problem = Problem.of(case.model.eval().cuda(), L2(0.3), Classification())
        engine = Ghost(problem)
        one = Graphed(engine, graphs.recorded)
        stream = Stream(case.pool, problem.device)
        given = next(stream.batches(3))
        with torch.no_grad():
            want = engine(given, None)
            for _ in range(3):
                torch.testing.assert_close(one(given, None), want, rtol=1e-5, atol=1e-6)
        assert one.refused is None
        assert len(one.replays) == 1

    def test_a_model_that_asks_runs_without_a_graph(self):
        model, pool = Asks(), torch.randn(40, 6)
        want = saal_fast.score(model, pool)
        torch.testing.assert_close(saal_fast.score(model, pool, batch_size=8, device="cuda"), want, rtol=1e-4, atol=1e-5)

    def test_recording_that_fails_leaves_the_device_usable(self):
        def work(inputs):
            return inputs[0].sum().item()

        with pytest.raises(RuntimeError):
            graphs.recorded(work, [torch.ones(3, device="cuda")])
        assert float(torch.ones(3, device="cuda").sum()) == 3
