"""VAAL: closed forms of its losses, shapes of its networks, and that it finds what is unlike the labelled samples."""

import math

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from saal_fast.strategies import VAAL
from saal_fast.strategies.vaal import PoolSampler, single_input
from saal_fast.strategies.vae import (
    Autoencoder,
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    elbo_loss,
    reparameterise,
)

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.floats(0, 3), st.integers(0, 1000))
def test_the_bound_is_a_gaussians_log_likelihood_and_divergence(n, d, latent, beta, seed):
    generator = small.seeded(seed)
    x, decoded = torch.randn(2, n, 2, d, generator=generator, dtype=torch.float64)
    mean, log_variance = torch.randn(2, n, latent, generator=generator, dtype=torch.float64)
    likelihood = distributions.Normal(decoded, 1.0).log_prob(x).flatten(1).sum(1) + d * math.log(2 * math.pi)
    code = distributions.Normal(mean, (0.5 * log_variance).exp())
    divergence = distributions.kl_divergence(code, distributions.Normal(0.0, 1.0)).sum(1)
    expected = (beta * divergence - likelihood).mean()
    torch.testing.assert_close(elbo_loss(x, decoded, mean, log_variance, beta), expected)


def test_closed_forms_of_the_bound():
    x, zero = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)
    assert elbo_loss(x, x, zero, zero).item() == 0
    assert elbo_loss(x, torch.zeros(1, 2), zero, zero).item() == pytest.approx(2.5)
    assert elbo_loss(x, x, zero + 3, zero).item() == pytest.approx(4.5)
    assert elbo_loss(x, x, zero, zero + math.log(4), beta=2).item() == pytest.approx(3 - math.log(4))


@pytest.mark.parametrize(("labelled", "unlabelled", "fool", "tell"), [
    (0.5, 0.5, 2 * math.log(2), 2 * math.log(2)),
    (0.9, 0.2, -math.log(0.9) - math.log(0.2), -math.log(0.9) - math.log(0.8)),
    (0.1, 0.99, -math.log(0.1) - math.log(0.99), -math.log(0.1) - math.log(0.01)),
])  # fmt: skip
def test_closed_forms_of_the_two_players_losses(labelled, unlabelled, fool, tell):
    odds = [torch.tensor([[p]]).logit() for p in (labelled, unlabelled)]
    assert adversarial_loss(*odds).item() == pytest.approx(fool, rel=1e-5)
    assert discriminator_loss(*odds).item() == pytest.approx(tell, rel=1e-5)


def test_the_players_losses_stay_finite_where_the_discriminator_is_certain():
    odds = torch.tensor([[-500.0]]), torch.tensor([[500.0]])
    assert discriminator_loss(*odds).item() == 1000
    assert adversarial_loss(*odds).item() == 500


def test_codes_are_mean_and_noise():
    mean, log_variance, noise = torch.tensor([[1.0]]), torch.tensor([[math.log(9.0)]]), torch.tensor([[2.0]])
    assert reparameterise(mean, log_variance, noise).item() == pytest.approx(7)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 8), (1, 4, 9), (2, 3, 3), (5,), (), (4, 6)])
@pytest.mark.parametrize("n", [1, 3])
def test_the_autoencoder_takes_samples_of_any_shape(shape, n):
    vae = Autoencoder(shape, latent=3, width=4)
    x = torch.randn(n, *shape)
    mean, log_variance = vae.encode(x)
    assert mean.shape == log_variance.shape == (n, 3)
    decoded = vae.decode(mean)
    assert decoded.shape == x.shape
    elbo_loss(x, decoded, mean, log_variance).backward()
    assert all(p.grad is not None for p in vae.parameters())


def test_of_32_pixels_there_are_four_convolutions_down_to_2():
    vae = Autoencoder((3, 32, 32), latent=32, width=8)
    convolutions = [m for m in vae.encoder if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [8, 16, 32, 64]
    assert vae.encoder[:-2](torch.randn(2, 3, 32, 32)).shape == (2, 64, 2, 2)
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in vae.decoder) == 4


def test_the_discriminator_gives_one_number_a_code():
    assert Discriminator(latent=3, width=8)(torch.randn(5, 3)).shape == (5, 1)


def test_it_chooses_what_is_unlike_the_labelled_samples():
    """Labelled samples from one of two clusters: it chooses from the other."""
    generator = small.seeded(0)
    centres = 3 * torch.eye(2, 6)
    labelled = centres[0] + 0.5 * torch.randn(64, 6, generator=generator)
    which = torch.arange(300) % 2
    pool = centres[which] + 0.5 * torch.randn(300, 6, generator=generator)
    strategy = VAAL(latent=2, width=16, lr=3e-3, adversarial=0.1)
    model = nn.Linear(6, 2)
    small.train(
        strategy, model, labelled, torch.zeros(64).long(), unlabelled=pool, generator=generator, epochs=range(10), batch=16
    )
    chosen = strategy.select(model, pool, 60)
    assert which[chosen.indices].float().mean() > 0.95
    assert chosen.scores[which == 1].mean() > chosen.scores[which == 0].mean()
    assert 0 <= chosen.scores.min() <= chosen.scores.max() <= 1


def test_the_two_networks_take_their_own_steps():
    """The autoencoder's step leaves the discriminator alone, and vice versa; the model is not touched."""
    model, pool = small.network(), small.images(8)
    strategy = VAAL(latent=3, width=4)
    hook = strategy.training(model, pool=pool, generator=small.seeded(0))
    assert hook.parameters() == []
    judge, seen = strategy.judge, []

    def copies():
        return [[p.detach().clone() for p in net.parameters()] for net in (judge.vae, judge.discriminator, model)]

    start = copies()
    hook._step_of_autoencoder(pool[:4], pool[4:])
    seen.append(copies())
    hook.after_step(pool[:4], None)
    seen.append(copies())

    def changed(a, b):
        return [not all(map(torch.equal, x, y)) for x, y in zip(a, b, strict=True)]

    assert changed(start, seen[0]) == [True, False, False]
    assert changed(seen[0], seen[1]) == [True, True, False]


def test_a_discriminators_step_is_adams_on_the_discriminator_loss():
    model, pool = small.network(), small.images(8)
    strategy = VAAL(latent=3, width=4, lr=0.01)
    hook = strategy.training(model, pool=pool, generator=small.seeded(0))
    hook._step_of_autoencoder = lambda *_: None
    net = strategy.judge.discriminator
    before = net[-1].bias.item()
    state = hook.generator.get_state()
    unlabelled = hook.unlabelled.draw(4)
    hook.generator.set_state(state)
    strategy.judge.train()
    odds = [net(strategy.judge.vae.encode(x)[0].detach()) for x in (pool[:4], unlabelled)]
    slope = (odds[0].sigmoid() - 1).mean() + odds[1].sigmoid().mean()
    hook.after_step(pool[:4], None)
    assert net[-1].bias.item() == pytest.approx(before - 0.01 * slope.sign().item(), abs=1e-5)  # Adam's first step


def test_own_autoencoders_are_taken():
    class Flat(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.a, self.b = nn.Linear(math.prod(shape), 10), nn.Linear(5, math.prod(shape))

        def encode(self, x):
            return self.a(x.flatten(1)).chunk(2, 1)

        def decode(self, z):
            return self.b(z).view(-1, 2, 8, 8)

    strategy, model = VAAL(latent=5, autoencoder=Flat), small.network()
    small.ready(strategy, model)
    assert isinstance(strategy.judge.vae, Flat)
    assert len(strategy.select(model, small.images(6), 2).indices) == 2


class Flow(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(5.0)[:, None])


@pytest.mark.parametrize("pool", [
    torch.arange(5.0)[:, None], torch.arange(5.0)[:, None].numpy(), list(torch.arange(5.0)[:, None]), Flow(),
    TensorDataset(torch.arange(5.0)[:, None], torch.arange(5)), {"x": torch.arange(5.0)[:, None]},
    DataLoader(TensorDataset(torch.arange(5.0)[:, None]), batch_size=2),
], ids=["tensor", "array", "list", "flow", "dataset", "mapping", "loader"])  # fmt: skip
def test_samples_are_drawn_uniformly_from_pools_of_every_kind(pool):
    state = torch.get_rng_state()
    draws = PoolSampler(pool, CPU, small.seeded(0))
    drawn = torch.cat([draws.draw(10) for _ in range(50)])
    assert drawn.shape == (500, 1)
    counts = drawn.flatten().long().bincount(minlength=5)
    assert counts.min() > 70
    assert counts.max() < 130
    assert torch.equal(torch.get_rng_state(), state) or isinstance(pool, DataLoader)


@pytest.mark.parametrize("pool", [
    small.images(0), small.images(0).numpy(), [], {"x": small.images(0)}, TensorDataset(small.images(0)),
    DataLoader(TensorDataset(small.images(0))),
], ids=["tensor", "array", "list", "mapping", "dataset", "loader"])  # fmt: skip
def test_of_an_empty_pool_nothing_is_learnt(pool):
    strategy, model = small.ready(VAAL(width=4, latent=3), small.network()), small.network()
    x = small.images(4)
    assert small.train(strategy, model, x, torch.arange(4), unlabelled=pool, generator=small.seeded(0)) == [None, None]
    with pytest.raises(RuntimeError, match="VAAL to be trained first"):  # and nothing is kept of the training before
        strategy.select(model, x, 1)


class TestErrors:
    def test_choosing_before_training(self):
        with pytest.raises(RuntimeError, match="VAAL to be trained first"):
            VAAL().select(small.network(), small.images(3), 1)

    def test_no_pool(self):
        with pytest.raises(ValueError, match="expected pool="):
            VAAL().training(small.network(), labelled=small.images(3))

    @pytest.mark.parametrize(("inputs", "got"), [
        (torch.arange(3), r"int64 \[3\]"), ((torch.ones(1), torch.ones(2)), r"float32 \[1\], .*float32 \[2\]"), ({}, "none"),
    ])  # fmt: skip
    def test_inputs_that_are_not_one_floating_tensor(self, inputs, got):
        with pytest.raises(TypeError, match=got):
            single_input(inputs)

    def test_no_steps(self):
        with pytest.raises(ValueError, match="steps >= 1"):
            VAAL(steps=0)
