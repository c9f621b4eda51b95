"""What every layer's geometry promises (see `engines/layers/base.py`), for the tests of all families."""

import torch

CLOSE = {"rtol": 1e-11, "atol": 1e-11}
FLOAT64 = {"dtype": torch.float64}


def check_promises(call, out, other):
    """Holds a call's layer to the protocol; `other` is a second input of the geometry."""
    layer, a = call.layer, call.input
    columns, rows = layer.unfold_input(a).to(out.dtype), layer.flatten_grad(out)
    groups, outputs, positions = rows.shape
    assert columns.shape[0] == groups
    assert columns.shape[2] == positions
    assert torch.equal(layer.unflatten_output(rows, out), out)
    g = torch.randn_like(out)
    assert torch.equal(layer.unflatten_output(layer.flatten_grad(g), out), g)
    want = columns.mT @ layer.unfold_input(other).to(out.dtype)
    torch.testing.assert_close(layer.gram(a, other).to(out.dtype), want, **CLOSE)
    assert layer.gram_flops(a, positions) > 0
    return columns, rows, groups, outputs
