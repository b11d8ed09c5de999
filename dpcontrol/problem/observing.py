"""What a learned controller sees of a problem, and the controller that is built on it.

Every learned method gets the same observation, so that they can be compared: the state (or the problem's own
``observation`` of it), what the objective asks for, the parameters that differ between scenarios, and the time to go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dpcontrol import tree
from dpcontrol.engine.trajectory import parameter_values
from dpcontrol.problem.base import Problem
from dpcontrol.problem.distribution import require_distribution
from dpcontrol.problem.objective import Closing
from dpcontrol.problem.policy_slot import BoundedNetwork
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.terms import Reach, Track
from dpcontrol.problem.unknown import Law
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

# Scales are those of so many draws; with more numbers than LARGE in a scene it may cost a simulation to draw one
DRAWS, LARGE, SEED = 64, 4096, 1_732_050

Body = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Observer:
    """From a moment of a run to one vector per scenario, ``(scenarios, size)``.

    In this order, each entry flattened and divided by its scale: the observed state, the entries ``targets`` of the
    scenario data, of each of ``tracks`` the row at the present step (the last one behind its end), and the share of
    the horizon that is left, from 1 to 0. An initial state that lacks entries, as scenario data may hold it, is
    completed as the simulator does.

    Attributes:
        horizon: length of an episode in the simulator's time.
        dt: the simulator's.
        scales: typical magnitudes: of the observed state (a tree of numbers), and of each entry by name.
        whole: a tree with the nodes of a whole state.
        start: the simulator's, which makes an initial state whole.
    """

    horizon: float
    dt: float
    observation: Callable[[Tree], Tree] | None
    targets: tuple[str, ...]
    tracks: tuple[str, ...]
    scales: Mapping[str, Tree]
    whole: Tree
    start: Callable[[Tree], Tree]

    def __call__(self, state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tensor:
        if not tree.same_structure(state, self.whole):
            state = self.start(state)
        seen = state if self.observation is None else self.observation(state)
        parts = [self._flat("state", seen)]
        parts += [self._flat(name, scenario[name]) for name in self.targets]
        k = round(t / self.dt)
        for name in self.tracks:
            row = tree.map(lambda leaf: leaf[:, min(k, leaf.shape[1] - 1)], scenario[name])
            parts.append(self._flat(name, row))
        return torch.cat([*parts, torch.full_like(parts[0][:, :1], 1 - t / self.horizon)], 1)

    def _flat(self, name: str, value: Tree) -> Tensor:
        rows = [
            leaf.reshape(len(leaf), -1) / scale
            for leaf, scale in zip(tree.leaves(value), tree.leaves(self.scales[name]), strict=True)
        ]
        return torch.cat(rows, 1)


def observer(problem: Problem) -> Observer:
    """What a controller of this problem sees.

    Scales are root mean squares, one number for each leaf: the state's are those of its initial values, completed by
    the simulator, and of the targets that it is compared with. What is zero everywhere has the scale 1. They are taken
    over ``DRAWS`` scenarios of the problem's distribution, always the same ones, so that a trained network sees one
    scene alike among whatever others it stands; over the scenarios at hand where there is no distribution, or where
    one has more than ``LARGE`` numbers.

    Raises:
        UsageError: if the sampler of scenarios cannot be drawn from.
    """
    scenarios = _typical(problem)
    data = scenarios.data
    named = [
        term.data if isinstance(term, Track) else term.target
        for _, term in problem.objective.terms
        if isinstance(term, Reach | Closing | Track)
    ]
    tracked = {term.data for _, term in problem.objective.terms if isinstance(term, Track)}
    varying = [name for name in problem.simulator.parameters if name in data and name not in scenarios.shared]
    targets = tuple(dict.fromkeys([name for name in named if name not in tracked] + varying))
    tracks = tuple(dict.fromkeys(name for name in named if name in tracked))
    with torch.no_grad():
        whole = _start(problem, data)(data["initial_state"])
        seen = whole if problem.observation is None else problem.observation(whole)
    scales: dict[str, Tree] = {name: tree.map(_size, data[name]) for name in (*targets, *tracks)}
    alike = [data[name] for name in named if tree.same_structure(data[name], seen)]
    scales["state"] = tree.map(lambda *leaves: max(map(_size, leaves)), seen, *alike)
    for name in named:
        if tree.same_structure(data[name], seen):
            scales[name] = scales["state"]
    dt = problem.simulator.dt
    return Observer(
        horizon=(problem.first + problem.horizon) * dt,
        dt=dt,
        observation=problem.observation,
        targets=targets,
        tracks=tracks,
        scales=scales,
        whole=tree.map(lambda _: 0, whole),
        start=_start(problem, problem.scenarios.data),
    )


def _typical(problem: Problem) -> Scenarios:
    """Scenarios whose sizes are typical of the problem: always the same ones where they are cheap to draw."""
    own = problem.scenarios
    numbers = sum(leaf.numel() for leaf in tree.leaves(dict(own.data)))
    if own.sampler is None or problem.opening is not None or numbers > LARGE * own.count:
        return own
    require_distribution(own)
    with torch.no_grad():
        return own.draw(torch.Generator().manual_seed(SEED), DRAWS)


def _start(problem: Problem, data: Mapping[str, Tree]) -> Callable[[Tree], Tree]:
    """The simulator's start under the problem's parameters."""
    own = {name: data[name] for name in problem.simulator.parameters if name in data}
    values = parameter_values(problem.simulator, {**problem.parameters, **own}, like=data["initial_state"])
    return partial(problem.simulator.start, parameters=values)


class Controller(BoundedNetwork):
    """A feedback controller ``control = range(body(observation))``: the network of a slot that seeks a policy.

    Between two finite bounds the body's numbers are squashed by ``tanh``, elsewhere multiplied by the control's scale
    (and clipped at a bound that has no partner).

    Args:
        observer: makes the observation, ``(scenarios, inputs)``.
        body: from the observation to ``(scenarios, outputs)``, the entries of the control.
        control: the slot whose control is played: shape, bounds and scale.
        inputs: size of the observation.
        base: a law of the problem whose control the network corrects: ``range(body(observation)) + base``, clipped.
    """

    def __init__(
        self,
        observer: Observer,
        body: nn.Module,
        control: ControlSequence,
        inputs: int,
        base: Law | None = None,
    ) -> None:
        super().__init__()
        self.observer = observer
        self.body = body
        self.control = control
        self.base = base
        self.inputs, self.outputs = inputs, math.prod(control.sizes)

    def forward(self, state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tensor:
        """The control ``(scenarios, *shape)``."""
        own = self._own(self.observer(state, t, scenario))
        return own if self.base is None else self.control.clip(own + self.base(state, t, scenario))

    def _own(self, seen: Tensor) -> Tensor:
        return self.control.ranged(self.body(seen).reshape(len(seen), *self.control.sizes))


def controller(problem: Problem, body: Body, base: str | None = None) -> Controller:
    """A controller for an open-loop problem, with a body made for its observation and control.

    ``base`` names one of the problem's simple laws, whose control the network corrects.

    Raises:
        UsageError: if the problem does not seek one control sequence.
    """
    slots = problem.unknown.slots
    if len(slots) != 1 or not isinstance(slots[0], ControlSequence):
        raise UsageError(
            f"a controller plays a control step by step, but {problem.name} seeks {', '.join(problem.unknown.names)}: "
            "pose it with control=ControlSequence(...)."
        )
    law = law_of(problem, base)
    eyes = observer(problem)
    with torch.no_grad():
        size = eyes(problem.scenarios.data["initial_state"], 0.0, problem.scenarios.data).shape[1]
    made = body(size, math.prod(slots[0].sizes))
    return Controller(eyes, made.to(problem.pose().dtype), slots[0], size, law)


def law_of(problem: Problem, name: str | None) -> Law | None:
    """One of the problem's simple laws by its name; ``None`` for ``None``.

    Raises:
        UsageError: if there is no such law.
    """
    if name is None:
        return None
    if name not in problem.baselines:
        known = ", ".join(sorted(problem.baselines)) or "none"
        raise UsageError(
            f"{problem.name} has no law called {name!r}; it has {known}: name one of these, or leave base out."
        )
    return problem.baselines[name]


def _size(leaf: Tensor) -> float:
    size = float(leaf.detach().double().square().mean().sqrt())
    return size if size > 0 else 1.0
