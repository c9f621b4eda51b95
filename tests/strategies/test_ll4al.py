"""LL4AL: closed forms of the ranking loss, where gradients go, and that it learns to tell hard samples from easy ones."""

import models
import pytest
import small
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saal_fast.strategies import LL4AL
from saal_fast.strategies.feature_maps import average_over_space, find_levels
from saal_fast.strategies.ll4al import LossPrediction, ranking_loss


@pytest.mark.parametrize(("predicted", "losses", "expected"), [
    ([2.0, 0.5], [3.0, 1.0], 0.0),  # in order, and by more than the margin
    ([0.7, 0.5], [3.0, 1.0], 0.8),  # in order, but by too little: 1 - 0.2
    ([0.5, 2.0], [3.0, 1.0], 2.5),  # the wrong way round: 1 + 1.5
    ([0.5, 2.0], [1.0, 3.0], 0.0),
    ([0.5, 0.5], [1.0, 3.0], 1.0),
    ([0.5, 0.2], [2.0, 2.0], 1.3),  # of equal losses the first counts as the smaller
    ([0.7, 0.5, 0.5, 2.0], [3.0, 1.0, 1.0, 3.0], 0.8 / 2),  # pairs (0, 2) and (1, 3): 1 - 0.2, and 0
    ([0.7, 0.5, 9.0], [3.0, 1.0, 9.0], 0.8),  # the last of an odd batch is left over
])  # fmt: skip
def test_closed_forms(predicted, losses, expected):
    assert ranking_loss(torch.tensor(predicted), torch.tensor(losses)).item() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.floats(0, 3), st.integers(0, 1000))
def test_it_is_torchs_margin_ranking_loss(n, margin, seed):
    predicted, losses = torch.randn(2, n, generator=small.seeded(seed), dtype=torch.float64)
    half = n // 2
    sign = (losses[:half] - losses[half : 2 * half]).sign()
    expected = F.margin_ranking_loss(predicted[:half], predicted[half : 2 * half], sign, margin=margin)
    torch.testing.assert_close(ranking_loss(predicted, losses, margin), expected)


def test_a_batch_of_one_has_no_pair():
    assert ranking_loss(torch.ones(1), torch.ones(1)) is None


def test_losses_are_constants():
    predicted, losses = torch.tensor([0.0, 0.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    ranking_loss(predicted, losses * 2).backward()
    assert losses.grad is None
    assert predicted.grad.tolist() == [1.0, -1.0]  # the second is to be larger


def test_the_module_is_pooling_linear_relu_and_a_linear_layer_of_all():
    module = LossPrediction({"a": 3, "b": 2}, width=4)
    a, b = torch.randn(5, 3, generator=small.seeded(0)), torch.randn(5, 2, generator=small.seeded(1))
    first, second = ((layer.weight @ x.T).T + layer.bias for layer, x in zip(module.layers, (a, b), strict=True))
    both = torch.cat([first.clamp(min=0), second.clamp(min=0)], 1)
    torch.testing.assert_close(module({"b": b, "a": a}), both @ module.last.weight[0] + module.last.bias)


def test_pooling_is_the_mean_over_space():
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 6)
    plain, conv1d = nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Conv1d(1, 1, 1))
    torch.testing.assert_close(average_over_space(plain, maps), maps.mean((2, 3)))
    torch.testing.assert_close(average_over_space(plain, maps, channels=3), maps.mean((1, 2)))
    torch.testing.assert_close(average_over_space(plain, tokens), tokens.mean(1))
    torch.testing.assert_close(average_over_space(conv1d, tokens), tokens.mean(2))
    with pytest.raises(ValueError, match=r"floating-point map.*int64 \[3\]"):
        average_over_space(plain, torch.arange(3))


WITHOUT = {  # models that call no layer, whose layers' outputs have not a row for each sample, or are calls of one layer
    "called_by_keyword", "parameter_as_input", "conv_at_two_sizes_and_strides", "conv_of_several_windows", "conv_unbatched",
    "rnn_time_first",
}  # fmt: skip
HIDDEN_ALONE = {"scalar_parameter"}
"""Models whose only layer does not make the logits; the only layer of any other model does, or is none of torch's."""


class TestWhereTheLayersAreFound:
    def test_in_a_resnet_they_are_its_stages(self):
        torchvision = pytest.importorskip("torchvision")
        model = torchvision.models.resnet18(num_classes=10)
        assert find_levels(model, torch.randn(2, 3, 64, 64)) == ["relu", "layer1", "layer2", "layer3", "layer4"]

    def test_of_each_spatial_size_the_last(self):
        assert find_levels(small.network(), small.images(1)) == ["2", "7"]

    def test_of_a_perceptron_the_last_of_each_width_but_the_logits(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4))
        assert find_levels(model, torch.randn(2, 4)) == ["1", "4"]

    def test_a_model_without_any_is_an_error(self):
        with pytest.raises(ValueError, match=r"hidden layers.*none in Sequential"):
            find_levels(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))

    @pytest.mark.parametrize("name", models.NAMES)
    def test_in_any_model_it_runs_or_says_that_there_are_none(self, name):
        case = models.build(name)
        layers = [module for module in case.model.modules() if not list(module.children())]
        if name in WITHOUT or (len(layers) == 1 and name not in HIDDEN_ALONE):
            with pytest.raises(ValueError, match="found none"):
                find_levels(case.model, case.pool)
            return
        found = find_levels(case.model, case.pool)
        assert set(found) <= set(dict(case.model.named_modules()))
        strategy = LL4AL(width=4)
        strategy.training(case.model, pool=case.pool, generator=small.seeded(0)).close()
        assert strategy.select(case.model, case.pool, 1).scores.isfinite().all()


def step(strategy, model, epoch, epochs):
    """Gradients of what the hook adds, by the model's parameters and the module's."""
    x, y = small.images(6), torch.arange(6) % small.CLASSES
    hook = strategy.training(model, labelled=x, generator=small.seeded(0))
    hook.start_epoch(epoch, epochs)
    losses = F.cross_entropy(model(x), y, reduction="none")
    extra = hook.loss(x, y, losses)
    conv, own = model[0].weight, hook.parameters()
    grads = torch.autograd.grad(extra, [conv, *own], allow_unused=True)
    hook.close()
    return grads[0], grads[1:]


@pytest.mark.parametrize(("stop", "epoch", "epochs", "reaches"), [
    (None, 0, 10, True), (None, 5, 10, True), (None, 6, 10, False), (None, 119, 200, True), (None, 120, 200, False),
    (3, 2, 50, True), (3, 3, 50, False), (0, 0, 50, False),
])  # fmt: skip
def test_from_a_set_epoch_on_the_gradient_no_longer_reaches_the_model(stop, epoch, epochs, reaches):
    of_model, of_module = step(LL4AL(width=4, stop=stop), small.network().eval(), epoch, epochs)
    assert (of_model is not None and of_model.abs().sum() > 0) == reaches
    assert all(g is not None for g in of_module)
    assert sum(g.abs().sum() for g in of_module) > 0


def test_the_weight_multiplies_what_is_added():
    one, _ = step(LL4AL(width=4), small.network().eval(), 0, 10)
    half, _ = step(LL4AL(width=4, weight=0.5), small.network().eval(), 0, 10)
    torch.testing.assert_close(half, 0.5 * one)


def test_what_is_added_is_the_ranking_loss_of_the_modules_predictions():
    model, x = small.network().eval(), small.images(6)
    strategy = LL4AL(layers=["2", "7", "11"], width=4)
    hook = strategy.training(model, labelled=x, generator=small.seeded(0))
    losses = F.cross_entropy(model(x), torch.arange(6) % small.CLASSES, reduction="none")
    extra = hook.loss(x, None, losses)
    hook.close()
    first, second, third = model[:3](x), model[:8](x), model[:12](x)
    maps = {"2": first.mean((2, 3)), "7": second.mean((2, 3)), "11": third}
    torch.testing.assert_close(extra, ranking_loss(strategy.module(maps), losses))
    torch.testing.assert_close(strategy.select(model, x, 2).scores, strategy.module(maps).detach())


def test_a_map_that_a_later_layer_overwrites_is_the_same_in_training_and_in_choosing():
    layers = {"first": nn.Conv2d(2, 3, 3), "head": nn.Linear(3, 4)}
    model = models.Function(lambda self, x: self.head(self.first(x).relu_().mean((2, 3))), **layers)
    strategy, x = LL4AL(layers=["first"], width=4), small.images(6)
    hook = strategy.training(model, pool=x, generator=small.seeded(0))
    losses = F.cross_entropy(model(x), torch.arange(6) % 4, reduction="none")
    extra = hook.loss(x, None, losses)
    hook.close()
    torch.testing.assert_close(extra, ranking_loss(strategy.select(model, x, 1).scores, losses))


def test_it_learns_which_samples_have_a_large_loss():
    """Labels of samples with a positive mean are noise, those of the others follow a rule: the former keep a larger loss."""
    generator = small.seeded(0)
    x = torch.randn(240, 10, generator=generator)
    hard = x[:, 0] > 0
    y = torch.where(hard, torch.randint(3, (240,), generator=generator), (x[:, 1] > 0).long())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    strategy = LL4AL(width=16)
    small.train(strategy, model, x, y, unlabelled=x, generator=generator, epochs=range(15), of=15, batch=20, lr=0.1)
    fresh = torch.randn(200, 10, generator=generator)
    chosen = strategy.select(model, fresh, 50).indices
    assert (fresh[chosen, 0] > 0).float().mean() > 0.9


def test_an_odd_last_batch_and_a_batch_of_one_are_trained_on():
    x, y = small.images(9), torch.arange(9) % small.CLASSES
    added = small.train(LL4AL(width=4), small.network().eval(), x, y, unlabelled=None, generator=small.seeded(0))
    assert [value is None for value in added] == [False, False, True] * 2


class TestErrors:
    def test_choosing_before_training(self):
        with pytest.raises(RuntimeError, match="LL4AL to be trained"):
            LL4AL().select(small.network(), small.images(3), 1)

    def test_neither_pool_nor_labelled(self):
        with pytest.raises(ValueError, match="labelled= or pool="):
            LL4AL().training(small.network())

    def test_layers_that_are_not_there_or_do_not_run(self):
        with pytest.raises(ValueError, match="'nowhere' which it has not"):
            LL4AL(layers=["2", "nowhere"]).training(small.network(), pool=small.images(2))
        model = models.Function(lambda self, x: self.a(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3))
        with pytest.raises(ValueError, match=r"to run its layers \['b'\]"):
            LL4AL(layers=["b"]).training(model, pool=torch.randn(2, 4))

    @pytest.mark.parametrize("layers", [[], "layer1"])
    def test_layers_that_are_no_list_of_names(self, layers):
        with pytest.raises(ValueError, match="at least one name"):
            LL4AL(layers=layers)

    def test_another_model_than_it_was_trained_with(self):
        strategy = small.ready(LL4AL(width=4), small.network())
        with pytest.raises(ValueError, match="which it has not"):
            strategy.select(nn.Sequential(nn.Flatten(), nn.Linear(128, 4)), small.images(3), 1)

    def test_a_loss_without_a_forward_on_the_batch(self):
        model, x = small.network(), small.images(4)
        hook = LL4AL(width=4).training(model, pool=x)
        with pytest.raises(RuntimeError, match=r"right after the model's forward on the batch of 3.*none"):
            hook.loss(x[:3], None, torch.ones(3))
        model(x)
        with pytest.raises(RuntimeError, match=r"batch of 3.*batches of \[4\]"):
            hook.loss(x[:3], None, torch.ones(3))
        hook.close()
