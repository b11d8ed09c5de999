"""The adjoint of a problem, step by step: how the loss depends on every state on the way; and its growth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Auto
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.rolling import open_loop, roll
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Adjoint:
    """What :func:`adjoint` found.

    Attributes:
        loss: ``(scenarios,)``.
        states: ``dJ/dx_k`` of each scenario's own loss, leaves ``(free_steps + 1, scenarios, ...)``.
        unknown: ``dJ/dz``, like ``z``.
    """

    loss: Tensor
    states: Tree
    unknown: dict[str, Tree]


def adjoint(problem: Problem, z: Mapping[str, Tree], scenarios: Tensor | None = None) -> Adjoint:
    """One backward sweep that keeps what it passes: ``dJ/dx_k`` at every step, and ``dJ/dz``.

    Raises:
        UsageError: if the problem offers no gradient.
    """
    if View.GRADIENT not in problem.offers:
        raise UsageError(f"{problem.name} offers no gradient, so it has no adjoint.")
    exact = problem if problem.gradient.exact else replace(problem, gradient=Auto())
    sought = tree.map(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), dict(z))
    with torch.no_grad():
        _, loop, _ = open_loop(exact, sought, scenarios)

    def at_rest(leaf: Tensor) -> Tensor | None:
        zeros = torch.zeros((loop.steps + 1, *leaf.shape), dtype=leaf.dtype, device=leaf.device)
        return zeros.requires_grad_() if leaf.is_floating_point() else None

    nudges = tree.map(at_rest, loop.carry[0])
    with torch.enable_grad():
        loss = roll(exact, sought, scenarios, nudges=nudges).loss
        wanted = [leaf for leaf in tree.leaves((nudges, sought)) if leaf.requires_grad]
        found = torch.autograd.grad(loss.sum(), wanted, materialize_grads=True)
    gradients = {id(leaf): gradient for leaf, gradient in zip(wanted, found, strict=True)}

    def gradient(leaf: Tensor) -> Tensor:
        return gradients.get(id(leaf), torch.zeros_like(leaf))

    return Adjoint(loss.detach(), tree.map(gradient, nudges), tree.map(gradient, sought))


@dataclass(frozen=True)
class GradientGrowth:
    """Norms of the adjoint at every step, and how they grow from the last step towards the first.

    Attributes:
        mean, largest: over scenarios, of ``|dJ/dx_k|``, ``k = 0 .. free_steps``.
        rate: growth of the logarithm of the norm per step, by regression over all steps (the mean of the logarithms
            over scenarios, whose limit is the largest Lyapunov exponent times the time step).
        first: logarithm of the norm at the first state by that regression.
        dt: time step; ``rate / dt`` is the rate per unit of time.
        dtype: that of the problem; the norms are computed in float64.
    """

    problem: str
    mean: Tensor
    largest: Tensor
    rate: float
    first: float
    dt: float
    dtype: torch.dtype

    @property
    def steps(self) -> int:
        """Over how many steps the adjoint was followed."""
        return len(self.mean) - 1

    @property
    def warning(self) -> str | None:
        """One sentence where growth times horizon is too much for the dtype, else ``None``."""
        limits, name = torch.finfo(self.dtype), str(self.dtype).removeprefix("torch.")
        remedy = "shorten the horizon, shoot in several windows, or cut the gradient with TruncatedBPTT"
        if not bool(torch.isfinite(self.mean).all()):
            return f"adjoints are not finite: {remedy}."
        growth = self.rate * self.steps
        if math.isnan(growth):
            return None
        if not math.log(limits.tiny) <= self.first <= math.log(limits.max):
            size = f"1e{self.first / math.log(10):+.0f}"
            return (
                f"the gradient in the first state, about {size}, cannot be represented in {name}: {remedy}."
            )
        if growth > -math.log(limits.eps):
            return (
                f"a change of the first state is amplified by {_power(growth)} over {self.steps} steps, more than the "
                f"digits of {name} ({limits.eps:.0e}): the gradient is one of rounding errors; {remedy}."
            )
        return None

    def __str__(self) -> str:
        if math.isnan(self.rate):
            line = f"adjoints: no growth to be told from {self.steps + 1} steps"
        else:
            way = "grow" if self.rate >= 0 else "shrink"
            line = (
                f"adjoints: norm {float(self.mean[0]):.3g} at the first state, {float(self.mean[-1]):.3g} at the last; "
                f"backwards they {way} by {100 * abs(math.expm1(self.rate)):.3g} % a step "
                f"({_power(self.rate * self.steps)} over {self.steps} steps)"
            )
        return line if self.warning is None else f"{line}\nWARNING: {self.warning}"


def gradient_growth(problem: Problem, z: Mapping[str, Tree] | None = None) -> GradientGrowth:
    """Norms of the adjoint ``dJ/dx_k`` at every step, and their growth rate from the last step to the first.

    A Lyapunov exponent ``lambda`` lets them grow by ``exp(lambda dt)`` a step; over a long horizon such a gradient is
    too large to be represented, or consists of rounding errors (``warning``). Source: L. Metz et al., "Gradients are
    not all you need", arXiv:2111.05803.

    Args:
        problem: whose gradient; it is followed in float64.
        z: where; by default at the start guess.

    Raises:
        UsageError: if the problem offers no gradient.
    """
    exact = in_double(problem)
    point = exact.start() if z is None else tree.to(dict(z), dtype=torch.float64)
    states = adjoint(exact, point).states
    norms = torch.stack([leaf.flatten(2).square().sum(-1) for leaf in tree.leaves(states)]).sum(0).sqrt()
    dtype = next(leaf.dtype for leaf in tree.leaves(problem.pose().state) if leaf.is_floating_point())
    rate, first = _growth(norms)
    return GradientGrowth(
        problem.name, norms.mean(1), norms.amax(1), rate, first, problem.simulator.dt, dtype
    )


def in_double(problem: Problem) -> Problem:
    """The same problem in float64.

    Raises:
        UsageError: if it cannot run so, because its functions capture tensors of another precision.
    """
    data = {name: tree.to(value, dtype=torch.float64) for name, value in problem.scenarios.data.items()}
    exact = replace(problem, scenarios=replace(problem.scenarios, data=data))
    kinds = {leaf.dtype for leaf in tree.leaves(problem.scenarios.data) if leaf.is_floating_point()}
    if kinds != {torch.float64}:
        try:
            with torch.no_grad():
                exact.loss(exact.start())
        except RuntimeError as error:
            if "dtype" not in str(error):
                raise
            raise UsageError(
                f"this is looked at in float64, in which {problem.name} does not run ({error}): a tensor of another "
                "precision that a step or a cost captures has to come in through parameters or scenarios."
            ) from error
    return exact


def _growth(norms: Tensor) -> tuple[float, float]:
    """Regression of the mean log of norms ``(steps + 1, scenarios)`` against the steps still to go: slope, first value.

    NaN where fewer than three steps have norms above zero.
    """
    usable = torch.nonzero((torch.isfinite(norms) & (norms > 0)).all(1)).flatten()
    if len(usable) < 3:
        return math.nan, math.nan
    to_go = (len(norms) - 1 - usable).to(norms)
    logs = norms[usable].log().mean(1)
    centred = to_go - to_go.mean()
    rate = float((centred * logs).sum() / centred.square().sum())
    return rate, float(logs.mean()) + rate * (len(norms) - 1 - float(to_go.mean()))


def _power(logarithm: float) -> str:
    """``e^logarithm`` as a factor, also where it would overflow."""
    if abs(logarithm) < 7:
        return f"a factor {math.exp(logarithm):.3g}"
    return f"a factor 1e{logarithm / math.log(10):+.0f}"
