import copy

import pytest
import torch
import torch.nn.functional as F
from learners import network, problem
from torch import nn

import saal_fast
from saal_fast.learning import Accuracy, Labelled, Training
from saal_fast.strategies import TrainingHook

IMAGES, LABELS = problem()
ROWS = torch.tensor([5, 1, 8, 40, 22, 13, 3, 17])


def labelled():
    return Labelled(IMAGES, ROWS, LABELS[ROWS])


def still():
    """A network without draws of its own in training, nor a bias before the batch norm, whose gradient is rounding alone."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()


def inputs():
    return Labelled(IMAGES.double(), ROWS, LABELS[ROWS])


@pytest.mark.parametrize("name", ["adam", "sgd", "sam"])
def test_it_is_the_plain_loop(name):
    make = {
        "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2),
        "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
        "sam": lambda groups: saal_fast.SAM(groups, torch.optim.SGD, lr=1e-2, momentum=0.9),
    }[name]
    model = still().train()
    plain = copy.deepcopy(model)
    torch.manual_seed(5)
    numbers = Training(epochs=3, batch_size=3, optimiser=make)(model, inputs(), TrainingHook())

    torch.manual_seed(5)
    optimiser = make([{"params": list(plain.parameters())}])
    means = []
    for _ in range(3):
        losses = []
        for at in torch.randperm(8).tensor_split(3):
            x, y = IMAGES[ROWS[at]].double(), LABELS[ROWS[at]]
            optimiser.zero_grad()
            loss = F.cross_entropy(plain(x), y)
            loss.backward()
            if name == "sam":
                optimiser.first_step(zero_grad=True)
                statistics = copy.deepcopy(dict(plain.named_buffers()))
                F.cross_entropy(plain(x), y).backward()
                optimiser.second_step()
                plain.load_state_dict(statistics, strict=False)
            else:
                optimiser.step()
            losses.append(loss.item() * len(at))
        means.append(sum(losses) / 8)
    for (key, ours), theirs in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=key)
    assert numbers["loss"] == pytest.approx(means[-1], rel=1e-9)


def test_the_hook_is_called_at_its_places():
    calls = []

    class Hook(TrainingHook):
        def __init__(self):
            self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def parameters(self):
            return [self.weight]

        def start_epoch(self, epoch, epochs):
            calls.append(("epoch", epoch, epochs))

        def loss(self, x, y, losses):
            assert losses.shape == (len(y),)
            assert losses.requires_grad
            calls.append(("loss", len(x)))
            return (self.weight - 1) ** 2

        def after_step(self, x, y):
            calls.append(("step", len(x), y.tolist()))

    hook, model = Hook(), still().train()
    Training(epochs=2, batch_size=4)(model, inputs(), hook)
    kinds = [call[0] for call in calls]
    assert kinds == ["epoch", "loss", "step", "loss", "step"] * 2
    assert [call for call in calls if call[0] == "epoch"] == [("epoch", 0, 2), ("epoch", 1, 2)]
    assert sorted(y for call in calls[:5] if call[0] == "step" for y in call[2]) == sorted(LABELS[ROWS].tolist())
    assert hook.weight.item() > 0  # the optimiser trained it too


def test_batches_are_of_even_size():
    sizes = []

    class Hook(TrainingHook):
        def after_step(self, x, y):
            sizes.append(len(y))

    Training(epochs=1, batch_size=7)(still().train(), inputs(), Hook())
    assert sizes == [4, 4]  # not 7 and 1


def test_a_scheduler_steps_every_epoch_and_frozen_parameters_stay():
    rates = []

    class Hook(TrainingHook):
        def after_step(self, x, y):
            rates.append(made[0].param_groups[0]["lr"])

    made = []

    def optimiser(groups):
        made.append(torch.optim.SGD(groups, lr=1.0))
        return made[0]

    model = still().train()
    model[1].weight.requires_grad_(False)
    before = model[1].weight.clone()
    halving = lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)  # noqa: E731 - named for its use below
    Training(epochs=3, batch_size=8, optimiser=optimiser, scheduler=halving)(model, inputs(), Hook())
    assert rates == [1.0, 0.5, 0.25]
    assert torch.equal(model[1].weight, before)


def test_a_plateau_scheduler_is_given_the_mean_loss_of_the_epoch():
    seen = []

    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append(float(metrics))
            super().step(metrics)

    numbers = Training(epochs=3, batch_size=8, scheduler=Plateau)(still().train(), inputs(), TrainingHook())
    assert len(seen) == 3
    assert seen[-1] == numbers["loss"]


def test_models_that_return_more_than_logits_and_take_keywords():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, image, mask):
            return {"logits": self.inner(image * mask), "other": image}

    pool = {"image": IMAGES, "mask": torch.ones_like(IMAGES)}
    seen = []

    class Hook(TrainingHook):
        def after_step(self, x, y):
            seen.append(set(x))

    model = Two().train()
    data = Labelled(pool, ROWS, LABELS[ROWS])
    Training(epochs=1)(model, data, Hook())
    assert seen == [{"image", "mask"}]
    assert set(data[0][0]) == {"image", "mask"}
    assert torch.equal(data[2][0]["image"], IMAGES[ROWS[2]])
    right = Accuracy(pool, LABELS, batch_size=7)(model.eval())["accuracy"]
    assert right == (model(**pool)["logits"].argmax(1) == LABELS).double().mean().item()


def test_bad_trainings_and_evaluations_are_reported():
    with pytest.raises(ValueError, match="expected epochs >= 0, got -1"):
        Training(epochs=-1)
    with pytest.raises(ValueError, match="expected batch_size >= 1, got 0"):
        Training(batch_size=0)
    with pytest.raises(ValueError, match=r"expected labels in \[0, 3\)"):
        Training(epochs=1)(network(), Labelled(IMAGES, ROWS, LABELS[ROWS] + 1), TrainingHook())
    with pytest.raises(ValueError, match="expected a label for each of the 60 samples"):
        Accuracy(IMAGES, LABELS[:-1])(network())
    with pytest.raises(ValueError, match="0 samples"):
        Accuracy(IMAGES[:0], LABELS[:0])(network())


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (LABELS[:, None], ValueError, r"expected labels of shape \[N\], a class for each sample; got \[60, 1\]"),
        (LABELS.float(), TypeError, "expected labels as whole numbers, got torch.float32"),
    ],
)
def test_accuracy_refuses_labels_that_are_no_classes(labels, error, words):
    with pytest.raises(error, match=words):
        Accuracy(IMAGES, labels)


def test_accuracy_takes_lists_and_arrays():
    model = network().eval()
    expected = Accuracy(IMAGES, LABELS)(model)
    assert 0 <= expected["accuracy"] <= 1
    for labels in (LABELS.tolist(), LABELS.numpy(), LABELS.to(torch.uint8)):
        assert Accuracy(IMAGES, labels)(model) == expected
    with pytest.raises(ValueError, match="expected batch_size >= 1, got 0"):
        Accuracy(IMAGES, LABELS, batch_size=0)
    with pytest.raises(TypeError, match=r"expected batch_size to be a whole number, got 2\.5"):
        Accuracy(IMAGES, LABELS, batch_size=2.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 1.5}, r"expected epochs to be a whole number, got 1\.5"),
        ({"batch_size": "ten"}, "expected batch_size to be a whole number, got 'ten'"),
        ({"optimiser": 1e-3}, r"expected optimiser to be a function that makes one, got 0\.001"),
        ({"scheduler": 3}, "expected scheduler to be a function that makes one, or None; got 3"),
        ({"task": 3}, "expected task to be an object with methods pseudo_label and loss, got 3"),
    ],
)
def test_a_training_of_other_types_is_reported_at_once(options, words):
    with pytest.raises(TypeError, match=words):
        Training(**options)


def test_an_optimiser_that_makes_none_is_reported():
    with pytest.raises(TypeError, match="expected optimiser to make an optimizer with a step, it made NoneType"):
        Training(optimiser=lambda groups: None)(network(), inputs(), TrainingHook())
