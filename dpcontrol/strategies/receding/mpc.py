"""``mpc``: model predictive control, any open-loop strategy over a receding horizon."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import ControlSequence, Demand, Episode, Problem, View, advance, reset
from dpcontrol.problem.acting import Outset
from dpcontrol.problem.objective import closing_term
from dpcontrol.problem.terms import Penalty
from dpcontrol.problem.windowing import TREATMENTS, Terminal
from dpcontrol.results import Counts, Status, UsageError
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
    Memory,
    RecedingHorizon,
    Rule,
)
from dpcontrol.strategies.receding.moving_horizon import MovingHorizon
from dpcontrol.strategies.receding.path_integral import MPPI

PLANNERS: dict[str, type[Strategy]] = {
    "lbfgs": LBFGS,
    "adjoint": Adjoint,
    "newton_krylov": NewtonKrylov,
    "gauss_newton": GaussNewton,
    "cmaes": CMAES,
    "cem": CEM,
    "mppi": MPPI,
}
ITERATIONS, AT_FIRST = 20, 10


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
        if self.estimator not in (None, "auto") and not isinstance(self.estimator, Estimator):
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
        playing = Playing(self, meter, generator)
        while not playing.done:
            meter.keep(playing.pack)
            playing.step()
        return playing.outcome()


class Playing:
    """An episode under way: the controller with its memory, the plant, and the controls that were played."""

    def __init__(self, strategy: MPC, meter: Meter, generator: torch.Generator) -> None:
        self._strategy, self._meter = strategy, meter
        limits = meter.budget
        limited = any(x is not None for x in (limits.seconds, limits.simulated_steps, limits.gradients))
        self._controller = strategy.controller(meter.problem, limited=limited)
        self._episode: Episode = reset(meter.problem)
        self.controls: list[Tensor] = []
        kept = meter.resumed()
        position, dt = self._episode.position, meter.problem.simulator.dt
        steps = meter.problem.free_steps
        # a resumed run has the state of the generator after this was drawn
        drawn = generator if kept is None else torch.Generator()
        outset = Outset(position.state, self._episode.scenario, steps, dt, drawn)
        self.memory: Memory = self._controller.init(outset)
        if kept is not None:
            self._unpack(kept)

    @property
    def done(self) -> bool:
        """Whether nothing is left to be decided."""
        return self._episode.done or self.memory.ended is not None

    def step(self) -> None:
        """One step of controller and plant."""
        meter, episode = self._meter, self._episode
        before = self.memory.counts
        with torch.no_grad():
            control, memory = self._controller.move(
                self.memory, episode.state, episode.scenario, purse=self._purse, watch=self._watch
            )
            after = memory.counts
            spent = Counts(
                after.simulated_steps - before.simulated_steps,
                after.gradients - before.gradients,
                after.failures - before.failures,
            )
            meter.charge(spent)
            self.controls.append(control)
            self.memory = self._paid(memory)
            if self.memory.ended is None:
                self._episode, _ = advance(episode, control)
        meter.progressed(len(self.controls) / meter.problem.free_steps)

    def _paid(self, memory: Memory) -> Memory:
        """The memory, once the plant's step is paid; planning has ended where the budget has not even that."""
        limit, price = self._meter.budget.simulated_steps, self._meter.problem.scenarios.count
        if limit is not None and self._meter.counts.simulated_steps + price > limit:
            return replace(memory, ended=memory.ended or "budget spent")
        if memory.ended is None:
            self._meter.charge(Counts(price))
        return memory

    def outcome(self) -> Outcome:
        """What was played, with the rest of the plan where planning ended before the episode did."""
        problem, played = self._meter.problem, torch.stack(self.controls, 1)
        lacking = problem.free_steps - played.shape[1]
        if lacking:
            rest = self._controller.rest(self.memory, lacking, self._episode.scenario)
            played = torch.cat([played, rest], 1)
        value = {"control": played}
        with torch.no_grad():
            losses = problem.judge(value)
        self._meter.conclude(tree.ravel(value, 1), losses)
        return Outcome(self._status(lacking, losses), value=value)

    def _status(self, lacking: int, losses: Tensor) -> Status:
        memory, problem = self.memory, self._meter.problem
        steps = problem.free_steps
        inner = type(self._strategy.planner).__name__
        told = f"{memory.decisions} decisions by {inner} for {steps} steps"
        if memory.bad:
            told += (
                f", {memory.bad} of which saw no finite loss in some scenario and kept the plan before there"
            )
        if memory.idle:
            told += f", {memory.idle} of which could not pay for an evaluation and kept the plan before"
        if not bool(torch.isfinite(losses).all()):
            return Status("diverged", f"{told}; the plant left the finite world: see the trajectory.")
        if memory.ended is not None:
            first = steps - lacking - 1
            return Status(
                memory.ended,
                f"{told}; planning ended in step {first} ({memory.ended}), and the rest of the last plan was played "
                "without looking.",
            )
        return Status("scored", f"{told}.")

    def _purse(self, spent: Counts) -> Budget | None:
        """This decision's share of what is left once all steps of the plant are paid; ``None`` where nothing is."""
        meter, limits = self._meter, self._meter.budget
        share = self._share()
        left: dict[str, Any] = {}
        if limits.simulated_steps is not None:
            reserved = meter.problem.scenarios.count * (meter.problem.free_steps - len(self.controls))
            used = meter.counts.simulated_steps + spent.simulated_steps + reserved
            left["simulated_steps"] = int(share * (limits.simulated_steps - used))
        if limits.gradients is not None:
            left["gradients"] = int(share * (limits.gradients - meter.counts.gradients - spent.gradients))
        if limits.seconds is not None:
            left["seconds"] = share * (limits.seconds - meter.seconds)
        return None if any(value <= 0 for value in left.values()) else Budget(**left)

    def _share(self) -> float:
        """The part of the decisions that are left which this one is, by the steps of its window."""
        strategy, steps, k = self._strategy, self._meter.problem.free_steps, len(self.controls)
        lengths = [min(strategy.horizon or steps, steps - j) for j in range(k, steps, strategy.hold)]
        own = lengths[0] * (AT_FIRST if k == 0 else 1)
        return own / (own + sum(lengths[1:]))

    def _watch(self, progress: Any) -> None:
        self._meter.pulse()

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the episode depends on; the plant is played again up to here."""
        memory = self.memory
        counts = [memory.counts.simulated_steps, memory.counts.gradients, memory.counts.failures]
        return {"controls": list(self.controls), "memory": {**vars(memory), "counts": counts}}

    def _unpack(self, kept: dict[str, Any]) -> None:
        like = tree.leaves(self._episode.state)[0]
        for control in kept["controls"]:
            self.controls.append(control.to(like.device))
            with torch.no_grad():
                self._episode, _ = advance(self._episode, self.controls[-1])
        entries = tree.map(lambda x: x.to(like.device) if isinstance(x, Tensor) else x, kept["memory"])
        self.memory = Memory(**{**entries, "counts": Counts(*entries["counts"])})
