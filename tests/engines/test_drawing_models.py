"""Models that draw random numbers: both passes over a sample draw the same, each sample its own."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from habitual import ENGINES, Base
from torch import nn

import saal_fast


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.1)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, **options), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x, src_key_padding_mask=x[..., 0] > 0.7).mean(1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_encoder_with_a_padding_mask(engine, frozen):
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(2))
    chosen = {"params": lambda name: name.startswith("head")} if frozen else {}
    scores = saal_fast.score(Encoder(), x, 1e-9, details=True, engine=engine, **chosen)
    torch.testing.assert_close(scores.perturbed_loss, scores.loss, rtol=0, atol=1e-5)
    plain = saal_fast.score(Encoder(enable_nested_tensor=False), x, 1e-9, details=True, engine="reference", **chosen)
    torch.testing.assert_close(scores.loss, plain.loss, rtol=0, atol=1e-5)


def dropout(model, y):
    return F.dropout(y, 0.5, training=True)


def noise(model, y):
    return y + torch.randn_like(y)


def own_generator(model, y):
    return y + torch.randn(y.shape, generator=model.generator, dtype=y.dtype)


def python(model, y):
    return y * random.random()


def numpy(model, y):
    return y + torch.from_numpy(np.random.randn(4))


def numpy_generator(model, y):
    return y + torch.from_numpy(model.rng.standard_normal(4))


def bernoulli(model, y):
    return y * torch.bernoulli(torch.full_like(y, 0.5))


def gumbel(model, y):
    return F.gumbel_softmax(y)


def depth(model, y):
    return y if random.random() < 0.5 else -y


def in_a_list(model, y):
    return y + torch.randn(y.shape, generator=model.held[0]["torch"], dtype=y.dtype)


def in_a_mapping(model, y):
    return y + torch.from_numpy(model.held[0]["numpy"][0].standard_normal(4))


def in_an_object(model, y):
    return y * model.box.rng.random()


def of_raw_bits(model, y):
    return y * (model.bits.random_raw() / 2**64)


class Random(Base):
    def __init__(self, draw):
        super().__init__()
        torch.manual_seed(0)
        for p in self.parameters():
            nn.init.normal_(p)
        self.draw, self.generator, self.rng = draw, torch.Generator().manual_seed(3), np.random.default_rng(3)
        self.held = [{"torch": torch.Generator().manual_seed(4), "numpy": (np.random.default_rng(4),)}]
        self.box, self.bits = SimpleNamespace(rng=random.Random(5)), np.random.PCG64(6)

    def forward(self, x):
        return self.head(self.draw(self, self.enc(x).tanh()))


DRAWS = (dropout, noise, own_generator, python, numpy, numpy_generator, bernoulli, gumbel, depth)


DRAWS += (in_a_list, in_a_mapping, in_an_object, of_raw_bits)


QUICKLY = (dropout, own_generator, numpy, depth, in_an_object)


@pytest.mark.parametrize(
    "draw",
    [pytest.param(draw, marks=() if draw in QUICKLY else pytest.mark.slow, id=draw.__name__) for draw in DRAWS],
)
def test_draws_are_the_same_in_both_passes_and_differ_between_samples(draw, caplog):
    x = torch.randn(1, 4, dtype=torch.float64).expand(12, 4)
    model, chosen = Random(draw).double(), {"details": True}
    for engine in ("auto", "reference"):
        scores = saal_fast.score(model, x, 1e-9, engine=engine, **chosen)
        torch.testing.assert_close(scores.perturbed_loss, scores.loss, rtol=0, atol=1e-7)
        assert len(scores.loss.unique()) >= 2
        steep = saal_fast.score(model, x, 1e-6, engine=engine, **chosen)
        torch.testing.assert_close(steep.by("diff") / 1e-6, steep.grad_norm, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(steep.loss, scores.loss)  # generators came back as they were
    assert scores.engine == "reference"
    for engine in ("ghost", "vmap"):
        with pytest.raises(saal_fast.EngineError, match="random"):
            saal_fast.score(model, x, 1e-9, details=True, engine=engine)
