"""States from observations: a moving horizon."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem import ControlSequence, Problem, Unknown, window
from dpcontrol.problem.acting import Outset
from dpcontrol.problem.control import start_state
from dpcontrol.problem.estimating import Spread, estimation_problem, inverse_root
from dpcontrol.results import Counts, UsageError
from dpcontrol.run import Strategy, search, tree_of
from dpcontrol.strategies.checks import whole
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.receding.controller import Estimate, Glance
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class MovingHorizon:
    r"""The state from the last ``length`` observations, by least squares through the simulator.

    The problem is :func:`dpcontrol.problem.estimating.estimation_problem`: the state at the window's start near what
    was predicted for it, on a path that explains the observations. The prediction of a step is the estimate of the step
    before, one step of the model further; the very first is the state that the simulator starts from.

    As long as the window reaches back to the beginning it is, for a linear system, the Kalman filter with these
    covariances. From then on the prior's covariance stays what it is, as if each window's first prediction were as good
    as the very first: with the stationary covariance of predictions and ``length=1`` that is the stationary Kalman
    filter; other choices weigh old observations otherwise than it does. Where the budget of a step cannot pay for the
    path of an estimate, the prediction stands for it.

    Args:
        length: observations in a window.
        prior: how far a prediction may be off: a standard deviation, or a covariance ``(n, n)`` of the ravelled state.
        sensor: the same for an observation, a number or ``(p, p)``. Of prior and sensor only the ratio matters.
        process: the same for what disturbs each step; ``None`` trusts the model within a window.
        solver: of the least squares.
        start: the state predicted for the first step, leaves ``(scenarios, ...)``; the initial state of the scenarios
            by default.
    """

    length: int = 8
    prior: Spread = 1.0
    sensor: Spread = 0.1
    process: Spread | None = None
    solver: Strategy = field(default_factory=lambda: GaussNewton(iterations=10))
    start: Any = None

    def __post_init__(self) -> None:
        whole("MovingHorizon", length=self.length)
        if not isinstance(self.solver, Strategy):
            raise UsageError(
                f"MovingHorizon(solver=...) must be a strategy such as GaussNewton(); found {self.solver!r}."
            )
        for name in ("prior", "sensor", "process"):
            spread = getattr(self, name)
            if spread is not None:
                value = torch.as_tensor(spread)
                inverse_root(
                    f"MovingHorizon: {name}", spread, value.shape[0] if value.ndim else 1, value.double()
                )

    def init(self, problem: Problem, outset: Outset) -> dict[str, Any]:
        """Nothing was seen yet.

        Raises:
            UsageError: where the state to begin with has not the layout of the model's.
        """
        return {"first": problem.first, "means": None, "seen": None, "controls": None, "latest": None}

    def update(self, memory: Any, glance: Glance) -> Estimate:
        """The state at the end of the window, which now ends here."""
        problem, seen = glance.problem, tree.ravel(glance.seen, 1)
        template = start_state(problem.simulator, problem.parameters, problem.scenarios)
        if memory["means"] is None:
            mean = tree.ravel(template if self.start is None else self._given(template), 1)
            first, means, looks, acts, spent = glance.k, mean[:, None], seen[:, None], None, Counts()
        else:
            assert glance.control is not None
            mean = self._predicted(problem, tree.unravel(memory["latest"], template, 1), glance)
            first = memory["first"]
            means = torch.cat([memory["means"], mean[:, None]], 1)
            looks = torch.cat([memory["seen"], seen[:, None]], 1)
            before = memory["controls"]
            acts = (
                glance.control[:, None] if before is None else torch.cat([before, glance.control[:, None]], 1)
            )
            spent = Counts(len(seen))
        if looks.shape[1] > self.length:
            first, means, looks = first + 1, means[:, 1:], looks[:, 1:]
            acts = None if self.length == 1 else acts[:, 1:]  # type: ignore[index]
        path = Counts(looks.shape[1] * len(seen))
        left = glance.budget.simulated_steps
        if left is not None and left <= path.simulated_steps:
            found, counts = tree.unravel(means[:, -1], template, 1), Counts()
        else:
            limits = replace(
                glance.budget, simulated_steps=None if left is None else left - path.simulated_steps
            )
            mean = tree.unravel(means[:, 0], template, 1)
            found, counts = self._fitted(glance._replace(budget=limits), first, mean, looks, acts)
            counts = counts + path
        kept = {"first": first, "means": means, "seen": looks, "controls": acts}
        return Estimate(found, {**kept, "latest": tree.ravel(found, 1)}, spent + counts)

    def _fitted(
        self, glance: Glance, first: int, mean: Tree, seen: Tensor, controls: Tensor | None
    ) -> tuple[Tree, Counts]:
        posed = estimation_problem(
            glance.problem,
            first=first,
            mean=mean,
            seen=seen,
            controls=controls,
            prior=self.prior,
            sensor=self.sensor,
            process=self.process,
        )
        meter, found = search(posed, self.solver, glance.budget)
        with torch.no_grad():
            states = posed.simulate(tree_of(found, meter)).states
        return tree.map(lambda leaf: leaf[-1].detach(), states), meter.counts

    def _predicted(self, problem: Problem, state: Tree, glance: Glance) -> Tensor:
        """The ravelled state one step of the model behind ``state``, under the control that was played."""
        assert glance.control is not None
        (slot,) = problem.unknown.slots
        assert isinstance(slot, ControlSequence)
        one = window(problem, state, glance.k - 1, 1)
        one = replace(one, unknown=Unknown((replace(slot, start=0.0, scale=None),)))
        with torch.no_grad():
            states = one.simulate({"control": glance.control[:, None]}).states
        return tree.ravel(tree.map(lambda leaf: leaf[-1], states), 1)

    def _given(self, template: Tree) -> Tree:
        start = tree.map(lambda leaf: torch.as_tensor(leaf), self.start)
        if not tree.same_shapes(start, template):
            raise UsageError(
                f"MovingHorizon(start=...) must be like a state, {tree.describe(template)}; found "
                f"{tree.describe(start)}."
            )
        return tree.to(start, dtype=tree.leaves(template)[0].dtype)
