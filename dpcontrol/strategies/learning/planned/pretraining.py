"""What can be learnt of a system by watching it: which control led from a state to the next, and what lies between."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import Policy, Problem
from dpcontrol.problem.planned import PlannedController, middle
from dpcontrol.results import Counts
from dpcontrol.strategies.learning.policy import LearnedPolicy
from dpcontrol.tree import Tree

SPANS = 4  # pairs of states that an iteration looks at
MODES = 3  # of a random control in time
CLIP = 1.0


class Pretraining:
    """Supervised learning of both networks on runs under smooth random controls.

    Every iteration runs a minibatch of fresh scenarios once, under controls that are a few slow cosines in time with
    random amplitudes for every entry. Of some pairs of its states the CFE is asked for the control between them (one
    step apart; as far as it likes in a chain), the OP for the state in the middle of them.

    Args:
        meter: charged for the runs.
        generator: draws scenarios, controls and pairs.
        training: whose ``batch`` and ``learning_rate`` are used.
    """

    def __init__(self, meter: Meter, generator: torch.Generator, training: LearnedPolicy) -> None:
        self._meter, self._generator, self._training = meter, generator, training
        slot = meter.problem.unknown.slots[0]
        assert isinstance(slot, Policy) and isinstance(slot.network, PlannedController)
        self._network = copy.deepcopy(slot.network).to(meter.start().device)

    def run(self, weights: Tensor, iterations: int) -> Tensor:
        """The weights ``(1, dimension)`` after so many iterations."""
        named = self._meter.trees(weights)["policy"]
        self._network.load_state_dict(named, strict=False)
        optimizer = torch.optim.Adam(self._network.parameters(), lr=self._training.learning_rate)
        for iteration in range(iterations):
            states, controls, scenario = self._watched()
            for group in optimizer.param_groups:
                group["lr"] = self._training.learning_rate * math.cos(0.5 * math.pi * iteration / iterations)
            optimizer.zero_grad()
            self._loss(states, controls, scenario).backward()
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), CLIP)
            optimizer.step()
        like = self._meter.layout()["policy"]
        found = dict(self._network.named_parameters())
        return tree.ravel({"policy": {name: found[name].detach().to(leaf) for name, leaf in like.items()}})[
            None
        ]

    def _watched(self) -> tuple[list[Tensor], Tensor, Tree]:
        """Packed states of every step, the controls ``(steps, scenarios, *shape)``, and the per-scenario data."""
        problem, count = self._meter.problem, self._training.batch
        if problem.scenarios.sampler is not None:
            scenes = problem.scenarios.draw(self._generator, count)
        else:
            scenes = replace(problem.scenarios, data=problem.scenarios.take(self._chosen(problem, count)))
        count = scenes.count
        self._meter.spend(Counts(count * problem.horizon, 0))
        control = self._network.task.control
        posed = problem.with_scenarios(scenes).with_unknown(replace(control, start=0.0))
        played = self._random_controls(count, posed.free_steps, problem)
        with torch.no_grad():
            path = posed.simulate({control.name: played}, plant=False)
        rows = [self._network.task.layout.pack(row) for row in tree.unbind(path.states)]
        return rows, played.transpose(0, 1), scenes.data

    def _chosen(self, problem: Problem, count: int) -> Tensor:
        return torch.randint(problem.scenarios.count, (count,), generator=self._generator)

    def _random_controls(self, count: int, steps: int, problem: Problem) -> Tensor:
        control, pose = self._network.task.control, problem.pose()
        time = (torch.arange(steps, dtype=torch.float64) + 0.5) / max(steps, 1)
        waves = torch.stack([torch.cos(math.pi * mode * time) for mode in range(MODES)])
        shape = (MODES, count, *control.sizes)
        amplitudes = torch.randn(shape, generator=self._generator, dtype=torch.float64) / math.sqrt(MODES)
        raw = torch.einsum("mk,mb...->kb...", waves, amplitudes).to(dtype=pose.dtype, device=pose.device)
        return torch.stack([control.ranged(row) for row in raw], 1)

    def _loss(self, states: list[Tensor], controls: Tensor, scenario: Tree) -> Tensor:
        network, horizon = self._network, len(controls)
        numbers = network.task.numbers(scenario, states[0])
        size = controls.square().mean()
        total = torch.zeros_like(size)
        for _ in range(SPANS):
            first, last = self._pair(horizon)
            reached = last if network.scheme == "chain" else first + 1
            found = network.estimate(states[first], states[reached], reached - first, numbers)
            total = total + (found - controls[first]).square().mean() / size
            if network.scheme != "chain" and last - first > 1:
                between = network.predict(states[first], states[last], last - first, numbers)
                error = (between - states[middle(first, last)]).square().mean()
                total = total + error * (horizon / (last - first)) ** 2
        return total / SPANS

    def _pair(self, horizon: int) -> tuple[int, int]:
        """A first step and a later one, short spans as often as long ones."""
        span = round(horizon ** float(torch.rand((), generator=self._generator, dtype=torch.float64)))
        first = int(torch.randint(horizon - span + 1, (), generator=self._generator))
        return min(first, horizon - 1), first + span
