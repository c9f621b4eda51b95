"""Models that another library's hooks wrap, by a double of opacus' `GradSampleModule`: the module inside is scored."""

import sys
from functools import partial

import pytest
import torch
from torch import nn

import saal_fast
from saal_fast.models.state import unwrap

ENGINES = ("auto", "ghost", "vmap", "reference")


class GradSampleModule(nn.Module):
    """What opacus' does: hooks on modules that have parameters collect gradients of samples, and fail in eval mode."""

    __module__ = "opacus.grad_sample.double"

    def __init__(self, module, on=True):
        super().__init__()
        self._module, self.hooks_enabled = module, on
        self.handles = []
        for part in module.modules():
            if list(part.parameters(recurse=False)):
                self.handles.append(part.register_forward_hook(self.capture_activations))
                self.handles.append(part.register_full_backward_hook(partial(self.capture_gradients, reduction="mean")))
        for p in module.parameters():
            p.grad_sample, p._forward_counter = None, 0

    def forward(self, *args, **kwargs):
        return self._module(*args, **kwargs)

    def capture_activations(self, module, args, out):
        if module.training and torch.is_grad_enabled() and self.hooks_enabled:
            module.activations = [*getattr(module, "activations", ()), args[0].detach()]
            for p in module.parameters(recurse=False):
                p._forward_counter += 1

    def capture_gradients(self, module, by_input, by_output, reduction):
        if not self.hooks_enabled:
            return
        if not getattr(module, "activations", None):
            raise ValueError(f"No activations detected for {type(module)}, run forward after add_hooks(model)")
        a, g = module.activations.pop(), by_output[0] * len(by_output[0])
        module.weight.grad_sample = torch.einsum("no,nd->nod", g, a)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def pool():
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def trained_once(model):
    model.train()
    model(pool()).sum().backward()
    return model


def portrait(model):
    """All that the hooks and their owner keep, by identity."""
    hooks = [list(vars(m)[kind].items()) for m in model.modules() for kind in ("_forward_hooks", "_backward_hooks")]
    kept = [(p.grad, *((k, id(v)) for k, v in vars(p).items())) for p in model.parameters()]
    return hooks, kept, [dict(vars(m)) for m in model.modules()], model.hooks_enabled


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, lambda m: m._module], ids=["itself", "in another", "inside"])
def test_the_module_inside_is_scored_and_comes_back(wrap, engine):
    want = saal_fast.score(net(), pool(), details=True, engine="reference")
    model = trained_once(GradSampleModule(net()))
    samples = [p.grad_sample for p in model.parameters()]
    copies = [s.clone() for s in samples if s is not None]
    before = portrait(model)
    got = saal_fast.score(wrap(model), pool(), details=True, engine=engine)
    assert got.engine == ("ghost" if engine == "auto" else engine), got.fallback
    for name in ("loss", "grad_norm", "perturbed_loss"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-9, atol=0)
    assert str(portrait(model)) == str(before)
    assert all(p.grad_sample is s for p, s in zip(model.parameters(), samples, strict=True))
    assert all(map(torch.equal, [s for s in samples if s is not None], copies))
    trained_once(model)  # the hooks still do their work


def test_hooks_that_were_off_stay_off():
    model = GradSampleModule(net(), on=False)
    saal_fast.score(model, pool())
    assert model.hooks_enabled is False


def test_hooks_are_there_again_after_an_error():
    model = GradSampleModule(net())
    model._module[0].register_forward_hook(print)  # of the model's own, between
    model._module[0].register_full_backward_hook(model.capture_gradients)
    before = portrait(model)
    with pytest.raises(RuntimeError):
        saal_fast.score(model, torch.randn(3, 7, dtype=torch.float64))
    assert str(portrait(model)) == str(before)


@pytest.mark.filterwarnings("error:Full backward hook is firing")
def test_scores_take_no_notice_of_the_hooks():
    """A gradient that underflows without the loss scale, which models with hooks of their own go without."""
    model = GradSampleModule(net().float())
    with torch.no_grad():
        model._module[2].bias[0] = 90
    scores = saal_fast.score(model, pool().float(), details=True)
    assert (scores.perturbed_loss > 0).all()
    assert scores.engine == "ghost"


def test_a_model_of_the_library_itself_is_no_wrapper():
    layer = type("DPLinear", (nn.Linear,), {"__module__": "opacus.layers.double"})(3, 2)
    assert unwrap(layer) is layer
    assert "opacus" not in sys.modules


def test_attributes_of_parameters_come_back():
    class Notes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            self.layer.weight.seen = x
            return self.layer(x)

    model = Notes().double()
    model.layer.bias.note = note = object()
    saal_fast.score(model, pool())
    assert vars(model.layer.bias) == {"note": note}
    assert not hasattr(model.layer.weight, "seen")
