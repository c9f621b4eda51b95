"""Which engine scores, and what happens where it cannot."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from saal_fast import EngineError, score
from saal_fast._utils.logs import forget_warnings

FP64 = {"rtol": 1e-9, "atol": 1e-12}


def mlp(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def inputs(n=7, dtype=torch.float64):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True)
def nothing_warned_yet():
    forget_warnings()


class ByPointer(nn.Module):
    """Leaves torch on its way, which `vmap` cannot."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        return self.body(x) * float(x.detach().data_ptr() != 0)


class Rewriting(nn.Module):
    """Writes a sample into a tensor that it keeps, and that is no buffer, which `vmap` cannot."""

    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.kept = [torch.zeros(3, dtype=torch.float64)]

    def forward(self, x):
        z = self.body(x)
        self.kept[0].copy_(z[-1].detach())
        return z


@pytest.mark.parametrize("model", [ByPointer, Rewriting])
def test_auto_falls_back_to_reference_and_says_why_once(model, caplog):
    model, x = model(), inputs()
    with caplog.at_level(logging.INFO, logger="saal_fast"):
        details = score(model, x, batch_size=2, details=True)
        score(model, x, batch_size=2)
    (record,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    assert f"reference engine, many times slower: ghost cannot run {type(model).__name__}: " in record.getMessage()
    assert details.engine == "reference"
    assert details.fallback in record.getMessage()
    assert torch.equal(details.perturbed_loss, score(model, x, engine="reference"))


def test_a_fallback_scores_no_batch_twice():
    model, seen = ByPointer(), []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    counts = []
    for n in (7, 7, 12):
        score(model, inputs(n), check=False)
        counts.append(len(seen))
        seen.clear()
    assert counts[2] - counts[1] == 2 * (12 - 7)  # two passes for each further sample


def test_auto_may_fall_back_halfway(caplog):
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            z = self.body(x.mean(1))
            return z + float(x.detach().data_ptr() != 0) if x.shape[1] > 2 else z

    loader = [torch.randn(2, n, 4, dtype=torch.float64) for n in (1, 2, 3, 1)]
    model, loader = Long(), DataLoader(loader, batch_size=None)
    details = score(model, loader, details=True)
    assert details.engine == "reference"
    assert details.fallback.startswith("from sample 4 on: ghost cannot run Long: ")
    torch.testing.assert_close(details.perturbed_loss, score(model, loader, engine="reference"), **FP64)


def test_auto_scores_a_model_that_asks_the_data_which_way_to_go():
    class Undecided(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) if x.sum().item() > 0 else 2 * self.body(x)

    torch.testing.assert_close(score(Undecided(), inputs()), score(Undecided(), inputs(), engine="reference"), **FP64)


def test_auto_is_ghost_where_it_can(caplog):
    details = score(mlp(), inputs(), details=True)
    assert (details.engine, details.fallback) == ("ghost", None)
    assert not caplog.records


@pytest.mark.parametrize("engine", ["ghost", "vmap"])
@pytest.mark.parametrize("model", [ByPointer, Rewriting])
def test_an_engine_asked_for_never_falls_back(engine, model, caplog):
    with pytest.raises(EngineError, match=rf"^{engine} cannot run {model.__name__}: RuntimeError: ") as error:
        score(model(), inputs(), engine=engine)
    assert isinstance(error.value.__cause__, RuntimeError)
    assert not caplog.records
