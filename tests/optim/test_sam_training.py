"""SAM in a training loop: closures, schedulers, checkpoints, batch norm."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
from loops import SGD, Adam, batches, loss_of, net, same, train, two_passes, weights_of
from torch import nn

import saal_fast
from saal_fast import SAM

SCHEDULERS = torch.optim.lr_scheduler


# --- step(closure) ----------------------------------------------------------------------------------


@pytest.mark.parametrize("zeroing", [False, True])
def test_a_closure_alone_is_called_for_both_gradients(zeroing):
    model, twin = net(), net()
    optimizer, other = (SAM(m.parameters(), SGD, rho=0.5, lr=0.1, momentum=0.9) for m in (model, twin))
    for batch in batches(4):
        losses = []

        def closure(batch=batch, losses=losses):
            if zeroing:
                optimizer.zero_grad()
            losses.append(loss_of(model, batch))
            losses[-1].backward()
            return losses[-1]

        at_w = loss_of(model, batch).item()
        with torch.no_grad():  # step gives gradients back
            loss = optimizer.step(closure)
        assert loss is losses[0]
        assert loss.item() == at_w
        assert len(losses) == 2
        assert losses[1] > losses[0]
        assert all(p.grad is None for p in model.parameters())
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
    assert same(model, twin)


def test_gradients_that_are_there_are_those_of_the_first_pass():
    model, twin = net(), net()
    optimizer, other = (SAM(m.parameters(), SGD, rho=0.5, lr=0.1) for m in (model, twin))
    first, second = batches(2)
    calls = []

    def closure():
        calls.append(loss_of(model, second))
        calls[-1].backward()
        return calls[-1]

    loss_of(model, first).backward()
    assert optimizer.step(closure) is calls[0]
    assert len(calls) == 1
    loss_of(twin, first).backward()
    other.first_step(zero_grad=True)
    loss_of(twin, second).backward()
    other.second_step()
    assert same(model, twin)


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_closure_that_raises_leaves_everything_as_it_was(fails_at):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1, momentum=0.9, freeze_statistics=model)
    train(model, optimizer, 2)
    optimizer.zero_grad()
    weights, checkpoint = weights_of(model), copy.deepcopy(optimizer.state_dict())
    statistics = []
    (batch,) = batches(1, seed=5)
    calls = []

    def closure():
        calls.append(loss_of(model, batch))
        calls[-1].backward()
        if len(calls) > fails_at:
            raise KeyboardInterrupt
        statistics.append(model[1].running_mean.clone())
        return calls[-1]

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert str(optimizer.state_dict()) == str(checkpoint)
    if fails_at == 1:
        assert torch.equal(model[1].running_mean, statistics[0])  # those of the first pass
    train(model, optimizer, 1)


def test_an_exception_between_the_steps_by_hand_and_restore():
    model, twin = net(), net()
    optimizer, other = (SAM(m.parameters(), SGD, rho=0.5, lr=0.1) for m in (model, twin))
    loss_of(model, *batches(1, seed=9)).backward()
    optimizer.first_step(zero_grad=True)
    assert not same(model, twin)
    optimizer.restore()
    assert same(model, twin)
    train(model, optimizer, 2)
    train(twin, other, 2)
    assert same(model, twin)


# --- schedulers, hooks, checkpoints -----------------------------------------------------------------


@pytest.mark.parametrize("by_closure", [False, True])
@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: SCHEDULERS.StepLR(o, 2, gamma=0.1),
        lambda o: SCHEDULERS.OneCycleLR(o, max_lr=0.5, total_steps=8),  # cycles momentum too
        lambda o: SCHEDULERS.SequentialLR(o, [SCHEDULERS.LinearLR(o), SCHEDULERS.CosineAnnealingLR(o, 4)], [3]),
    ],
    ids=["StepLR", "OneCycleLR", "SequentialLR"],
)
def test_schedulers_act_on_the_base(scheduler, by_closure):
    """With a radius of zero the run is the base optimizer's own, rates and all; and no scheduler misses a step."""
    model, twin = net(), net()
    optimizer = SAM(model.parameters(), SGD, rho=0.0, lr=0.1, momentum=0.9)
    base = SGD(twin.parameters(), lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The epoch parameter")
        warnings.filterwarnings("error", message="Detected call of")
        schedulers = [scheduler(optimizer), scheduler(base)]
        for batch in batches(6):

            def closure(batch=batch):
                loss_of(model, batch).backward()

            if by_closure:
                optimizer.step(closure)
            else:
                two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
            base.zero_grad()
            loss_of(twin, batch).backward()
            base.step()
            for each in schedulers:
                each.step()
            assert optimizer.base_optimizer.param_groups[0]["lr"] == base.param_groups[0]["lr"]
    assert same(model, twin)


def test_the_radius_can_be_scheduled():
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer = SAM([p], SGD, rho=0.5, lr=0.1)
    p.grad = torch.ones(1)
    optimizer.param_groups[0]["rho"] = 0.25
    optimizer.first_step()
    assert p.item() == 1.25
    optimizer.restore()
    optimizer.param_groups[0]["rho"] = -1
    with pytest.raises(ValueError, match="expected a finite rho >= 0, got rho=-1"):
        optimizer.first_step()
    assert p.item() == 1


@pytest.mark.parametrize("by_closure", [False, True])
def test_hooks_see_one_step(by_closure):
    p = nn.Parameter(torch.ones(2))
    optimizer, seen = SAM([p], SGD, lr=0.1), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    if by_closure:
        optimizer.step(lambda: p.square().sum().backward())
    else:
        two_passes(optimizer, lambda: p.square().sum())
    assert seen == ["before", "after"]


@pytest.mark.parametrize("base", [SGD, Adam])
def test_a_checkpoint_goes_on_to_the_same_weights(base, tmp_path):
    setting = {"lr": 0.05, "momentum": 0.9} if base is SGD else {"lr": 0.05}
    model = net()
    groups = lambda m: [{"params": m[0].parameters(), "rho": 0.7}, {"params": m[2].parameters(), "adaptive": True}]  # noqa: E731
    optimizer = SAM(groups(model), base, **setting)
    train(model, optimizer, 3)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "checkpoint")
    train(model, optimizer, 3, seed=2)

    weights, state = torch.load(tmp_path / "checkpoint", weights_only=True)
    twin = net(seed=7)
    twin.load_state_dict(weights)
    other = SAM(groups(twin), base, rho=9.0, **{**setting, "lr": 1.0})
    other.load_state_dict(state)
    assert [group["rho"] for group in other.param_groups] == [0.7, 0.05]
    train(twin, other, 3, seed=2)
    assert same(model, twin)
    assert other.base_optimizer.param_groups is other.param_groups
    assert other.base_optimizer.state is other.state


def test_checkpoints_of_the_base_optimizer_load_and_the_other_way_round():
    model, twin = net(), net()
    base = Adam(model.parameters(), lr=0.03)
    loss_of(model, *batches(1)).backward()
    base.step()
    sam = SAM(twin.parameters(), Adam, rho=0.2, adaptive=True, lr=0.5)
    sam.load_state_dict(base.state_dict())
    (group,) = sam.param_groups
    assert (group["lr"], group["rho"], group["adaptive"]) == (0.03, 0.2, True)
    train(twin, sam, 1)
    base.load_state_dict(sam.state_dict())
    assert base.state[model[0].weight]["step"] == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_its_own_way_to_the_same_weights(copied):
    model = net()
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1, momentum=0.9, freeze_statistics=model)
    train(model, optimizer, 2)
    twin, other = copied((model, optimizer))
    train(twin, other, 2, seed=2)
    assert not same(model, twin)
    train(model, optimizer, 2, seed=2)
    assert same(model, twin)


def test_a_model_may_change_its_type_between_steps():
    model, twin = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1)
    for batch in batches(2, dtype=torch.float32):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
    twin.load_state_dict(model.state_dict())
    train(model.double(), optimizer, 2)
    train(twin.double(), SAM(twin.parameters(), SGD, rho=0.5, lr=0.1), 2)
    assert same(model, twin)


def test_a_group_can_join():
    model = net()
    optimizer = SAM(model[0].parameters(), SGD, rho=0.2, lr=0.1)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.5, "adaptive": True})
    assert [(g["lr"], g["rho"], g["adaptive"]) for g in optimizer.base_optimizer.param_groups] == [
        (0.1, 0.2, False),
        (0.5, 0.2, True),
    ]
    before = weights_of(model)
    train(model, optimizer, 1)
    assert not any(torch.equal(p, w) for p, w in zip(model.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": model[2].parameters()})


def test_parameters_with_names():
    model, twin = net(), net()
    optimizer = SAM(model.named_parameters(), SGD, rho=0.5, lr=0.1)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    train(model, optimizer, 2)
    train(twin, SAM(twin.parameters(), SGD, rho=0.5, lr=0.1), 2)
    assert same(model, twin)


# --- batch norm -------------------------------------------------------------------------------------


def normed():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.BatchNorm1d(6, momentum=None), nn.Unflatten(1, (2, 3)),
        nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), nn.Linear(6, 3),
    ).double()  # fmt: skip


def statistics(model):
    return {name: buffer.tolist() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("by_closure", [False, True])
def test_statistics_are_those_of_the_first_pass_and_gradients_those_of_the_batch(by_closure):
    model, twin, plain = normed(), normed(), normed()
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1, freeze_statistics=model)
    other = SAM(twin.parameters(), SGD, rho=0.5, lr=0.1)
    for batch in batches(3):
        plain.load_state_dict({**plain.state_dict(), **dict(model.named_parameters())})
        plain(batch[0])  # one pass at w
        if by_closure:
            optimizer.step(lambda batch=batch: loss_of(model, batch).backward())
        else:
            two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
        assert statistics(model) == statistics(plain)
    assert same(model, twin)  # in training they play no part
    assert statistics(model) != statistics(twin)
    assert twin[1].num_batches_tracked == 6


def test_without_the_option_both_passes_count():
    model = normed()
    train(model, SAM(model.parameters(), SGD, lr=0.1), 1)
    assert model[1].num_batches_tracked == 2


# --- the documentation ------------------------------------------------------------------------------

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8"), re.S)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.split("\n")[0])
def test_the_examples_of_the_docs_train(code):
    model, loader = net(dtype=torch.float32), batches(3, dtype=torch.float32)
    known = {"model": model, "backbone": model[0], "head": model[2], "loader": loader, "epochs": 3, "torch": torch}
    known |= {
        "criterion": nn.functional.cross_entropy,
        "optimizer": SAM(model.parameters(), SGD, lr=0.1),
        "saal_fast": saal_fast,
    }
    before = weights_of(model)
    exec(code.replace('"cuda"', '"cpu"').replace("torch.float16", "torch.bfloat16"), known)
    if "for x, y" in code:
        assert not torch.equal(model[0].weight, before[0])
    known["optimizer"].step(lambda: loss_of(model, loader[0]).backward())


def test_the_docs_have_examples():
    assert len(BLOCKS) == 4
