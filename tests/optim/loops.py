"""Small nets, data and loops, to train by SAM."""

import torch
from torch import nn

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def quadratic(seed, n=5):
    """½ wᵀA w - bᵀw with a positive definite A, and where to begin."""
    rng = torch.Generator().manual_seed(seed)
    root, b, w = (torch.randn(*size, generator=rng, dtype=torch.float64) for size in ((n, n), (n,), (n,)))
    return root @ root.T + 0.1 * torch.eye(n, dtype=torch.float64), b, w


def net(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batches(count, seed=1, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 4, generator=rng).to(dtype), torch.randint(3, (6,), generator=rng)) for _ in range(count)]


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def two_passes(optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    optimizer.first_step(zero_grad=True)
    loss().backward()
    optimizer.second_step()


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def train(model, optimizer, count, seed=1):
    for batch in batches(count, seed):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
