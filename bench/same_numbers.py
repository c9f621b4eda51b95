"""Writes down what saal_fast computes for a spread of models, rules and seeds, or holds a checkout against it.

    python bench/same_numbers.py write before.pt       in the checkout before a change
    python bench/same_numbers.py compare before.pt     in the checkout after it

It uses the public names only, so that it runs in both. fp64 must agree to 1e-12 and fp32 to 1e-5, relative to the largest
number of a row; picks, seeded rows and an experiment's records must be the same. The script lists what is not equal bit for
bit: a change that merges no arithmetic should list nothing. Machine, torch and thread count must be the same.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import saal_fast

RULES = {"l2": {}, "adaptive": {"adaptive": True}, "inf": {"norm": math.inf}, "p3": {"norm": 3.0}}
DIGITS = {torch.float32: 1e-5, torch.float64: 1e-12}


class Text(nn.Module):
    """Embeddings tied to the head, a recurrent layer, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.block(self.lstm(self.embedding(tokens))[0])
        return F.linear(h.mean(1), self.embedding.weight)


class Branches(nn.Module):
    """Code that asks for values, a weight used twice, writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu_(self.layer(x))
        if h.sum() > 5:
            h = self.layer(h).relu_()
        return self.head(h)


def convolutions() -> nn.Module:
    """Strides, groups, dilation, 1×1, batch and group norm."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, 32),
        nn.GELU(),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32),
        nn.Conv2d(32, 32, 3, padding="same", groups=4),
        nn.ReLU(),
        nn.Conv2d(32, 48, 1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 7),
    )


def models() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, model and pool."""
    yield "mlp", nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 6)), torch.randn(230, 20)
    yield "convolutions", convolutions(), torch.randn(11, 3, 18, 18)
    signals = [nn.Conv1d(2, 8, 5, stride=2), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.Flatten(), nn.Linear(40, 4)]
    yield "signals", nn.Sequential(*signals), torch.randn(9, 2, 17)
    volumes = [nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, 2, stride=2), nn.Flatten(), nn.Linear(108, 3)]
    yield "volumes", nn.Sequential(*volumes), torch.randn(5, 1, 6, 6, 6)
    yield "resnet18", torchvision.models.resnet18(num_classes=10), torch.randn(6, 3, 64, 64)
    vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=10
    )
    nn.init.normal_(vit.heads.head.weight, std=0.02)
    yield "vit", vit, torch.randn(6, 3, 32, 32)
    yield "text", Text(), torch.randint(0, 40, (8, 9))
    yield "branches", Branches(), torch.randn(12, 12)


def scores() -> Iterator[tuple[str, Tensor]]:
    """Every field of `Scores` by every engine and rule, in fp32 and fp64; picks with and without diversity."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        for name, network, data in models():
            model, pool = network.to(dtype).eval(), data.to(dtype) if data.is_floating_point() else data
            for rule, engine in itertools.product(RULES, ("ghost", "vmap", "reference")):
                options = {**RULES[rule], "rho": 0.01 if rule == "inf" else 0.05}
                if engine != "ghost" and (rule == "p3" or name == "mlp"):
                    continue
                sizes = (2, "auto") if name == "mlp" else (4,)  # batches of two: more than a hundred of a shape
                for size in sizes:
                    made = saal_fast.score(model, pool, engine=engine, batch_size=size, details=True, **options)
                    for field in ("perturbed_loss", "loss", "grad_norm", "label", "perturbed_label", "finite"):
                        yield f"{name} {dtype} {rule} {engine} {size} {field}", getattr(made, field)
            for diversity in (None, "kmeans++", *(() if name in ("text", "branches") else ("badge",))):
                picks = saal_fast.select(model, pool, 4, diversity=diversity, seed=3)
                yield f"{name} {dtype} {diversity} picks", picks
            head = list(dict(model.named_parameters()))[-1].rpartition(".")[0]
            yield (
                f"{name} {dtype} head",
                saal_fast.score(model, pool, params=lambda n, h=head: n.startswith(h), batch_size=4),
            )


def seeds() -> Iterator[tuple[str, Tensor]]:
    """Rows that k-means++ draws."""
    generator = torch.Generator().manual_seed(1)
    for dtype, n, d in itertools.product((torch.float32, torch.float64, torch.float16), (60, 3000), (1, 24)):
        x = torch.randn(n, d, generator=generator).to(dtype)
        weights = torch.rand(n, generator=generator)
        for algorithm in ("plain", "rejection", *(("sorted",) if d == 1 else ())):
            for first in ("random", "argmax"):
                drawn = saal_fast.kmeans_plusplus(x, 30, first=first, seed=7, algorithm=algorithm, weights=weights)
                yield f"kmeans {dtype} {n} {d} {algorithm} {first}", drawn
            drawn = saal_fast.kmeans_plusplus(x, 20, seed=8, algorithm=algorithm, initial=[3, 4])
            yield f"kmeans {dtype} {n} {d} {algorithm} initial", drawn
    pair = torch.randn(500, 6, generator=generator), torch.randn(500, 17, generator=generator)
    for algorithm in ("plain", "rejection"):
        yield f"kmeans pair {algorithm}", saal_fast.kmeans_plusplus(pair, 25, seed=9, algorithm=algorithm)


def experiments() -> Iterator[tuple[str, Tensor]]:
    """Records of small runs, one for each strategy."""
    torch.manual_seed(4)
    labels = torch.arange(90) % 3
    images = torch.randn(90, 1, 6, 6)
    images[torch.arange(90), 0, 2 * labels] += 2

    def network() -> nn.Module:
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3))

    for name in saal_fast.strategies.NAMES:
        learner = saal_fast.run(
            network,
            images,
            oracle=lambda rows: labels[rows],
            rounds=2,
            strategy=name,
            labelled=(torch.arange(12), labels[:12]),
            k=5,
            candidates=60,
            seed=5,
            progress=False,
        )
        for r in learner.rounds:
            for field in ("asked", "scores", "labels"):
                if getattr(r, field) is not None:
                    yield f"run {name} round {r.number} {field}", torch.as_tensor(getattr(r, field))
            for what, value in {**r.training, **r.metrics}.items():
                yield f"run {name} round {r.number} {what}", torch.tensor(value, dtype=torch.float64)
        state = torch.cat([t.flatten().double() for t in learner.model.state_dict().values()])
        yield f"run {name} model", state.float()


PARTS: tuple[Callable[[], Iterator[tuple[str, Tensor]]], ...] = (scores, seeds, experiments)


def differences(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names whose numbers differ beyond their type's digits, and those that differ in bits only."""
    wrong = sorted(f"{name}: only in one of both" for name in before.keys() ^ after.keys())
    bits = []
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old.dtype == new.dtype and torch.equal(old.nan_to_num(), new.nan_to_num()):
            continue
        if old.dtype != new.dtype or old.shape != new.shape or not old.is_floating_point():
            wrong.append(f"{name}: {old.tolist()} became {new.tolist()}")
            continue
        apart = float((new - old).abs().max() / old.abs().max().clamp(min=1e-30))
        (bits if apart <= DIGITS[old.dtype] else wrong).append(f"{name}: {apart:.1e} apart")
    return wrong, bits


def main(verb: str, path: str) -> int:
    """Writes or compares; 1 where numbers differ."""
    found = {name: t.detach().cpu().clone() for part in PARTS for name, t in part()}
    print(f"{len(found)} results of saal_fast in {saal_fast.__path__[0]}, torch {torch.__version__}")
    if verb == "write":
        torch.save(found, path)
        return 0
    wrong, bits = differences(torch.load(path), found)
    print(*(f"other bits: {line}" for line in sorted(bits)), *(f"WRONG {line}" for line in sorted(wrong)), sep="\n")
    print(f"{len(found) - len(bits) - len(wrong)} equal bit for bit, {len(bits)} by rounding, {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "compare"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
