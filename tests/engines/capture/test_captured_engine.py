"""Which batches are captured, replayed, or run eagerly. A capture that runs the work again plays the CUDA graph."""

from __future__ import annotations

import logging

import models
import pytest
import torch
from scored import scored
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import saal_fast
from saal_fast.engines import Problem, Result
from saal_fast.engines.capture import cuda_graph as cuda
from saal_fast.engines.capture.captured_engine import CannotCapture, CaptureCheck, CapturedEngine
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.backends import Backends
from saal_fast.engines.layers.conv import Conv
from saal_fast.engines.layers.linear import Linear
from saal_fast.perturbation import L2
from saal_fast.pools import Batch, Stream
from saal_fast.tasks import Classification


class Tape:
    """Plays a capture: `recorded` has the shapes, `replayed` a shape a call; results are of the inputs given."""

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


def by(tape):
    return lambda engine, device: CapturedEngine(engine, tape)


@pytest.mark.parametrize("labels", [None, torch.arange(23) % 3])
def test_a_shape_is_captured_on_its_second_batch_and_the_odd_last_batch_never(labels):
    model, pool = network(), torch.randn(23, 6)
    want = saal_fast.score(model, pool, labels=labels, details=True)
    tape = Tape()
    got = scored(model, pool, labels=labels, batch_size=5, capture=by(tape))
    shapes = [(5, 6)] if labels is None else [(5, 6), (5,)]
    assert tape.recorded == [shapes]
    assert tape.replayed == [shapes] * 2  # of four whole batches the second was captured, and the third compared
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss)
    assert torch.equal(got.label, want.label)


def test_every_shape_by_itself_and_no_more_than_most(monkeypatch, caplog):
    tape, engine = Tape(), engine_of(network())
    monkeypatch.setattr("saal_fast.engines.capture.captured_engine.MAX_GRAPHS", 2)
    one = CapturedEngine(engine, tape)
    with caplog.at_level(logging.INFO, "saal_fast"):
        for _ in range(4):
            for size in (2, 3, 4, 5):
                x = torch.randn(size, 6)
                want = engine(Batch((x,), {}, size, 0))
                torch.testing.assert_close(one(Batch((x,), {}, size, 0)), want)
    assert tape.recorded == [[(2, 6)], [(3, 6)]]
    assert tape.replayed == [[(2, 6)], [(3, 6)]] * 2
    assert [r.message for r in caplog.records] == [
        "batches of 2 shapes are captured, and no more: those of further shapes run without"
    ]


def engine_of(model):
    return Ghost(Problem.of(model.eval(), L2(0.1), Classification()))


def batch(x):
    return Batch((x,), {}, len(x), 0)


def test_what_cannot_be_captured_is_logged_once_and_runs_eagerly(caplog):
    model, pool = network(), torch.randn(23, 6)
    want = saal_fast.score(model, pool)
    tape = Tape(RuntimeError("operation not permitted when stream is capturing\nmore"))
    with caplog.at_level(logging.INFO, "saal_fast"):
        torch.testing.assert_close(scored(model, pool, batch_size=5, capture=by(tape)).perturbed_loss, want)
    logged = [r.message for r in caplog.records if "captured" in r.message]
    assert logged == ["batches are not captured: RuntimeError: operation not permitted when stream is capturing"]


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) * (2 if x.sum() > 0 else 1)


def test_a_model_that_asks_for_values_is_not_captured(caplog):
    model, pool = Asks(), torch.randn(23, 6)
    want = saal_fast.score(model, pool, engine="reference")
    tape = Tape()
    with caplog.at_level(logging.INFO, "saal_fast"):
        torch.testing.assert_close(scored(model, pool, batch_size=5, capture=by(tape)).perturbed_loss, want)
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
def test_what_the_check_refuses(work):
    with pytest.raises(CannotCapture, match=r"aten::\w+.* (makes the host wait|copies from cpu to meta)"), CaptureCheck():
        work(torch.ones(2))


def test_numbers_may_come_along():
    with CaptureCheck():
        assert (torch.ones(2, device="meta") * torch.tensor(2.0)).device.type == "meta"


@pytest.mark.parametrize(("name", "records"), [("mlp", 1), ("resnet", 1), ("vit", 1), ("convnext", 1), ("bert", 0)])
def test_models_pass_the_check_of_captures(name, records):
    """All but those of transformers, which ask whether any token is masked."""
    fused = Backends(fused_layers=(Conv, Linear), fused_loss=True, flat=True)
    case = models.build(name, torch.float32)
    tape = Tape()
    size = len(case.pool if isinstance(case.pool, torch.Tensor) else next(iter(case.pool.values())))
    scored(case.model, case.pool, batch_size=size // 2, backends=fused, capture=by(tape))
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
    one = CapturedEngine(engine_of(model), Tape())
    for _ in range(3):
        one(batch(torch.randn(2, 4, 6)))
    kept, cache = next(iter(one.replays.values()))[1], model.cache
    pointers = {t.untyped_storage().data_ptr() for t in kept}
    assert {p.data_ptr() for p in (cache, *model.parameters())} <= pointers


@pytest.mark.parametrize("batches", [2, 3])
def test_where_memory_runs_out_the_graphs_are_given_up(batches):
    engine = engine_of(network())
    one, x = CapturedEngine(engine, Tape()), torch.randn(4, 6)
    for _ in range(batches):
        one(batch(torch.randn(4, 6)))
    assert (len(one.unproved), len(one.replays)) == ((1, 0) if batches == 2 else (0, 1))
    failures = [torch.OutOfMemoryError("no memory")]

    def scarce(batch):
        if failures:
            raise failures.pop()
        return engine(batch)

    one.engine = scarce
    torch.testing.assert_close(one(batch(x[:3])), engine(batch(x[:3])))
    assert not one.replays
    assert not one.unproved
    failures.append(torch.OutOfMemoryError("no memory"))
    with pytest.raises(torch.OutOfMemoryError):  # there are none to give up: batches are halved above
        one(batch(x[:3]))


class Broken(Tape):
    """Replays that are right for the captured batch, and go wrong in one field later."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def __call__(self, work, inputs):
        recorded = work([t.clone() for t in inputs])

        def replay(given):
            right = work([t.clone() for t in given])
            return recorded if self.field is None else right._replace(**{self.field: getattr(recorded, self.field)})

        return replay


@pytest.mark.parametrize("field", [None, *Result._fields])
def test_a_recorder_that_gives_the_recorded_result_for_ever_is_refused(field, caplog):
    problem = Problem.of(network().eval(), L2(0.1), Classification(), embeddings=True)
    engine = Ghost(problem)
    one, first, second = CapturedEngine(engine, Broken(field)), torch.randn(5, 6), torch.randn(5, 6)
    if field == "finite":
        second[3] = torch.nan
    with caplog.at_level(logging.INFO, "saal_fast"):
        for x in (first, first, first, second, second, first):  # the third equals the captured one, and proves nothing
            got, want = one(batch(x)), engine(batch(x))
            assert all(
                torch.equal(a, b) or a.isnan().any() for a, b in zip(tree_leaves(got), tree_leaves(want), strict=True)
            )
    assert not one.replays
    assert f"a replay gives another {field or 'perturbed_loss'} than the batch itself" in caplog.text


def test_a_recording_is_trusted_only_after_a_batch_of_other_results():
    tape = Tape()
    one, x = CapturedEngine(engine_of(network()), tape), torch.randn(5, 6)
    for _ in range(4):
        one(batch(x))
    assert not one.replays
    one(batch(torch.randn(5, 6)))
    assert one.replays
    assert one.refused is None


def test_what_strikes_a_capture_from_outside_is_raised():
    struck = []

    def strikes_once(work, inputs):
        if not struck:
            struck.append(True)
            raise TimeoutError("time is up")
        return Tape()(work, inputs)

    one = CapturedEngine(engine_of(network()), strikes_once)
    one(batch(torch.randn(5, 6)))
    with pytest.raises(TimeoutError, match="time is up"):
        one(batch(torch.randn(5, 6)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    @pytest.mark.parametrize("name", ["mlp", "resnet", "vit", "convnext"])
    def test_a_replay_gives_what_the_engine_gives(self, name):
        case = models.build(name, torch.float32)
        problem = Problem.of(case.model.eval().cuda(), L2(0.3), Classification())
        engine = Ghost(problem)
        one = CapturedEngine(engine, cuda.cuda_graph)
        stream = Stream(case.pool, problem.device)
        given = next(stream.batches(3))
        with torch.no_grad():
            want, other = engine(given), given.map(lambda t: t.flip(0))
            for _ in range(3):
                torch.testing.assert_close(one(given), want, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one(other), engine(other), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one(given), want, rtol=1e-5, atol=1e-6)
        assert one.refused is None
        assert len(one.replays) == 1

    def test_a_model_that_asks_runs_without_a_graph(self):
        model, pool = Asks(), torch.randn(40, 6)
        want = saal_fast.score(model, pool)
        torch.testing.assert_close(saal_fast.score(model, pool, batch_size=8, device="cuda"), want, rtol=1e-4, atol=1e-5)

    def test_a_capture_that_fails_leaves_the_device_usable(self):
        def work(inputs):
            return inputs[0].sum().item()

        with pytest.raises(RuntimeError):
            cuda.cuda_graph(work, [torch.ones(3, device="cuda")])
        assert float(torch.ones(3, device="cuda").sum()) == 3
