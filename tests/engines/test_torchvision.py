"""Every classifier of torchvision, with random weights: ghost agrees with the reference, and nothing falls back."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import saal_fast

RHO = {torch.float64: 1e-5, torch.float32: 0.05}
TOLERANCE = {  # relative
    torch.float64: {"perturbed_loss": 1e-8, "loss": 1e-8, "grad_norm": 1e-8},
    torch.float32: {"perturbed_loss": 1e-4, "loss": 1e-4, "grad_norm": 1e-3},
}

SIZE = {"alexnet": 64, "inception_v3": 75, "maxvit_t": 224}  # the smallest each admits; 32 for all others
TOO_LARGE_TO_MOVE_WHOLE = ("regnet_y_128gf", "vit_h_14")  # of these, every fourth parameter is perturbed

FAST = ("shufflenet_v2_x0_5",)  # residuals, groups, depthwise; all others run slowly
ALL = torchvision.models.list_models(module=torchvision.models)


def built(name):
    """A network, and two images as small as it admits."""
    torch.manual_seed(0)
    size, options = SIZE.get(name, 32), {}
    if name.startswith("vit"):
        size = 2 * int(name.rsplit("_", 1)[1])  # 2 × 2 patches
        options = {"image_size": size}
    elif name == "maxvit_t":
        options = {"input_size": (size, size)}
    elif name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, "aux_logits": False}
    model = torchvision.models.get_model(name, weights=None, num_classes=5, **options).eval()
    images = torch.randn(2, 3, size, size)
    enliven(model, images)
    return model, images


@torch.no_grad()
def enliven(model, images):
    """Makes a random network tell images apart.

    Batch norms take statistics of these and some other images, layer scales grow to 1, heads of zeros get random weights.
    """
    for name, p in model.named_parameters():
        if name.endswith("layer_scale"):
            p.fill_(1.0)
        elif p.ndim > 1 and not p.any():
            p.normal_(std=0.1)
    hooks = [m.register_forward_pre_hook(measure) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if hooks:
        model(torch.cat([images, torch.randn(6, *images.shape[1:])]))
    for hook in hooks:
        hook.remove()


def measure(norm, inputs):
    """Gives a batch norm the statistics of what it is about to see."""
    norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
    norm.running_var.copy_(inputs[0].var((0, 2, 3), correction=0))


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in ALL])
def test_ghost_agrees_and_does_not_fall_back(name):
    model, images = built(name)
    normed = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    if normed:  # deep networks with random weights amplify rounding, up to a maximum or a ReLU that falls the other way
        model, images = model.double(), images.double()
    rho, tolerances = RHO[images.dtype], TOLERANCE[images.dtype]
    params = None
    if name in TOO_LARGE_TO_MOVE_WHOLE:
        params = set([n for n, _ in model.named_parameters()][::4]).__contains__
    got = saal_fast.score(model, images, rho, details=True, params=params)
    assert got.fallback is None
    assert got.engine == "ghost"

    want = saal_fast.score(model, images, rho, details=True, params=params, engine="reference")
    assert (want.sharpness.abs() > 10 * tolerances["perturbed_loss"] * want.loss).all(), (
        "nothing was perturbed: there is nothing to check"
    )
    assert want.loss[0] != want.loss[1], "both samples are alike: mixing them up would not be seen"
    bad = []
    for quantity, tolerance in tolerances.items():
        a, b = getattr(got, quantity), getattr(want, quantity)
        if not torch.allclose(a, b, rtol=tolerance, atol=0.0):
            bad.append(f"{quantity}: {a.tolist()} for {b.tolist()}, relative {((a - b) / b).abs().max():.1e}")
    assert torch.equal(got.label, want.label)
    assert not bad, "\n".join(bad)
