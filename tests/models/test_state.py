import math
import random
import subprocess
import sys
import threading
import warnings
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from saal_fast.models.state import keep_statistics, preserve_state, unwrap


class Diary(nn.Module):
    """A model that leaves traces wherever a forward pass can."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))
        self.plain = torch.zeros(2)
        self.history, self.by_name, self.names = [], {}, {"a"}
        self.calls = 0

    def forward(self, x):
        out = self.linear(x)
        self.seen += 1
        self.last = out.detach().mean(0)
        self.plain.add_(1)
        self.history.append(out)
        self.by_name["out"] = out
        self.calls += 1
        self.names.add(self.calls)
        self.cache = out
        return out


def model_with_everything():
    torch.manual_seed(0)
    model = nn.Sequential(Diary(), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2))
    model[1].eval()  # a frozen batch norm inside a model in training
    model[3].bias.requires_grad_(False)
    model(torch.randn(5, 3)).sum().backward()
    return model


def portrait(model):
    """All that can be seen of a model: objects by identity, tensors by contents too."""
    seen = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for key, value in vars(module).items():
            inner = None
            if isinstance(value, torch.Tensor):
                inner = repr(value)  # a wrapper of functorch has no tolist
            elif isinstance(value, dict):
                inner = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, list | set):
                inner = [id(v) for v in value] if isinstance(value, list) else set(value)
            seen[path, key] = (id(value), inner)
    for name, parameter in model.named_parameters():
        g = parameter.grad
        seen[name] = (
            id(parameter),
            parameter.data_ptr(),
            parameter.tolist(),
            parameter.requires_grad,
            (id(g), g.tolist()) if g is not None else None,
        )
    for name, buffer in model.named_buffers():
        seen["buffer", name] = (id(buffer), buffer.tolist(), buffer.requires_grad)
    return seen


def generators():
    return (
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
    )


def leave_traces(model):
    """Do to a model what scoring might, and worse."""
    model(torch.randn(4, 3)).sum().backward()
    random.random(), np.random.rand(), torch.rand(3)
    model[3].weight.requires_grad_(False)
    model[3].weight = nn.Parameter(torch.zeros(2, 2))
    model[0].register_buffer("extra", torch.zeros(1))
    model[0].register_forward_hook(lambda *_: None)
    del model[0].calls
    model.append(nn.ReLU())
    model[2].train()


def leave_traces_and_fail(model, error):
    with preserve_state(model):
        leave_traces(model)
        raise error


def test_a_forward_pass_leaves_traces_without_it():
    model = model_with_everything()
    before = portrait(model)
    leave_traces(model)
    assert portrait(model) != before


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, GeneratorExit])
def test_everything_comes_back(error):
    model = model_with_everything()
    before, random_before = portrait(model), generators()
    if error is None:
        with preserve_state(model):
            leave_traces(model)
    else:
        with pytest.raises(error):
            leave_traces_and_fail(model, error)
    assert portrait(model) == before
    assert generators() == random_before


class Injected(BaseException):
    """What a debugger, another thread or a signal handler may throw in at any line."""


def injecting(at, times):
    """A trace function that raises at the `at`-th line that state.py or rng.py runs from now on, and at further ones."""
    count = [0]

    def trace(frame, event, arg):
        if not frame.f_code.co_filename.endswith(("models/state.py", "_utils/rng.py", "models/turns.py")):
            return None
        if event == "line":
            count[0] += 1
            if at <= count[0] < at + times:
                raise Injected(f"line {frame.f_lineno} of {frame.f_code.co_filename}")
        return trace

    return trace, count


def leave_with_injection(model, at, times, error):
    """Leaves traces on another thread, as the main one leaves apart, and raises while the model is put back."""
    raised = []

    def work():
        trace, count = injecting(at, times)
        before = sys.gettrace()
        try:
            with preserve_state(model):
                leave_traces(model)
                sys.settrace(trace)
                if error is not None:
                    raise error
        except BaseException as caught:
            raised.append(caught)
        finally:
            sys.settrace(before)
        raised.append(count[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (None, 1),
        (ValueError, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(None, 3), (ValueError, 1)]),
    ],
)
def test_an_exception_at_any_line_of_the_restore_leaves_nothing_behind(error, times, monkeypatch):
    monkeypatch.setattr("saal_fast._utils.rng.REST", 1e-3)
    torch.set_grad_enabled(True)
    lines = 0
    while True:
        model = model_with_everything()
        before, random_before = portrait(model), generators()
        *caught, count = leave_with_injection(model, lines + 1, times, error)
        assert portrait(model) == before, caught
        assert generators() == random_before, caught
        with preserve_state(model):  # and nobody has to wait for it
            pass
        if count <= lines:
            break
        (caught,) = caught
        assert isinstance(caught, Injected)
        assert error is None or isinstance(caught.__context__, error)
        lines += max(1, count // 12)  # some twelve of them; all are tried below
    assert lines > 12


@pytest.mark.slow
def test_an_exception_at_every_line_of_the_restore_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("saal_fast._utils.rng.REST", 1e-3)
    line, count = 0, 1
    while line < count:
        line += 1
        model = model_with_everything()
        before, random_before = portrait(model), generators()
        *caught, count = leave_with_injection(model, line, 1, None)
        assert portrait(model) == before, caught
        assert generators() == random_before, caught


def test_a_step_that_fails_by_itself_lets_the_others_pass():
    class Stuck(dict):
        def __setitem__(self, key, value):
            raise OSError("stuck")

    model = model_with_everything()
    model[0].stuck = Stuck(a=1)
    before = portrait(model)

    def work():
        with preserve_state(model):
            leave_traces(model)
            dict.clear(model[0].stuck)

    with pytest.raises(OSError, match="stuck"):
        work()
    after = portrait(model)
    assert {key for key in before if before[key] != after[key]} == {("0", "stuck")}


def test_no_module_is_ever_empty_while_it_is_put_back():
    model = model_with_everything()
    seen = []

    class Watching(dict):
        def __setitem__(self, key, value):
            seen.append(min(len(vars(m)) for m in model.modules()))
            super().__setitem__(key, value)

    model[0].by_name = Watching(a=1)
    least = min(len(vars(m)) for m in model.modules())
    with preserve_state(model):
        model[0].by_name["a"] = 2
        del model[0].history
    assert seen
    assert min(seen) >= least - 1


def test_containers_of_every_kind_come_back_in_order():
    model = nn.Linear(1, 1)
    model.counts = Counter("aab")
    model.ordered = OrderedDict(a=1, b=2)
    model.queue = deque([1, 2, 3], maxlen=3)
    model.names, model.numbers = {"a", "b"}, [3, 1, 2]
    with preserve_state(model):
        model.counts.update("bcc")
        del model.ordered["a"]
        model.ordered["a"] = 3
        model.queue.extend([4, 5])
        model.names ^= {"b", "c"}
        model.numbers.sort()
    assert model.counts == Counter("aab")
    assert list(model.ordered.items()) == [("a", 1), ("b", 2)]
    assert list(model.queue) == [1, 2, 3]
    assert model.queue.maxlen == 3
    assert (model.names, model.numbers) == ({"a", "b"}, [3, 1, 2])


def test_memory_that_is_written_without_a_count_comes_back():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[1].register_buffer("mean", torch.zeros(2))
    model[1].register_buffer("peak", torch.zeros(2))
    model[1].plain = torch.zeros(2)

    def write(x):
        model[0].training = True
        model[0](x)  # its kernel writes over the running statistics, and counts no version
        model[1].mean.numpy()[0] = 1
        model[1].peak.data.add_(1)
        model[1].plain.data.add_(1)

    before = portrait(model)
    with preserve_state(model):
        write(torch.randn(5, 2))
    assert portrait(model) == before
    write(torch.randn(5, 2))
    assert portrait(model) != before


def test_what_containers_hold_comes_back():
    model = nn.Linear(1, 1)
    model.lists = [torch.zeros(2), [1, {"a": torch.zeros(2)}]]
    model.pair = (torch.zeros(2), {"n": 0})
    model.by_name = {"deep": {"deeper": {"n": 0}}}
    model.array = np.zeros(2)
    model.arrays = {"a": [np.array([1.0, np.nan])]}
    model.constant = np.zeros(2)
    model.constant.flags.writeable = False
    with preserve_state(model):
        model.lists[0].add_(1)
        model.lists[1].append(2)
        model.lists[1][1]["a"].data.add_(1)
        model.pair[0].add_(1)
        model.pair[1]["n"] += 1
        model.by_name["deep"]["deeper"]["n"] += 1
        model.by_name["deep"]["more"] = 1
        model.array += 1
        model.arrays["a"][0][:] = 3
    assert [t.tolist() for t in (model.lists[0], model.lists[1][1]["a"], model.pair[0])] == [[0, 0]] * 3
    assert len(model.lists[1]) == 2
    assert (model.pair[1], model.by_name) == ({"n": 0}, {"deep": {"deeper": {"n": 0}}})
    assert model.array.tolist() == [0, 0]
    np.testing.assert_array_equal(model.arrays["a"][0], [1, np.nan])


def test_a_model_trained_meanwhile_keeps_what_training_has_made_of_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    model[0].weight.grad = torch.ones(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        model.train()
        model(torch.randn(4, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    trained = []

    def work():
        with preserve_state(model):
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
            trained.extend(model[0].weight.tolist())

    with pytest.raises(RuntimeError, match=r"\(0.weight, 0.bias\), or it was trained in another thread"):
        work()
    assert model[0].weight.tolist() == trained
    assert model[0].weight.grad is None  # the old one would be added to the next
    assert all(module.training for module in model.modules())


BURST = """
import os, signal, sys, threading, time, torch
from torch import nn
from saal_fast import score
from saal_fast.models import state

def stop(number, frame):
    while frame is not None:  # what strikes this script elsewhere is left alone
        if frame.f_code is attempt.__code__:
            raise RuntimeError(f"signal {number}")
        frame = frame.f_back

numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1]
for number in numbers:
    signal.signal(number, stop)

torch.manual_seed(0)
model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()) for _ in range(20)), nn.Linear(4, 3))
model(torch.randn(8, 4)).sum().backward()
x = torch.randn(16, 4)

def portrait():
    return (
        [(id(p), p.tolist(), id(p.grad), p.grad.tolist()) for p in model.parameters()],
        [(id(b), b.tolist()) for b in model.buffers()],
        [(m.training, list(vars(m))) for m in model.modules()],
    )

firing = threading.Event()

def fire():
    while True:
        firing.wait()
        for number in numbers:
            os.kill(os.getpid(), number)
        time.sleep(2e-4)

class Fires(nn.Module):
    def forward(self, x):
        firing.set()
        return x

def attempt(n):
    with state.preserve_state(model):
        if n % 2:
            score(model, x)
        firing.set()
        time.sleep(n * 1e-5)

model.append(Fires())
before = portrait()
threading.Thread(target=fire, daemon=True).start()
cut = 0
for n in range(int(sys.argv[1])):
    try:
        attempt(n)
    except RuntimeError:
        cut += 1
    firing.clear()
    assert portrait() == before, n
print("cut", cut)
"""


@pytest.mark.parametrize("attempts", [8, pytest.param(24, marks=pytest.mark.slow)])
def test_a_burst_of_signals_of_every_kind_leaves_nothing_behind(attempts):
    command = [sys.executable, "-c", BURST, str(attempts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > attempts // 4 - 1


def test_inside_every_submodule_is_in_eval_mode_and_gradients_are_clear():
    model = model_with_everything()
    with preserve_state(model):
        assert not any(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_an_overridden_eval_is_not_called():
    class Merging(nn.Linear):
        def train(self, mode=True):
            if not mode:
                self.weight.data += 1
            return super().train(mode)

    model = Merging(2, 2)
    before = model.weight.tolist()
    with preserve_state(model):
        assert not model.training
    assert model.weight.tolist() == before
    assert model.training


@pytest.mark.parametrize("moment", range(8))
def test_an_interrupt_while_it_sets_up_leaves_nothing_behind(moment):
    class Interrupting(nn.Linear):
        armed = None

        def __setattr__(self, name, value):
            if name == "training" and type(self).armed is not None:
                if type(self).armed == 0:
                    type(self).armed = None
                    raise KeyboardInterrupt
                type(self).armed -= 1
            super().__setattr__(name, value)

    model = nn.Sequential(*(Interrupting(2, 2) for _ in range(8)))
    model(torch.randn(1, 2)).sum().backward()
    before = portrait(model)
    Interrupting.armed = moment
    with pytest.raises(KeyboardInterrupt), preserve_state(model):
        pytest.fail("the body must not run")
    assert portrait(model) == before


def test_nested_on_one_model():
    model = model_with_everything()
    before = portrait(model)
    with preserve_state(model):
        outer = portrait(model)
        with preserve_state(model):
            leave_traces(model)
        assert portrait(model) == outer
        leave_traces(model)
    assert portrait(model) == before


def test_a_module_and_a_parameter_that_appear_twice():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.Dropout(), shared, nn.Linear(2, 2))
    model[3].weight = shared.weight
    before = portrait(model)
    with preserve_state(model):
        model(torch.randn(3, 2)).sum().backward()
    assert portrait(model) == before


def test_a_weight_norm_leaves_no_dead_wrapper():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old weight_norm is deprecated, and in use
        model = nn.utils.weight_norm(nn.Linear(3, 2))
    x = torch.randn(4, 3)
    before = portrait(model)
    with preserve_state(model):
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        vmap(grad(lambda p, x: functional_call(model, p, (x,)).sum()), in_dims=(None, 0))(parameters, x)
        assert portrait(model) != before
    assert portrait(model) == before
    assert torch.isfinite(model(x)).all()


def test_a_buffer_that_began_to_require_grad():
    model = nn.BatchNorm1d(2)
    with preserve_state(model):
        model.running_mean.copy_(model.weight * 2)
        assert model.running_mean.requires_grad
    assert not model.running_mean.requires_grad
    assert model.running_mean.is_leaf
    assert model.running_mean.tolist() == [0, 0]


def test_a_buffer_that_was_asked_to_require_grad_or_whose_data_was_swapped():
    model = nn.BatchNorm1d(2)
    before = portrait(model)
    with preserve_state(model):
        model.running_mean.requires_grad_()
        model.running_var.data = torch.zeros(2)
    assert portrait(model) == before


def test_a_parameter_whose_data_was_swapped():
    model = nn.Linear(2, 2)
    before = portrait(model)
    with preserve_state(model):
        model.weight.data = torch.renorm(model.weight.data, 2, 0, 0.01)
        model.half()
    assert portrait(model) == before
    assert model.weight.dtype == torch.float32


def test_a_sparse_buffer():
    model = nn.Module()
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with preserve_state(model):
        model.adjacency.mul_(2)
    assert model.adjacency.to_dense().tolist() == torch.eye(3).tolist()


def test_a_parameter_changed_in_place_is_reported_by_name():
    model = nn.Sequential(nn.Embedding(4, 2, max_norm=0.01), nn.Dropout())
    with pytest.raises(RuntimeError, match=r"in place.*\(0\.weight\)"), preserve_state(model):
        model(torch.tensor([0, 1]))
    assert all(module.training for module in model.modules())


def test_a_change_through_a_detached_alias_is_reported():
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"\(bias\)"), preserve_state(model):
        model.bias.detach().add_(1)


def test_the_report_does_not_hide_another_exception():
    embedding = nn.Embedding(2, 3, max_norm=0.01)
    model = nn.Sequential(embedding, nn.Linear(4, 2))  # of another width: fails after the embedding
    with pytest.raises(RuntimeError, match="shapes") as error, preserve_state(model):
        model(torch.tensor([0, 1]))
    if sys.version_info >= (3, 11):
        assert "in place while it was scored (0.weight)" in error.value.__notes__[0]
    assert embedding.weight.norm(dim=1).max() < 0.011


@pytest.mark.parametrize("layer", [nn.LazyLinear(2), nn.LazyBatchNorm1d(affine=False)])
def test_a_lazy_module_is_refused(layer):
    with pytest.raises(ValueError, match=r"^0\.\w+ of the model is lazy"), preserve_state(nn.Sequential(layer)):
        pytest.fail("the body must not run")
    assert layer.training


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_script_module_inside_a_model():
    model = nn.Sequential(torch.jit.script(nn.BatchNorm1d(2)), nn.Linear(2, 2))
    with preserve_state(model):
        assert not model[0].training
        model[0].running_mean.add_(1)
    assert model[0].training
    assert model[0].running_mean.tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_frozen_script_module_has_no_flag():
    model = nn.Sequential(torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval())))
    with preserve_state(model):
        assert not model.training
    assert model.training


def test_a_compiled_model():
    inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model = torch.compile(inner, backend="eager")
    before = portrait(inner)
    with preserve_state(model):
        assert not inner[1].training
        model(torch.randn(3, 2))
    assert portrait(inner) == before
    assert model.training
    assert model(torch.randn(3, 2)).shape == (3, 2)


def test_unwrap():
    model = nn.Linear(2, 2)
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(torch.compile(nn.DataParallel(torch.compile(model, backend="eager")), backend="eager")) is model


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_generator_of_the_models_gpu_comes_back():
    model = nn.Linear(2, 2).cuda()
    before = torch.cuda.get_rng_state()
    with preserve_state(model):
        torch.rand(3, device="cuda")
        assert not torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def normed():
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=None), nn.InstanceNorm1d(2, track_running_stats=True)]
    return nn.Sequential(*norms).double()


def test_statistics_are_put_back_whatever_happens():
    model = normed()
    model(torch.randn(4, 2, 3, dtype=torch.float64))
    before, buffer = [b.tolist() for b in model.buffers()], model[0].running_mean

    def spoil():
        model(torch.full((4, 2, 3), math.nan, dtype=torch.float64))
        assert all(b.isnan().all() for b in model.buffers() if b.is_floating_point())
        model[0].running_mean = torch.zeros(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), keep_statistics(model):
        spoil()
    assert [b.tolist() for b in model.buffers()] == before
    assert model[0].running_mean is buffer


def test_layers_normalise_by_their_batch_while_statistics_are_kept():
    model, twin, x = normed(), normed(), torch.randn(4, 2, 3, dtype=torch.float64)
    with keep_statistics(model):
        assert torch.equal(model(x), twin(x))


def test_other_buffers_go_on_while_statistics_are_kept():
    model = normed()
    model.register_buffer("seen", torch.zeros(()))
    with keep_statistics(model):
        model.seen += 1
    assert model.seen == 1
