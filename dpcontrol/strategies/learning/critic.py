"""A learned value: what the rest of an episode will cost, seen from its observation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.nets import MLP
from dpcontrol.problem import Problem
from dpcontrol.problem.observing import observer
from dpcontrol.strategies.learning.descent import Optimizer, optimizer
from dpcontrol.strategies.learning.underway import Stretch
from dpcontrol.tree import Tree

SLOWLY = 0.1  # how fast the scale follows the values


class Critic:
    r"""``V(observation) = scale * network(observation)``, fitted to what was seen; and a copy that follows it slowly.

    The fit is least squares, in minibatches, to estimates by TD(:math:`\lambda`) over a stretch of steps,

    .. math:: G_k = c_k + (1 - \lambda) \, V'(o_{k+1}) + \lambda \, G_{k+1}, \qquad
        G_h = V'(o_h), \text{ or } 0 \text{ where the episode has ended,}

    with costs ``c_k`` (not discounted: episodes are finite and the observation knows the time to go) and the slow copy
    ``V'``. ``scale`` follows the root mean square of the estimates; the last layer is divided by what the scale is
    multiplied with, so that values stay what they are (H. van Hasselt et al., "Learning values across many orders of
    magnitude", NeurIPS 2016).

    Args:
        problem: whose episodes.
        seed: of the network's weights.
        width, depth: of its hidden layers.
        kind: name of its optimizer.
        trace: lambda.
        lag: how much of the slow copy stays at each fit.
    """

    def __init__(
        self, problem: Problem, seed: int, width: int, depth: int, kind: str, trace: float, lag: float
    ) -> None:
        self._observer, self._trace, self._lag = observer(problem), trace, lag
        start = problem.scenarios.data
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            inputs = self._observer(start["initial_state"], problem.first * self._observer.dt, start).shape[1]
            torch.manual_seed(seed)
            self._network: nn.Module = MLP(inputs, 1, width=width, depth=depth)
        pose = problem.pose()
        own = {name: value.detach() for name, value in self._network.named_parameters()}
        self._weights: dict[str, Tensor] = tree.to(own, dtype=pose.dtype, device=pose.device)
        self._slow = dict(self._weights)
        self._last = [name for name in own if name.startswith(f"layers.{2 * depth}.")]
        self._optimizer: Optimizer = optimizer(kind, self._weights)
        self._scale: Tensor | None = None

    def value(self, states: Tree, k: int, stretch: Stretch, *, slow: bool = False) -> Tensor:
        """Values ``(scenarios,)`` of states at step ``k``."""
        seen = self._observer(states, k * self._observer.dt, stretch.data)
        return self._of(self._slow if slow else self._weights, seen)

    def estimates(self, stretch: Stretch) -> tuple[Tensor, Tensor]:
        """Observations ``(steps * scenarios, inputs)`` of a stretch, and TD(lambda) estimates of their values."""
        with torch.no_grad():
            steps, costs = len(stretch.costs), stretch.costs
            seen = [
                self._observer(state, (stretch.first + k) * self._observer.dt, stretch.data)
                for k, state in enumerate(stretch.states)
            ]
            behind = self._of(self._slow, torch.stack(seen)).clone()
            if stretch.after is None:
                behind[-1] = 0.0
            found, total = [], behind[-1]
            for k in reversed(range(steps)):
                mixed = total if k == steps - 1 else torch.lerp(behind[k + 1], total, self._trace)
                total = costs[k] + mixed
                found.append(total)
            return torch.cat(seen[:-1]), torch.cat(found[::-1])

    def fit(
        self,
        seen: Tensor,
        wanted: Tensor,
        rate: float,
        *,
        steps: int,
        batch: int,
        generator: torch.Generator,
    ) -> float:
        """Some steps of the fit; the relative error (root mean square over that of the estimates) before them."""
        self._rescale(wanted)
        with torch.no_grad():
            error = float((self._of(self._weights, seen) - wanted).square().mean() / wanted.square().mean())
        for _ in range(steps):
            some = torch.randint(len(seen), (min(batch, len(seen)),), generator=generator).to(seen.device)
            self._descend(seen[some], wanted[some], rate)
        self._slow = tree.map(lambda old, new: torch.lerp(new, old, self._lag), self._slow, self._weights)
        return error**0.5

    def _descend(self, seen: Tensor, wanted: Tensor, rate: float) -> None:
        point = {name: leaf.requires_grad_() for name, leaf in tree.detach(self._weights).items()}
        assert self._scale is not None
        misfit = ((self._of(point, seen) - wanted) / self._scale).square().mean()
        gradient = torch.autograd.grad(misfit, list(point.values()))
        flat = tree.ravel(dict(zip(point, gradient, strict=True)))
        step = tree.unravel(rate * self._optimizer.direction(flat[None])[0], self._weights)
        self._weights = {name: leaf.detach() - step[name] for name, leaf in point.items()}

    def _of(self, weights: dict[str, Tensor], seen: Tensor) -> Tensor:
        raw: Tensor = torch.func.functional_call(self._network, weights, (seen,))
        return raw[..., 0] if self._scale is None else raw[..., 0] * self._scale

    def _rescale(self, wanted: Tensor) -> None:
        size = wanted.square().mean().sqrt().clamp_min(torch.finfo(wanted.dtype).tiny)
        before = torch.ones_like(size) if self._scale is None else self._scale
        self._scale = size if self._scale is None else before * (size / before) ** SLOWLY
        for weights in (self._weights, self._slow):
            for name in self._last:
                weights[name] = weights[name] * (before / self._scale)

    def pack(self) -> Tree:
        """Everything that later values depend on."""
        return {
            "weights": dict(self._weights),
            "slow": dict(self._slow),
            "scale": self._scale,
            "optimizer": self._optimizer.pack(),
        }

    def unpack(self, kept: Any) -> None:
        """Go on from what :meth:`pack` gave."""
        self._weights, self._slow, self._scale = dict(kept["weights"]), dict(kept["slow"]), kept["scale"]
        self._optimizer.unpack(kept["optimizer"])
