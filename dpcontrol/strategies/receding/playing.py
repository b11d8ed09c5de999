"""An episode under a receding horizon, on the plant and within a budget."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import Episode, advance, reset
from dpcontrol.problem.acting import Outset
from dpcontrol.results import Counts, Status
from dpcontrol.run import Outcome
from dpcontrol.strategies.receding.controller import Memory, RecedingHorizon, difference

# what the first decision may cost more than the others, which have a plan to start from
AT_FIRST = 10
# what reads a status of Playing: its decisions, those that were not paid for, and an early end of planning
UNPAID = re.compile(r"(\d+) decisions by .* (\d+) of which could not pay")
UNSEEING = re.compile(r"decisions by .* for (\d+) steps.*planning ended in step (\d+)")


class Playing:
    """An episode under way: the controller with its memory, the plant, and the controls that were played."""

    def __init__(self, controller: RecedingHorizon, meter: Meter, generator: torch.Generator) -> None:
        self._controller, self._meter = controller, meter
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
            meter.charge(difference(memory.counts, before))
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
        inner = type(self._controller.rule.first).__name__
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
        rule, steps, k = self._controller.rule, self._meter.problem.free_steps, len(self.controls)
        lengths = [min(rule.horizon or steps, steps - j) for j in range(k, steps, rule.hold)]
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
