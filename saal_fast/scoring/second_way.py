"""A second way to a sample's numbers, which shares no code with the engines: plain autograd, and weights that really move.

The model is copied. The gradient is `torch.autograd.grad` of one sample's loss in a batch that holds it twice (torch's
backward pass of batch norm is wrong for some batches of one). Eq. 3 is written out in float64; a rule that is not written
out here gives ε by its own methods. The copy's parameters are moved by ε in place; the perturbed loss is a plain call. No
function mode, no `functional_call`, no `vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..engines import Problem
from ..engines.draws import Draws, own_generators
from ..perturbation import L2, Adaptive, Lp, Perturbation
from ..perturbation import epsilon as by_own_methods
from ..pools import Batch
from ..tasks import Task
from .copies import Cache, as_type, cast, copy_of, find_caches, remade_by_modes

Named = dict[str, Tensor]


class Numbers(NamedTuple):
    """What is compared of one sample."""

    loss: float
    grad_norm: float
    perturbed_loss: float


@dataclass
class SecondWay:
    """The second way for one model. Hooks of its modules run on the copies too: they are part of what it computes.

    Attributes:
        model: a copy as the user brought it, which is never run.
        names: the parameters to perturb.
        own: the user's own parameters of these names: a copy's loss depends on them where code reaches them past the model.
        rule: what ε* is.
        task: the loss.
        rows: how often a batch holds the sample.
        caches: places to empty before a pass; None while they have not been looked for.
        by_modes: whether going through training mode remakes what modules keep.
        reached: the parameters that a gradient has come to so far.
        past: those of them whose gradient came past the model's attributes.
    """

    model: nn.Module
    names: tuple[str, ...]
    own: Named
    rule: Perturbation
    task: Task
    rows: int = 2
    caches: list[Cache] | None = None
    by_modes: bool = False
    reached: set[str] = field(default_factory=set)
    past: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, problem: Problem) -> SecondWay:
        """The second way for a problem whose model has not been run; the model is copied now."""
        model = copy_of(problem.model).to(problem.device)
        own: Named = {name: p for name, p in problem.model.named_parameters() if name in problem.params}
        return cls(model, tuple(problem.params), own, problem.rule, problem.task)

    def numbers(self, sample: Batch) -> Numbers:
        """Loss, gradient norm and perturbed loss of a batch of one, which has its label."""
        batch = sample.map(lambda t: torch.cat([t] * self.rows), size=self.rows)
        if self.caches is None:
            self.caches, self.by_modes = find_caches(self.model, lambda m: self._loss(m, batch)), remade_by_modes(self.model)
        model = self._fresh()
        loss = self._loss(model, batch)
        epsilon, norm = step(self.rule, self._gradient(loss, model), self._params(model))
        moved = loss if norm == 0 or self.rule.rho == 0 else self._loss(self._fresh(epsilon), batch)
        return Numbers(float(loss), norm, float(moved))

    def loss(self, sample: Batch, rows: int) -> float:
        """The loss in a batch that holds the sample `rows` times."""
        return float(self._loss(self._fresh(), sample.map(lambda t: torch.cat([t] * rows), size=rows)))

    def varies(self, sample: Batch, same: Callable[[float, float], bool]) -> bool:
        """Whether two passes of one copy give losses that are not the same."""
        model = self._fresh()
        draws = Draws(own_generators(model), next(iter(self._params(model).values())).device)
        differ = not same(float(self._loss(model, sample)), float(self._loss(model, sample)))
        return differ or bool(draws.moved())  # few values to draw from may come twice

    def blind(self, sample: Batch) -> bool:
        """Whether what train() or eval() remakes follows the weights, and no gradient says so (under no_grad, say)."""
        if not self.by_modes:
            return False
        way = self.elsewhere(torch.float64, 0.0)
        batch = in_type(sample, torch.float64, 0.0).map(lambda t: torch.cat([t] * way.rows), size=way.rows)
        model = way._fresh()
        grads = way._gradient(way._loss(model, batch), model)
        generator = torch.Generator("cpu").manual_seed(2)
        noise = {n: torch.randn(g.shape, generator=generator, dtype=g.dtype, device="cpu") for n, g in grads.items()}
        by = {n: t.to(grads[n]) * 1e-5 for n, t in noise.items()}
        rise = way._loss(way._fresh(by), batch) - way._loss(way._fresh({n: -d for n, d in by.items()}), batch)
        expected_rise = 2 * sum(float((grads[n] * d).sum()) for n, d in by.items())
        return not math.isclose(float(rise), expected_rise, rel_tol=1e-3, abs_tol=1e-10)

    def elsewhere(self, dtype: torch.dtype, noise: float) -> SecondWay:
        """The same of a copy in another type, with noise of this relative size on its weights."""
        model = cast(copy_of(self.model), dtype)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters() if noise else ():
                if p.is_floating_point():
                    p.mul_(1 + noise * torch.randn(p.shape, generator=generator).to(p))
        return replace(self, model=model)

    def copy(self) -> nn.Module:
        """A copy for others to run."""
        return self._fresh()

    def _fresh(self, epsilon: Named | None = None) -> nn.Module:
        """A copy to run, moved by ε, with nothing kept that a pass makes anew."""
        model = copy_of(self.model)
        if epsilon is not None:
            with torch.no_grad():
                for name, p in self._params(model).items():
                    p.copy_(p.double() + epsilon[name])
        for cache in self.caches or ():
            cache.clear(model)
        if self.by_modes:
            with torch.enable_grad():
                model.train().eval()
        return model

    def _params(self, model: nn.Module) -> Named:
        return {name: p for name, p in model.named_parameters() if name in self.own}

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of the first sample of a batch; 0-d, with its graph."""
        batch = batch.map(Tensor.clone)
        device = next(iter(self._params(model).values())).device
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            return self.task.loss(model(*batch.args, **batch.kwargs), batch.labels)[0]

    def _gradient(self, loss: Tensor, model: nn.Module) -> Named:
        """∇l by the copy's parameters, with what comes by the user's own."""
        params = self._params(model)
        leaves = {("copy", n): p for n, p in params.items() if p.requires_grad}
        leaves |= {("own", n): p for n, p in self.own.items() if p.requires_grad}
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if loss.requires_grad else ()
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in params.items()}
        for ((where, name), _), g in zip(leaves.items(), grads, strict=bool(grads)):
            if g is not None:
                total[name] += (g.to_dense() if g.is_sparse else g).to(total[name])
                self.reached.add(name)
                if where == "own":
                    self.past.add(name)
        return total


def step(rule: Perturbation, grads: Named, weights: Named) -> tuple[Named, float]:
    """Computes ε of each parameter, and the gradient's dual norm, in float64: Eq. 3 written out.

    Where a rule is not written out here, its own methods give both: an engine that departs from them is found, a mistake in
    them is not.
    """
    if isinstance(rule, L2):
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
        return {n: rule.rho * g / norm if norm else g for n, g in grads.items()}, norm
    if isinstance(rule, Adaptive):
        w = {name: p.detach().double() for name, p in weights.items()}
        norm = math.sqrt(sum(float((w[n] * g).square().sum()) for n, g in grads.items()))
        return {n: rule.rho * w[n] ** 2 * g / norm if norm else g for n, g in grads.items()}, norm
    if not isinstance(rule, Lp):
        eps, dual_norm = by_own_methods(rule, grads, {name: p.detach().double() for name, p in weights.items()})
        return eps, float(dual_norm)
    q = 1.0 if math.isinf(rule.p) else rule.p / (rule.p - 1)
    peak = max(float(g.abs().max()) for g in grads.values() if g.numel())
    if peak == 0:
        return grads, 0.0
    norm = peak * sum(float((g.abs() / peak).pow(q).sum()) for g in grads.values()) ** (1 / q)
    return {n: rule.rho * g.sign() * (g.abs() / norm).pow(q - 1) for n, g in grads.items()}, norm


def in_type(sample: Batch, dtype: torch.dtype, noise: float) -> Batch:
    """A sample in another type, with noise of this relative size on its floating-point inputs; labels stay."""
    generator = torch.Generator().manual_seed(1)

    def moved(t: Tensor) -> Tensor:
        t = as_type(t, dtype)
        if noise and t.is_floating_point():
            t = t + noise * (t.abs() + t.abs().mean()) * torch.randn(t.shape, generator=generator).to(t)
        return t

    return sample.with_labels(None).map(moved).with_labels(sample.labels)
