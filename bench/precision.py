"""What half precision does to a trained model's scores: ResNet-18 of width 16 on half of the digits, scored on the rest.

python bench/precision.py
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import saal_fast
from saal_fast.experiments import networks

RULES = {"L2": {}, "adaptive": {"adaptive": True}, "p=inf, rho 1e-4": {"norm": float("inf"), "rho": 1e-4}}


def trained():
    """The network, and samples it has not seen."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = networks.resnet18(10, channels=1, width=16)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(60):
        rows = torch.arange(step * 64, step * 64 + 64) % 900
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval(), x[900:]


def spearman(a, b):
    """Correlation of ranks."""
    ranks = torch.stack([t.argsort().argsort().double() for t in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def main() -> None:
    model, pool = trained()
    top = len(pool) // 10
    columns = f"{'Spearman':>10}{'top 10 %':>10}{'median error':>14}{'largest':>10}{'seconds':>9}{'fp32':>7}"
    print(f"{len(pool)} samples\n{'':18}{columns}")
    for name, options in RULES.items():
        scores, seconds = {}, {}
        for precision in (None, "bf16"):
            start = time.perf_counter()
            scores[precision] = saal_fast.score(model, pool, precision=precision, **options)
            seconds[precision] = time.perf_counter() - start
        exact, half = scores[None], scores["bf16"]
        shared = set(exact.topk(top).indices.tolist()) & set(half.topk(top).indices.tolist())
        off = (half - exact).abs() / exact
        print(
            f"{name:18}{spearman(exact, half):10.4f}{len(shared) / top:10.2f}{off.median():14.1e}{off.max():10.1e}"
            f"{seconds['bf16']:9.2f}{seconds[None]:7.2f}"
        )


if __name__ == "__main__":
    main()
