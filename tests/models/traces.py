"""Models that leave traces of a forward pass, and portraits of all that can be seen of them."""

import random

import numpy as np
import torch
from torch import nn

from saal_fast.models.state import preserve_state


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
