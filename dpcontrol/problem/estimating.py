r"""The state of a system from its last observations, as a problem: moving-horizon estimation.

.. math::  \min_{x_s, w}\; |x_s - \bar x_s|^2_{P^{-1}} + \sum_{j=s}^{k-1} |w_j|^2_{Q^{-1}}
           + \sum_{j=s}^{k} |y_j - h(x_j)|^2_{R^{-1}},\qquad x_{j+1} = f(x_j, u_j) + w_j

with the controls :math:`u_j` that were played. A sum of squares in the state at the window's start and, where a process
noise is admitted, in what disturbed each step. For a linear system it is the Kalman filter over all observations since
the beginning, and the stationary Kalman filter over the last one alone, with P the stationary covariance of a
prediction.

Source: C. Rao, J. Rawlings, D. Mayne, "Constrained state estimation for nonlinear discrete-time systems: stability and
moving horizon approximations", IEEE TAC 48 (2003).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.course import Opening
from dpcontrol.problem.objective import Frame, Squares, Sum, Term
from dpcontrol.problem.path import Moment
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import InitialState, ProcessNoise
from dpcontrol.problem.unknown import Slot, Unknown
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Wrapper
from dpcontrol.tree import Tree

MEAN, SEEN, CONTROLS = "estimate_mean", "estimate_seen", "estimate_controls"
Spread = float | Tensor


def estimation_problem(
    problem: Problem,
    *,
    first: int,
    mean: Tree,
    seen: Tensor,
    controls: Tensor | None,
    prior: Spread,
    sensor: Spread,
    process: Spread | None = None,
) -> Problem:
    r"""Which state at step ``first`` explains the observations since then?

    Args:
        problem: whose model steps and whose ``observation`` (the whole state where there is none) is compared.
        mean: :math:`\bar x_s`, leaves ``(scenarios, ...)``, as the simulator hands states on.
        seen: observations :math:`y_s .. y_k`, ravelled, ``(scenarios, rows, p)``.
        controls: those played in between, ``(scenarios, rows - 1, *shape)``; ``None`` for a single row.
        prior: how far the mean may be off: a standard deviation, or a covariance ``(n, n)`` of the ravelled state.
        sensor: the same of an observation, a number or ``(p, p)``.
        process: the same of what disturbs a step; ``None`` trusts the model.

    Raises:
        UsageError: for a spread that is neither a positive number nor a positive definite matrix of this size.
    """
    like = tree.leaves(mean)[0]
    n, (rows, p) = tree.ravel(mean, 1).shape[1], seen.shape[1:]
    roots = {
        name: inverse_root(name, spread, size, like)
        for name, spread, size in (("prior", prior, n), ("sensor", sensor, p), ("process", process, n))
        if spread is not None
    }
    data = {**problem.scenarios.data, MEAN: mean, SEEN: seen}
    if controls is not None:
        data[CONTROLS] = controls
    look = problem.observation or _whole
    terms: list[Term] = [Arrival(roots["prior"]), Seen(roots["sensor"], first, look)]
    slots: list[Slot] = [InitialState()]
    if process is not None and rows > 1:
        terms.append(Disturbances(roots["process"]))
        slots.append(ProcessNoise((n,)))
    return Problem(
        name=f"the state of {problem.name}",
        simulator=Driven(problem.simulator, first, process is not None),
        scenarios=Scenarios(data, shared=problem.scenarios.shared),
        horizon=rows - 1,
        unknown=Unknown(tuple(slots)),
        objective=Sum(tuple((1.0, term) for term in terms)),
        parameters=problem.parameters,
        gradient=problem.gradient,
        differentiable=problem.differentiable,
        opening=Opening(first, MEAN),
    )


def inverse_root(name: str, spread: Any, size: int, like: Tensor) -> Tensor:
    """``W`` ``(size, size)`` with ``W' W`` the inverse of a covariance, given as such or as a standard deviation."""
    wanted = (
        f"{name} must be a positive standard deviation, or a positive definite covariance ({size}, {size})"
    )
    value = torch.as_tensor(spread, dtype=like.dtype, device=like.device)
    if value.ndim == 0:
        if not 0 < float(value) < float("inf"):
            raise UsageError(f"{wanted}; found {spread!r}.")
        return torch.eye(size, dtype=like.dtype, device=like.device) / value
    if value.shape != (size, size):
        raise UsageError(f"{wanted}; found shape {tuple(value.shape)}.")
    root, failed = torch.linalg.cholesky_ex(value)
    if bool(failed):
        raise UsageError(f"{wanted}; the given one is not positive definite.")
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    return torch.linalg.solve_triangular(root, eye, upper=False)


def _whole(state: Tree) -> Tree:
    return state


@dataclass(frozen=True)
class Driven(Wrapper):
    """A system under controls that were played, and under what is sought to have disturbed it.

    Attributes:
        first: the step of the first control.
        disturbed: whether the noise of a step ``(scenarios, n)`` is added to the ravelled state.
    """

    inner: Simulator
    first: int
    disturbed: bool

    @property
    def dt(self) -> float:
        return self.inner.dt

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return super().prepare(parameters, scenario), scenario.get(CONTROLS), scenario.get("noise")

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        inner, controls, known = coefficients
        k = round(t / self.dt)
        control = tree.map(lambda leaf: leaf[:, k - self.first], controls)
        after = self.inner.step(state, control, inner, tree.map(lambda leaf: leaf[:, k], known), t)
        if not self.disturbed:
            return after
        return tree.unravel(tree.ravel(after, 1) + noise, after, 1)


@dataclass(frozen=True)
class Arrival(Squares):
    """``|x_s - mean|^2`` in the metric of the prior."""

    root: Tensor

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        if not last:
            return None
        off = tree.ravel(frame.z["initial_state"], 1) - tree.ravel(frame.scenario[MEAN], 1)
        return off @ self.root.T


@dataclass(frozen=True)
class Seen(Squares):
    """``sum_j |y_j - look(x_j)|^2`` in the metric of the sensor."""

    root: Tensor
    first: int
    look: Callable[[Tree], Tree]

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        seen: Tensor = frame.scenario[SEEN]
        return (tree.ravel(self.look(moment.state), 1) - seen[:, moment.k - self.first]) @ self.root.T


@dataclass(frozen=True)
class Disturbances(Squares):
    """``sum_j |w_j|^2`` in the metric of the process."""

    root: Tensor

    def residuals(self, moment: Moment, frame: Frame, *, last: bool) -> Tree:
        return frame.z["noise"] @ self.root.T if last else None
