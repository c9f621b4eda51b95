"""`preserve_state`: every kind of state that a module may hold comes back."""

import sys
import threading
import warnings
from collections import Counter, OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from models.traces import leave_traces, model_with_everything, portrait
from saal_fast.models.state import preserve_state, unwrap


def test_a_forward_pass_leaves_traces_without_it():
    model = model_with_everything()
    before = portrait(model)
    leave_traces(model)
    assert portrait(model) != before


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
