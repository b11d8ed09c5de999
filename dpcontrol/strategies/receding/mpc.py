"""``mpc``: model predictive control, any open-loop strategy over a receding horizon."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dpcontrol.meter import Meter
from dpcontrol.problem import ControlSequence, Demand, Problem, View
from dpcontrol.problem.objective import closing_term
from dpcontrol.problem.terms import Penalty
from dpcontrol.problem.windowing import TREATMENTS, Terminal
from dpcontrol.results import UsageError
from dpcontrol.run import Outcome, Strategy
from dpcontrol.strategies.checks import one_of, positive, whole
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.gauss_newton import GaussNewton
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.receding.controller import (
    Estimator,
    RecedingHorizon,
    Rule,
)
from dpcontrol.strategies.receding.moving_horizon import MovingHorizon
from dpcontrol.strategies.receding.path_integral import MPPI
from dpcontrol.strategies.receding.playing import AT_FIRST, Playing

PLANNERS: dict[str, type[Strategy]] = {
    "lbfgs": LBFGS,
    "adjoint": Adjoint,
    "newton_krylov": NewtonKrylov,
    "gauss_newton": GaussNewton,
    "cmaes": CMAES,
    "cem": CEM,
    "mppi": MPPI,
}
ITERATIONS = 20


@dataclass(frozen=True)
class MPC(Strategy):
    r"""Plan on the model from where the plant is, play the beginning, look, and plan again.

    .. math::  u_{k:k+n} = \arg\min \sum_{j=k}^{k+n-1} \ell_j(x_j, u_j) + V(x_{k+n}),\quad x_k \text{ as it is now}

    and ``hold`` of these controls are played before the next decision. All scenarios are solved as one batch. The
    answer is the sequence of controls that was played, in closed loop with the problem's *plant*: its noise and its
    mismatch are met, not foreseen (plans see zero noise, unless ``foresight``). A decision starts from the plan before,
    shifted, its last control repeated where the window moved on; so a few iterations are enough.

    Without noise and mismatch a shrinking horizon (``horizon=None``) plays the open-loop optimum, and costs more than
    solving once. What it buys is an answer to what no plan foresees.

    The end of a window that ends before the problem does is the planner's own choice: ``terminal="own"`` puts the
    problem's terminal costs, its tracked row, its closing condition there (a task that must be done at the *end* is
    then done within each window, sooner and at a higher price than need be); ``"none"`` counts the window's stages
    only; a function ``terminal(state)``, a cost-to-go, is the best there is (with the Riccati weight a linear-quadratic
    window of any length plays the law of the infinite horizon).

    Where the problem has an ``observation``, only that is seen, and the model's state is estimated (see ``estimator``).

    Plans are charged to the run's budget, as are the plant's steps. A decision may cost its share of what is left: all
    have one in proportion to their windows, the first ten times as much, and what one leaves over goes to those behind
    it. So the budget lasts to the end of the episode; where it is so small that a decision cannot pay for a single
    evaluation, the plan before is kept, its last control repeated, and the status says how often. A run that is
    interrupted plays the rest of its last plan without looking.

    ``MPC(...).controller(problem)`` is the same as a controller, for :func:`dpcontrol.problem.play` and for trials.

    Args:
        inner: an open-loop strategy, or its name: lbfgs, adjoint, newton_krylov, gauss_newton, cmaes, cem, mppi.
        horizon: steps of a window; ``None`` for all that are left.
        hold: steps played for each decision.
        iterations: of the inner strategy in each decision at most (ten times as many in the first); ``None`` leaves
            those that it sets itself; where it sets none either, it goes on until its share of the budget is spent, and
            up to 20 without a budget.
        narrow: what a sampling strategy's ``sigma`` is multiplied by in all decisions but the first, which have a plan
            to start from.
        terminal: see above.
        foresight: whether plans know the noise of the scenarios, as a forecast would.
        estimator: ``"auto"`` is a :class:`~dpcontrol.strategies.receding.moving_horizon.MovingHorizon` where the
            problem has an observation; ``None`` takes the plant's state; or an
            :class:`~dpcontrol.strategies.receding.controller.Estimator` of your own.

    Source: J. Rawlings, D. Mayne, M. Diehl, "Model Predictive Control: Theory, Computation, and Design", 2nd edition
    (2017), chapters 1, 2 (terminal costs) and 8 (warm starts).
    """

    inner: Strategy | str = "lbfgs"
    horizon: int | None = None
    hold: int = 1
    iterations: int | None = None
    narrow: float = 0.3
    terminal: Terminal = "own"
    foresight: bool = False
    estimator: Estimator | str | None = field(default="auto")

    def __post_init__(self) -> None:
        if isinstance(self.inner, str):
            one_of("MPC", tuple(PLANNERS), inner=self.inner)
        elif not isinstance(self.inner, Strategy) or isinstance(self.inner, MPC):
            raise UsageError(
                f"MPC(inner=...) must be an open-loop strategy such as LBFGS(), or one of {', '.join(PLANNERS)}; found "
                f"{self.inner!r}."
            )
        whole("MPC", hold=self.hold)
        for name in ("horizon", "iterations"):
            if getattr(self, name) is not None:
                whole("MPC", **{name: getattr(self, name)})
        if self.horizon is not None and self.hold > self.horizon:
            raise UsageError(
                f"MPC(hold={self.hold}) plays more steps than its windows have, horizon={self.horizon}: hold fewer, or "
                "plan further."
            )
        positive("MPC", narrow=self.narrow)
        if self.terminal not in TREATMENTS and not callable(self.terminal):
            raise UsageError(
                f"MPC(terminal=...) must be 'own', 'none' or a function terminal(state); found {self.terminal!r}."
            )
        if not isinstance(self.foresight, bool):
            raise UsageError(f"MPC(foresight=...) must be True or False; found {self.foresight!r}.")
        named = self.estimator is None or self.estimator == "auto"
        if not named and (not isinstance(self.estimator, Estimator) or isinstance(self.estimator, type)):
            raise UsageError(
                "MPC(estimator=...) must be 'auto', None, or an object with init(problem, outset) and update(memory, "
                f"glance), such as MovingHorizon(); found {self.estimator!r}."
            )

    @property
    def planner(self) -> Strategy:
        """The inner strategy, as it was given."""
        return PLANNERS[self.inner]() if isinstance(self.inner, str) else self.inner

    @property
    def needs(self) -> frozenset[View]:
        return self.planner.needs | {View.LOSS, View.ACTING}

    @property
    def honours(self) -> frozenset[Demand]:
        return self.planner.honours

    @property
    def stochastic(self) -> bool:
        return self.planner.stochastic

    @property
    def replans(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    def load(self) -> None:
        self.planner.load()

    def look_at(self, problem: Problem) -> None:
        """What no window can ask is refused."""
        self._check(problem)

    def controller(self, problem: Problem, *, limited: bool = False) -> RecedingHorizon:
        """The controller that this strategy plays: ``play(problem, MPC(horizon=20).controller(problem))``.

        ``limited`` says that each decision is given a budget of its own, which ends it.

        Raises:
            UsageError: if the problem does not seek one control for each scenario, or the inner strategy seeks
                something else, or a window has no room.
        """
        self._check(problem)
        estimator = self.estimator
        if isinstance(estimator, str):
            estimator = None if problem.observation is None else MovingHorizon()
        return RecedingHorizon(problem, self._rule(limited), estimator)

    def _rule(self, limited: bool) -> Rule:
        inner = self.planner
        names = {entry.name for entry in dataclasses.fields(inner)}  # type: ignore[arg-type]
        later: dict[str, Any] = {}
        if "iterations" in names:
            own = getattr(inner, "iterations")  # noqa: B009
            count = self.iterations or own or (None if limited else ITERATIONS)
            inner = replace(inner, iterations=count and AT_FIRST * count)  # type: ignore[type-var]
            later["iterations"] = count
        if "sigma" in names:
            later["sigma"] = self.narrow * getattr(inner, "sigma")  # noqa: B009
        narrowed = replace(inner, **later) if later else inner  # type: ignore[type-var]
        return Rule(inner, narrowed, self.horizon, self.hold, self.terminal, self.foresight)

    def _check(self, problem: Problem) -> None:
        slots = problem.unknown.slots
        if len(slots) != 1 or not isinstance(slots[0], ControlSequence) or slots[0].shared:
            kind = " (shared)" if slots[0].shared and isinstance(slots[0], ControlSequence) else ""
            raise UsageError(
                f"mpc plays one control sequence for each scenario, but {problem.name} seeks "
                f"{', '.join(problem.unknown.names)}{kind}: ask it with problem.with_unknown(ControlSequence(...))."
            )
        if self.planner.pose(problem).unknown is not problem.unknown:
            raise UsageError(
                f"{type(self.planner).__name__} is no open-loop strategy, it seeks something else than a window's "
                f"control; MPC(inner=...) can be {', '.join(PLANNERS)}."
            )
        if any(isinstance(term, Penalty) for _, term in problem.objective.terms):
            raise UsageError(
                f"the objective of {problem.name} has a penalty(...) on the whole control, which no window can count: "
                "pose it as a cost of each step, cost(stage=...) or effort()."
            )
        room = self.horizon or problem.horizon
        taken = closing_term(problem.objective) is not None and self.terminal == "own"
        if self.horizon is not None and self.hold > room - taken:
            raise UsageError(
                f"a window of {room} steps of {problem.name} ends with the closing condition, which takes the last; "
                f"hold={self.hold} needs {self.hold + 1} steps at least: plan further."
            )

    def run(self, meter: Meter, generator: torch.Generator) -> Outcome:
        limits = meter.budget
        limited = any(x is not None for x in (limits.seconds, limits.simulated_steps, limits.gradients))
        playing = Playing(self.controller(meter.problem, limited=limited), meter, generator)
        while not playing.done:
            meter.keep(playing.pack)
            playing.step()
        return playing.outcome()
