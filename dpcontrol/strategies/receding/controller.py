"""A receding horizon as a controller with a memory: one solve for each decision, the plan played in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Budget, Progress
from dpcontrol.problem import ControlSequence, Problem, Scenarios, Unknown, UsageError, window
from dpcontrol.problem import objective as folds
from dpcontrol.problem.acting import Outset
from dpcontrol.problem.control import start_state
from dpcontrol.problem.objective import Frame
from dpcontrol.problem.path import Moment
from dpcontrol.problem.windowing import Terminal
from dpcontrol.results import Counts, NoInfluence
from dpcontrol.run import Strategy, search, tree_of
from dpcontrol.tree import Tree

ENDINGS = ("interrupted", "stopped")
BAD = ("diverged", "failed")
NOTHING = Counts()


class Estimate(NamedTuple):
    """A state ``(scenarios, ...)`` that was estimated, the estimator's memory, and what it has cost."""

    state: Tree
    memory: Any
    counts: Counts = NOTHING


class Glance(NamedTuple):
    """What an estimator is told at a step.

    Attributes:
        seen: the observation, leaves ``(scenarios, ...)``.
        control: what was played in the step before, ``(scenarios, *shape)``; ``None`` at the first one.
        k: the step; its time is ``k`` times the simulator's ``dt``.
        problem: the problem on the model, with the scenarios at hand.
        budget: what an update may cost.
    """

    seen: Tree
    control: Tensor | None
    k: int
    problem: Problem
    budget: Budget


@runtime_checkable
class Estimator(Protocol):
    """From observations to states, step by step. Frozen; what changes is in the memory, a tree of plain values."""

    def init(self, problem: Problem, outset: Outset) -> Any:
        """The memory before the first observation."""
        ...

    def update(self, memory: Any, glance: Glance) -> Estimate:
        """The state at this step, after an observation of it."""
        ...


@dataclass(frozen=True)
class Rule:
    """How decisions are made; see :class:`~dpcontrol.strategies.receding.mpc.MPC`, whose fields these are.

    Attributes:
        first, later: the open-loop strategies of the first decision and of the others.
        horizon: steps of a window; ``None`` for all that are left.
    """

    first: Strategy
    later: Strategy
    horizon: int | None
    hold: int
    terminal: Terminal
    foresight: bool


@dataclass(frozen=True)
class Memory:
    """What a receding horizon remembers from step to step.

    Attributes:
        k: the step that comes next.
        seed: of everything random in the decisions.
        plan: what is left of the plan, ``(scenarios, rows, *shape)``, its first row for step ``k``; ``None`` at first.
        due: how many rows are played before the next decision.
        played: the control of the step before, ``(scenarios, *shape)``.
        remembered: what the objective's terms remember, as tensors; ``None`` where they remember nothing.
        estimate: the estimator's memory.
        decisions, bad, idle: how many there were, how many of them never saw a finite loss, and how many could not pay
            for a single evaluation.
        counts: what all of it has cost.
        ended: why planning ended before the episode (a kind of status): the plan is played on without looking.
    """

    k: int
    seed: int
    plan: Tensor | None = None
    due: int = 0
    played: Tensor | None = None
    remembered: list[Tensor] | None = None
    estimate: Any = None
    decisions: int = 0
    bad: int = 0
    idle: int = 0
    counts: Counts = NOTHING
    ended: str | None = None


@dataclass(frozen=True)
class RecedingHorizon:
    r"""Model predictive control as a controller: solve the window that begins here, play its beginning, look again.

    Plans on the problem's model; what the plant, its noise and its future are, it does not know. Made by
    ``MPC(...).controller(problem)``, and played by :func:`dpcontrol.problem.play`.
    """

    problem: Problem
    rule: Rule
    estimator: Estimator | None = None

    def init(self, outset: Outset) -> Memory:
        """No plan yet.

        Raises:
            UsageError: where the state is not one of the model and nothing estimates one.
        """
        if self.estimator is None:
            self._require_state(outset)
        seed = int(torch.randint(2**62, (), generator=outset.generator))
        held = None if self.estimator is None else self.estimator.init(self.problem, outset)
        return Memory(self.problem.first, seed, estimate=held)

    def act(
        self, memory: Memory, state: Tree, t: float, scenario: Mapping[str, Tree]
    ) -> tuple[Tensor, Memory]:
        """The control ``(scenarios, *shape)``, after a decision if one is due."""
        return self.move(replace(memory, k=round(t / self.problem.simulator.dt)), state, scenario)

    def move(
        self,
        memory: Memory,
        state: Tree,
        scenario: Mapping[str, Tree],
        *,
        purse: Callable[[Counts], Budget | None] = lambda spent: Budget(),
        watch: Callable[[Progress], Any] | None = None,
    ) -> tuple[Tensor, Memory]:
        """One step. ``purse`` says what a decision may cost after what was spent in this step; ``None`` skips it."""
        before = memory.counts
        if self.estimator is not None and memory.ended is None:
            state, memory = self._estimated(memory, state, scenario, purse(NOTHING))
        begun = self._remembered(memory, state, scenario)
        if memory.due == 0 and memory.ended is None:
            budget = purse(difference(memory.counts, before))
            if budget is None:
                memory = replace(memory, decisions=memory.decisions + 1, idle=memory.idle + 1)
            else:
                memory = self._decided(memory, state, begun, scenario, budget, watch)
        plan = self._long_enough(memory, scenario, 1)
        control = plan[:, 0]
        if begun is not None:
            here = Moment(state, control, memory.k, memory.k * self.problem.simulator.dt)
            after, _ = folds.advance(self.problem.objective, begun, here, Frame(scenario, {}))
            memory = replace(memory, remembered=tree.split_tensors(after)[0])
        return control, replace(
            memory, plan=plan[:, 1:], due=max(memory.due - 1, 0), played=control, k=memory.k + 1
        )

    def rest(self, memory: Memory, steps: int, scenario: Mapping[str, Tree]) -> Tensor:
        """Controls ``(scenarios, steps, *shape)`` of what is left, without looking: the plan, and its last row on."""
        return self._long_enough(memory, scenario, steps)[:, :steps]

    # -- one decision ------------------------------------------------------------------------------------------------

    def _decided(
        self,
        memory: Memory,
        state: Tree,
        begun: Tree,
        scenario: Mapping[str, Tree],
        budget: Budget,
        watch: Callable[[Progress], Any] | None,
    ) -> Memory:
        posed = self.window(memory, state, scenario, begun)
        inner = self.rule.first if memory.decisions == 0 else self.rule.later
        try:
            with torch.enable_grad():
                meter, found = search(
                    posed, inner, budget, seed=memory.seed + memory.decisions, callback=watch
                )
        except NoInfluence:
            if memory.decisions == 0:
                raise
            # at the end a window may be so short that no state in it feels the control: any plan is as good
            price = Counts(2 * posed.horizon * posed.scenarios.count, posed.scenarios.count)
            return replace(
                memory, due=self.rule.hold, decisions=memory.decisions + 1, counts=memory.counts + price
            )
        asked, kind = bool(meter.ledger.history.loss), found.status.kind
        lost = kind in BAD or (asked and not bool(torch.isfinite(meter.best).all()))
        return replace(
            memory,
            plan=tree_of(found, meter)["control"].detach(),
            due=self.rule.hold,
            decisions=memory.decisions + 1,
            bad=memory.bad + lost,
            idle=memory.idle + (not asked),
            counts=memory.counts + meter.counts,
            ended=kind if kind in ENDINGS else None,
        )

    def window(
        self, memory: Memory, state: Tree, scenario: Mapping[str, Tree], remembered: Tree = None
    ) -> Problem:
        """The window that a decision solves, started from what is left of the plan before."""
        end = self.problem.first + self.problem.horizon
        steps = end - memory.k if self.rule.horizon is None else min(self.rule.horizon, end - memory.k)
        posed = window(
            self._known(scenario), state, memory.k, steps, terminal=self.rule.terminal, memories=remembered
        )
        if memory.plan is None:
            return posed
        (slot,) = posed.unknown.slots
        assert isinstance(slot, ControlSequence)
        start = self._long_enough(memory, scenario, posed.free_steps)[:, : posed.free_steps]
        return replace(posed, unknown=Unknown((replace(slot, start=start),)))

    def _known(self, scenario: Mapping[str, Tree]) -> Problem:
        """The problem as the planner knows it: these scenarios on the model, without the noise that will come."""
        data = dict(scenario)
        if "noise" in data and not self.rule.foresight:
            data["noise"] = tree.map(torch.zeros_like, data["noise"])
        problem = self.problem
        (slot,) = problem.unknown.slots
        assert isinstance(slot, ControlSequence)
        count = len(tree.leaves(data["initial_state"])[0])
        # a start guess of each scenario says nothing about other ones
        if _of_others(slot.start, slot, count):
            slot = replace(slot, start=0.0)
        if _of_others(slot.scale, slot, count):
            slot = replace(slot, scale=None)
        return replace(
            problem,
            scenarios=Scenarios(data, shared=problem.scenarios.shared),
            unknown=Unknown((slot,)),
            plant=None,
            metric_functions={},
            plots={},
        )

    def _long_enough(self, memory: Memory, scenario: Mapping[str, Tree], steps: int) -> Tensor:
        """The plan with at least so many rows, its last one repeated; the start guess where there is no plan yet."""
        plan = memory.plan
        if plan is None:
            plan = self._known(scenario).start()["control"]
        elif plan.shape[1] == 0:
            assert memory.played is not None
            plan = memory.played[:, None]
        lacking = steps - plan.shape[1]
        if lacking <= 0:
            return plan
        return torch.cat([plan, plan[:, -1:].expand(len(plan), lacking, *plan.shape[2:])], 1)

    # -- what it knows -----------------------------------------------------------------------------------------------

    def _estimated(
        self, memory: Memory, state: Tree, scenario: Mapping[str, Tree], budget: Budget | None
    ) -> tuple[Tree, Memory]:
        assert self.estimator is not None
        if budget is None:  # nothing more will be seen
            return state, replace(memory, ended="budget spent")
        seen = state if self.problem.observation is None else self.problem.observation(state)
        glance = Glance(seen, memory.played, memory.k, self._known(scenario), budget)
        with torch.enable_grad():
            found = self.estimator.update(memory.estimate, glance)
        return found.state, replace(memory, estimate=found.memory, counts=memory.counts + found.counts)

    def _remembered(self, memory: Memory, state: Tree, scenario: Mapping[str, Tree]) -> Any:
        """What the objective's terms remember of the steps before, along the states it knows; ``None`` for nothing."""
        here = Moment(state, None, memory.k, memory.k * self.problem.simulator.dt)
        begun = folds.begin(self.problem.objective, here, Frame(scenario, {}))
        tensors, rebuild = tree.split_tensors(begun)
        if not tensors:
            return None
        return begun if memory.remembered is None else rebuild(memory.remembered)

    def _require_state(self, outset: Outset) -> None:
        problem = self.problem
        wanted = start_state(problem.simulator, problem.parameters, problem.scenarios)
        if not tree.same_shapes(wanted, outset.state, batch=1):
            raise UsageError(
                f"the plant of {problem.name} has states {tree.describe(outset.state)}, its model "
                f"{tree.describe(wanted)}: give the problem an observation that both have, so that the model's state "
                "is estimated."
            )


def _of_others(value: Any, slot: ControlSequence, count: int) -> bool:
    """Whether numbers of a slot are given for each of so many scenarios that these are not they."""
    return isinstance(value, Tensor) and value.ndim == len(slot.sizes) + 2 and len(value) != count


def difference(after: Counts, before: Counts) -> Counts:
    """What was spent in between."""
    return Counts(
        after.simulated_steps - before.simulated_steps,
        after.gradients - before.gradients,
        after.failures - before.failures,
    )
