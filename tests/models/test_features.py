"""Features are the last layer's input, in any model, from any pool."""

import pytest
import small
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import models
from saal_fast.models.features import each_batch, last_layer, logits, penultimate

FP64 = {"rtol": 1e-9, "atol": 1e-12}
FUNCTIONAL = {"called_by_keyword", "parameter_as_input"}  # they use their layers' weights, and call no layer


def test_features_and_logits_are_those_of_eval_mode():
    model, x = small.network(), small.images(7)
    found = penultimate(model, x)
    model.eval()
    features = model[:-1](x)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.logits, model[-1](features))
    torch.testing.assert_close(logits(model, x), found.logits)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_linear_head_answers_to_the_features_of_any_model(name):
    """Whatever the model is: where its last linear layer gives the logits, W h + b are the logits."""
    case = models.build(name)
    linear = [m for m in case.model.modules() if isinstance(m, nn.Linear)]
    if not linear or name in FUNCTIONAL:
        with pytest.raises(ValueError, match="runs none"):
            penultimate(case.model, case.pool)
        return
    before = {n: t.clone() for n, t in case.model.state_dict().items()}
    found = penultimate(case.model, case.pool, batch_size=2)
    _, layer = last_layer(case.model, case.pool)
    n = next(iter(case.pool.values())).shape[0] if isinstance(case.pool, dict) else len(case.pool)
    assert found.features.shape[0] == found.logits.shape[0] == n
    if found.features.shape[1] == layer.in_features and layer.out_features == found.logits.shape[1]:
        if name != "scalar_parameter":  # scales what the layer gives
            torch.testing.assert_close(layer(found.features).detach(), found.logits, **FP64)
    else:
        assert found.features.shape[1] % layer.in_features == 0  # a linear layer over positions
    assert all(torch.equal(t, before[n]) for n, t in case.model.state_dict().items())


def test_the_last_layer_is_the_last_that_runs_not_the_last_that_was_written():
    class Backward(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body, self.unused = nn.Linear(3, 2), nn.Linear(4, 3), nn.Linear(9, 9)

        def forward(self, x):
            return {"logits": self.head(self.body(x).tanh())}

    model, x = Backward(), torch.randn(5, 4)
    assert last_layer(model, x)[0] == "head"
    torch.testing.assert_close(penultimate(model, x).features, model.body(x).tanh().detach())


def test_a_layer_can_be_named():
    model, x = small.network(), small.images(5)
    found = penultimate(model, x, layer="10")
    torch.testing.assert_close(found.features, model.eval()[:10](x))
    wide = penultimate(model, x, layer="5")  # a convolution: its input, flattened
    assert wide.features.shape == (5, 4 * 4 * 4)


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel])
def test_wrappers_are_taken_off(wrap):
    model, x = small.network(), small.images(5)
    assert torch.equal(penultimate(wrap(model), x).features, penultimate(model, x).features)


@pytest.mark.parametrize("batch_size", [1, 3, 100, "auto"])
def test_batches_change_nothing(batch_size):
    model, x = small.network().double(), small.images(10, dtype=torch.float64)
    data = DataLoader(TensorDataset(x, torch.zeros(10)), batch_size=4)
    torch.testing.assert_close(penultimate(model, data, batch_size=batch_size), penultimate(model, x), **FP64)


def test_half_precision_is_widened():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)).to(torch.bfloat16)
    found = penultimate(model, torch.randn(5, 4, dtype=torch.bfloat16))
    assert found.features.dtype == found.logits.dtype == torch.float32


@pytest.mark.parametrize(("layer", "words"), [("nowhere", "'nowhere'.*its last are: .*12"), ("", "''")])
def test_a_layer_that_is_not_there_is_an_error(layer, words):
    with pytest.raises(ValueError, match=words):
        penultimate(small.network(), small.images(2), layer=layer)


def test_a_layer_that_does_not_run_is_an_error():
    model = models.Function(lambda self, x: self.a(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="to run its layer 'b'"):
        penultimate(model, torch.randn(2, 4), layer="b")


def test_a_layer_without_a_row_for_each_sample_is_an_error():
    model = models.Function(lambda self, x: x @ self.a(self.w).T, a=nn.Linear(4, 4), w=nn.Parameter(torch.ones(3, 4)))
    with pytest.raises(ValueError, match=r"a row for each of 2 samples, got \[3, 4\]"):
        penultimate(model, torch.randn(2, 4))


def test_what_is_no_module_is_an_error():
    with pytest.raises(TypeError, match=r"eager torch\.nn\.Module, got function"):
        logits(lambda x: x, torch.randn(2, 4))


def test_a_batch_size_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"batch_size.*got 0"):
        each_batch(small.network(), small.images(2), lambda z: z, batch_size=0)
