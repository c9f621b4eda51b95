"""Graph networks as people write them by hand: messages along edges, each graph of a pool a sample of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .family import family

NODES, EDGES = 5, 8


def graphs() -> dict[str, Tensor]:
    """Four graphs of five nodes; each has edges of its own, one of them twice."""
    edges = torch.randint(0, NODES, (4, 2, EDGES))
    edges[:, :, 1] = edges[:, :, 0]
    return {"x": torch.randn(4, NODES, 4), "edge_index": edges}


class Network(nn.Module):
    """Two layers of `kind(inputs, outputs)`, called on nodes [n, D] and edges [2, E], and a head over the nodes' mean."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.second, self.head = kind(4, 6), kind(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.first(x[0], edge_index[0]).tanh()
        return self.head(self.second(h, edge_index[0]).tanh().mean(0, keepdim=True))


class Convolution(nn.Module):
    """GCN (arXiv:1609.02907): the neighbours' sum, divided by the roots of both degrees; edges to oneself are added."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        loops = torch.arange(len(x), device=x.device)
        source, target = torch.cat([edges, loops.expand(2, -1)], 1)
        degree = torch.zeros(len(x), dtype=x.dtype).index_add_(0, target, torch.ones(len(target), dtype=x.dtype))
        h, scale = self.linear(x), degree.rsqrt()
        return torch.zeros_like(h).index_add_(0, target, h[source] * (scale[source] * scale[target])[:, None])


class Isomorphism(nn.Module):
    """GIN (arXiv:1810.00826): a small network of a node's own features and the sum of its neighbours'."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(()))
        self.net = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        gathered = torch.zeros_like(x)
        gathered.scatter_add_(0, edges[1][:, None].expand(-1, x.shape[1]), x[edges[0]])
        return self.net((1 + self.own) * x + gathered)


class Attention(nn.Module):
    """GAT (arXiv:1710.10903): neighbours weighted by a softmax over the edges that lead to a node."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.score = nn.Parameter(torch.randn(2, outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h, (source, target) = self.linear(x), edges
        scores = nn.functional.leaky_relu(h[source] @ self.score[0] + h[target] @ self.score[1], 0.2)
        highest = torch.full((len(x),), -torch.inf, dtype=x.dtype).scatter_reduce_(0, target, scores.detach(), "amax")
        weights = (scores - highest[target]).exp()
        total = torch.zeros(len(x), dtype=x.dtype)
        total.index_put_((target,), weights, accumulate=True)
        out = h.clone()
        out.index_add_(0, target, h[source] * (weights / total[target])[:, None])
        return out


@family
def graph_convolution() -> tuple[nn.Module, Any]:
    return Network(Convolution), graphs()


@family
def graph_isomorphism() -> tuple[nn.Module, Any]:
    return Network(Isomorphism), graphs()


@family
def graph_attention() -> tuple[nn.Module, Any]:
    return Network(Attention), graphs()


@family
def graphs_without_their_padding() -> tuple[nn.Module, Any]:
    """Edges that only fill up are taken out by a mask: graphs of as many edges are scored together."""

    class Padded(Network):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            real = edge_index[0, 0] >= 0
            return super().forward(x, edge_index[:, :, real])

    pool = graphs()
    pool["edge_index"][1:3, :, 6:] = -1
    return Padded(Convolution), pool


@family
def a_batch_of_graphs() -> tuple[nn.Module, Any]:
    """As libraries put graphs together: nodes of all in one list, with the graph that each belongs to."""

    class Batched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = Convolution(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            graphs, nodes = x.shape[:2]
            batch = torch.arange(graphs).repeat_interleave(nodes)
            edges = (edge_index + nodes * torch.arange(graphs)[:, None, None]).transpose(0, 1).flatten(1)
            h = self.layer(x.flatten(0, 1), edges).tanh()
            count = int(batch.max()) + 1
            total = torch.zeros(count, h.shape[1], dtype=h.dtype).index_add_(0, batch, h)
            return self.head(total / torch.bincount(batch, minlength=count)[:, None])

    return Batched(), graphs()
