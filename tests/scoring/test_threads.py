"""Scoring from several threads: one model in turn, two models side by side, and nothing of the process's left changed."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import saal_fast
from saal_fast import explain, score
from saal_fast.models import features
from saal_fast.models.features import penultimate
from saal_fast.models.state import disable_compiled


def network(seed=0):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
    model = nn.Sequential(body, nn.Linear(16, 3))
    model(torch.randn(30, 4)).logsumexp(1).sum().backward()
    return model


def portrait(model):
    tensors = [(id(t), t.tolist()) for t in model.state_dict(keep_vars=True).values()]
    return tensors, [(id(p.grad), p.grad.tolist()) for p in model.parameters()], [m.training for m in model.modules()]


def in_threads(*works):
    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(60) for future in [threads.submit(work) for work in works]]


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
def test_one_model_from_four_threads(engine):
    model, pools = network(), [torch.randn(20, 4) for _ in range(4)]
    want = [score(model, pool, engine=engine, batch_size=5) for pool in pools]
    before = portrait(model)
    for _ in range(2):
        got = in_threads(*(lambda pool=pool: score(model, pool, engine=engine, batch_size=5) for pool in pools))
        assert all(map(torch.equal, got, want))
    assert portrait(model) == before


def test_models_that_share_modules_parameters_or_a_wrapper():
    model, pool = network(), torch.randn(20, 4)
    tied = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3))
    tied[1].weight = model[1].weight
    tied(pool).sum().backward()
    others = [nn.DataParallel(model), nn.Sequential(model[0], nn.Linear(16, 2)), tied, torch.compile(model, backend="eager")]
    want = [score(m, pool) for m in (model, *others)]
    before = portrait(model)
    for _ in range(3):
        got = in_threads(*(lambda m=m: score(m, pool) for m in (model, *others)))
        assert all(map(torch.equal, got, want))
    assert portrait(model) == before


def test_other_uses_of_one_model_take_turns_too():
    model, pool = network(), torch.randn(20, 4)
    logits, want = features.logits(model, pool), score(model, pool)
    before = portrait(model)
    got = in_threads(
        lambda: score(model, pool),
        lambda: features.logits(model, pool),
        lambda: str(explain(model, pool)),
        lambda: features.penultimate(model, pool).logits,
    )
    assert torch.equal(got[0], want)
    assert torch.equal(got[1], logits)
    assert torch.equal(got[3], logits)
    assert portrait(model) == before


def meeting():
    """A function that waits, once in each thread, until two have called it."""
    barrier, come = threading.Barrier(2), set()

    def meet():
        if threading.get_ident() not in come:
            come.add(threading.get_ident())
            barrier.wait(30)

    return meet


class Meets(nn.Module):
    """Goes on once another thread is inside the forward pass of its model."""

    def __init__(self, meet):
        super().__init__()
        self.meet = meet

    def forward(self, x):
        self.meet()
        return x


def test_two_models_in_two_threads_go_on_side_by_side():
    meet = meeting()
    models = [nn.Sequential(network(i), Meets(meet)) for i in range(2)]
    pool = torch.randn(20, 4)
    got = in_threads(*(lambda m=m: score(m, pool) for m in models))
    assert all(torch.equal(a, score(network(i), pool)) for i, a in enumerate(got))


def test_a_model_that_scores_inside_its_forward_pass():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()
            object.__setattr__(self, "others", [network(1)])

        def forward(self, x):
            score(self.others[0], torch.ones(2, 4), engine="reference")
            features.logits(self.body, torch.ones(2, 4))  # has the turn already
            return self.body(x)

    model, pool = Scores(), torch.randn(2, 4)
    assert torch.equal(score(model, pool, engine="reference"), score(network(), pool, engine="reference"))


def test_the_switch_of_torch_compile_comes_back_whoever_leaves_first():
    import torch._dynamo as dynamo  # noqa: PLC0415 - takes seconds

    def stance():
        return dynamo.eval_frame._stance.stance

    assert stance() == "default"
    one, two = disable_compiled(), disable_compiled()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert stance() == "force_eager"
    two.__exit__(None, None, None)
    assert stance() == "default"
    with torch.compiler.set_stance("eager_on_recompile"):
        in_threads(*(lambda i=i: score(network(i), torch.randn(20, 4)) for i in range(4)))
        assert stance() == "eager_on_recompile"
    assert stance() == "default"


DRAWS = {
    "torch": lambda: float(torch.rand((), dtype=torch.float64)),
    "python": random.random,
    "numpy": np.random.rand,
}


SLOW = [(name, None) for name in ("python", "numpy")] + [(name, 0) for name in DRAWS] + [("torch", 1e-4)]


@pytest.mark.parametrize(
    ("generator", "pause"),
    [("torch", None), ("python", 1e-4), ("numpy", 1e-4), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_what_another_thread_draws_does_not_come_twice(generator, pause):
    model, pool, drawn, done = network(), torch.randn(100, 4), [], threading.Event()

    def draw():
        while not done.is_set():
            drawn.append(DRAWS[generator]())
            if pause is not None:
                time.sleep(pause)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(3):
            score(model, pool, batch_size=25)
    finally:
        done.set()
        thread.join()
    assert len(drawn) > 10
    assert len(set(drawn)) == len(drawn)


def states():
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()


class Draws(nn.Module):
    def forward(self, x):
        torch.rand(3), random.random(), np.random.rand()
        return x


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("where", ["model", "loader", "dataset"])
def test_what_scoring_draws_is_put_back_also_beside_a_thread_that_draws_nothing(where, beside):
    class Drawing(list):
        def __getitem__(self, i):
            Draws()(None)
            return super().__getitem__(i)

    x = torch.randn(12, 4)
    model = nn.Sequential(network(), Draws()) if where == "model" else network()
    pool = {"model": x, "loader": DataLoader(list(x), batch_size=4), "dataset": Drawing(x)}[where]
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    if beside:
        thread.start()
    before = states()
    try:
        score(model, pool, engine="reference", batch_size=4)
        assert states() == before
    finally:
        done.set()
        if beside:
            thread.join()


@pytest.mark.slow  # a full machine may hold a thread up for longer than the rest in which a generator must not move
def test_two_threads_whose_pools_draw_leave_the_generator_as_it_was():
    x, meet = torch.randn(12, 4), meeting()
    models = [nn.Sequential(network(i), Meets(meet)) for i in range(2)]
    before = states()
    in_threads(*(lambda m=m: score(m, DataLoader(list(x), batch_size=4), engine="reference", check=False) for m in models))
    assert states() == before


def test_training_the_model_meanwhile_is_an_error_that_says_so():
    model, pool = nn.Sequential(nn.Linear(4, 3), nn.Dropout()), torch.randn(20, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    class Trains(nn.Module):
        def forward(self, x):
            if threads:
                thread = threads.pop()
                thread.start()
                thread.join()
            return x

    def train():
        model.train()
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        optimizer.zero_grad()

    parameters = list(model.parameters())
    model.append(Trains())
    threads = [threading.Thread(target=train)]
    with pytest.raises(RuntimeError, match=r"in place while it was scored.*or it was trained in another thread"):
        score(model, pool, engine="reference")
    assert all(p.grad is None for p in parameters)
    assert all(module.training for module in model.modules())


def test_hooks_on_a_models_layers_stay_in_their_threads_turn():
    model, pool = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(60, 4)
    failed = []

    def work(run):
        try:
            for _ in range(3):
                run()
        except Exception as error:
            failed.append(error)

    runs = [lambda: penultimate(model, pool, batch_size=5), lambda: saal_fast.score(model, pool, batch_size=5)] * 2
    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert not any(module._forward_hooks for module in model)


@pytest.mark.parametrize("generator", ["python", "numpy"])
def test_a_model_that_draws_rewinds_its_own_generator_alone(generator):
    """Torch's, which its dropout draws from, for the second pass; not those that another thread draws from meanwhile."""

    class Drops(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.3, training=True)

    model, drawn, done = nn.Sequential(network(), Drops()), [], threading.Event()

    def draw():
        while not done.wait(1e-4):
            drawn.append(DRAWS[generator]())

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        scores = score(model, torch.randn(100, 4), 1e-9, batch_size=25, details=True)
    finally:
        done.set()
        thread.join()
    torch.testing.assert_close(scores.perturbed_loss, scores.loss, rtol=0, atol=1e-5)
    assert len(drawn) > 10
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
def test_a_plain_call_in_another_thread_meanwhile_is_an_error_that_says_so(engine):
    class Calls(nn.Module):
        """Has another thread call the whole model while it is inside a pass."""

        def forward(self, x):
            if calls:
                in_threads(calls.pop())
            return x

    def call():
        with pytest.raises(RuntimeError, match=r"Sequential is being scored in another thread.*copy\.deepcopy"):
            model(pool)
        refused.append(True)

    model, pool, refused, calls = network(), torch.randn(20, 4), [], []
    model.append(Calls())
    want, before = model.eval()(pool), dict(vars(model))
    calls.append(call)
    scores = score(model, pool, engine=engine)
    assert refused
    assert torch.equal(scores, score(model, pool, engine=engine))
    assert torch.equal(in_threads(lambda: model(pool))[0], want)
    assert vars(model) == before
    assert not model._forward_pre_hooks
