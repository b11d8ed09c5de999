"""A user's own function as a simulator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value
from dpcontrol.tree import Tree

KEYWORDS = ("parameters", "noise", "t", "scenario")


@dataclass(frozen=True)
class FunctionSimulator(Simulator):
    r"""``x_{k+1} = step(x_k, u_k)`` for any batched, pure, differentiable function.

    ``function(state, control)`` may also take, by keyword, ``parameters`` (dict of tensors), ``noise`` (this step's),
    ``t`` (a float, ``k dt``) and ``scenario`` (dict of per-scenario data). State leaves are ``(scenarios, ...)``.
    With ``differentiable=False`` it is a black box: no gradient is asked of it, and gradient-free strategies fit.

    Raises:
        UsageError: if the signature asks for anything else.
    """

    function: Callable[..., Tree]
    dt: float = 1.0
    defaults: Mapping[str, Value] = field(default_factory=dict)
    differentiable: bool = True
    keywords: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keywords", wanted_keywords(self.function))

    @property
    def parameters(self) -> Mapping[str, Value]:
        return self.defaults

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        return {"parameters": dict(parameters), "scenario": dict(scenario)}

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        offered = {**coefficients, "noise": noise, "t": t}
        return self.function(state, control, **{name: offered[name] for name in self.keywords})


@dataclass(frozen=True)
class Steady(Simulator):
    """A system without time: ``state = solve(parameters)``, an elliptic equation, say.

    Used with ``horizon=0``: the only state of the trajectory is the solution. ``solve`` takes a dict of tensors
    (those sought, those given by the problem, and per-scenario ones of the same names) and returns a tree of leaves
    ``(scenarios, ...)``, or ``(1, ...)`` where all scenarios are alike. ``differentiable=False`` declares a black
    box.
    """

    solve: Callable[[Mapping[str, Tensor]], Tree]
    defaults: Mapping[str, Value] = field(default_factory=dict)
    differentiable: bool = True

    @property
    def dt(self) -> float:
        return 1.0

    @property
    def parameters(self) -> Mapping[str, Value]:
        return self.defaults

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        count = len(tree.leaves(initial)[0])
        return tree.map(
            lambda leaf: leaf.expand(count, *leaf.shape[1:]) if len(leaf) == 1 else leaf,
            self.solve(parameters),
        )

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        raise UsageError("a steady system has no time steps: pose its problem with horizon=0.")


def wanted_keywords(function: Callable[..., Tree]) -> tuple[str, ...]:
    """Which of the optional keywords a step function takes."""
    if not callable(function):
        raise UsageError(
            f"a simulator is a Simulator or a function step(state, control) -> state; found {type(function).__name__}."
        )
    entries = list(inspect.signature(function).parameters.values())
    positional = [e for e in entries if e.kind in (e.POSITIONAL_ONLY, e.POSITIONAL_OR_KEYWORD)]
    named = [e for e in positional[2:] if e.default is e.empty or e.name in KEYWORDS]
    named += [e for e in entries if e.kind is e.KEYWORD_ONLY and (e.default is e.empty or e.name in KEYWORDS)]
    unknown = [e.name for e in named if e.name not in KEYWORDS]
    variadic = any(e.kind is e.VAR_POSITIONAL for e in entries)
    if unknown or (len(positional) < 2 and not variadic):
        raise UsageError(
            f"step functions take (state, control) and optionally {', '.join(KEYWORDS)} by keyword; found "
            f"({', '.join(e.name for e in entries)}): bind other arguments beforehand, with functools.partial say."
        )
    return tuple(e.name for e in named)
