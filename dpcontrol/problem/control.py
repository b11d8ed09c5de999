"""``control_problem``: which control steers it there?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.engine.gradients import Full, GradientMode
from dpcontrol.engine.trajectory import parameter_values
from dpcontrol.problem import objective as folds
from dpcontrol.problem.base import Constraint, Metric, PlotFunction, Problem
from dpcontrol.problem.given import as_simulator, checked_state
from dpcontrol.problem.objective import Objective, Setting
from dpcontrol.problem.probe import probe
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.settling import settled
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.unknown import Law, Slot, Unknown
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.compiled import Compiled
from dpcontrol.sim.function import FunctionSimulator, Steady
from dpcontrol.tree import Tree


def control_problem(
    simulator: Simulator | Callable[..., Tree],
    *,
    initial_state: Tree,
    horizon: int,
    objective: Objective,
    control: ControlSequence | None = None,
    parameters: Mapping[str, Any] | None = None,
    scenarios: Mapping[str, Tree] | Scenarios | None = None,
    unknown: Slot | Sequence[Slot] | Unknown | None = None,
    observation: Callable[[Tree], Tree] | None = None,
    constraints: Sequence[Constraint] = (),
    plant: Simulator | Callable[..., Tree] | None = None,
    baselines: Mapping[str, Law] | None = None,
    references: Mapping[str, Law] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    plots: Mapping[str, PlotFunction] | None = None,
    gradient: GradientMode | None = None,
    compile: bool = False,
    name: str | None = None,
) -> Problem:
    r"""Pose a control task: find the unknown ``z`` that minimises ``objective`` over ``x_{k+1} = step(x_k, u_k)``.

    Args:
        simulator: a :class:`~dpcontrol.sim.base.Simulator`, or any function ``step(state, control) -> state``, which
            may also take ``parameters``, ``noise``, ``t``, ``scenario`` by keyword. It must be batched over the
            leading scenario axis, pure, and differentiable; a function is probed for all three.
        initial_state: floating-point tree with leaves ``(scenarios, ...)``; it sets dtype and device.
        horizon: number of steps (0 for a :class:`~dpcontrol.sim.function.Steady` system).
        objective: terms that add and scale, such as ``reach(target) + 1e-3 * effort()``.
        control: the control sequence that is sought, ``ControlSequence(shape, low=None, high=None)``.
        parameters: values that replace the simulator's defaults, or that a function takes as ``parameters``.
        scenarios: further per-scenario data, name -> leaves ``(scenarios, ...)``, or :class:`Scenarios` with a sampler.
        unknown: what is sought instead of a control: slots such as ``InitialState()``, ``Parameters("viscosity")``.
        observation: from a state to what a controller sees; the whole state by default.
        constraints: functions of a trajectory that return ``(scenarios, entries)``, not to become positive.
        plant: the system that the answer is judged on; the simulator by default.
        baselines: name -> simple feedback law ``law(state, t, scenario) -> control``.
        references: name -> law of a known course, such as a ground truth: reports show it, it does not compete.
        metrics: name -> ``function(trajectory, scenario)``, returning ``(scenarios,)`` or a pair of them, whose
            ratio of means is reported.
        plots: name -> ``function(figure, solutions)`` for reports: draws into a matplotlib figure; ``solutions`` is a
            dict, label -> solution.
        gradient: how the rollout is differentiated; :class:`~dpcontrol.engine.gradients.Full` by default.
        compile: compile the step and its adjoint, see :class:`~dpcontrol.sim.compiled.Compiled`: seconds once, then
            several times faster for steps of many small operations.
        name: what reports call it.

    Raises:
        UsageError: one sentence, before any work: what was found, what was expected, what to do.
    """
    _check_words(name, scenarios, baselines, metrics, plots, constraints)
    system = as_simulator(simulator, parameters)
    state = checked_state(initial_state)
    steps = checked_horizon(horizon, system)
    slots = checked_unknown(unknown, control)
    if not isinstance(objective, Objective):
        raise UsageError(
            f"objective must be built from terms such as reach(target) + 1e-3 * effort(); found {objective!r}: "
            "wrap your own function with cost(stage=..., terminal=...)."
        )
    cast = gathered(state, scenarios)
    if gradient is not None and not isinstance(gradient, GradientMode):
        raise UsageError(f"gradient must be a gradient mode such as Full(); found {gradient!r}.")
    values = dict(parameters or {}) if not isinstance(system, FunctionSimulator) else {}
    given_noise = "noise" in cast.data or "noise" in slots.names
    if isinstance(system, FunctionSimulator) and "noise" in system.keywords and not given_noise:
        raise UsageError(
            "the step function takes noise, and none was given: draw it beforehand and pass it as "
            "scenarios={'noise': tensor (scenarios, horizon, ...)}."
        )
    template = start_state(system, values, cast)
    setting = Setting(cast.count, steps, template, tuple(cast.data), tuple(system.parameters))
    bound, lifted = folds.bind(objective, setting)
    problem = Problem(
        name=name or _name_of(simulator),
        simulator=Compiled(system) if compile else system,
        scenarios=_with_lifted(cast, lifted),
        horizon=steps,
        unknown=slots,
        objective=bound,
        parameters=values,
        plant=None if plant is None else as_simulator(plant, parameters),
        observation=observation,
        constraint_functions=tuple(constraints),
        baselines=dict(baselines or {}),
        references=dict(references or {}),
        metric_functions=dict(metrics or {}),
        plots=dict(plots or {}),
        gradient=gradient or Full(),
        differentiable=system.differentiable,
    )
    if "noise" in slots.names and problem.free_steps < problem.horizon:
        raise UsageError(
            "a closing condition takes the last step, whose noise cannot be sought: use reach(...)."
        )
    if problem.free_steps < 1 and "control" in slots.names:
        raise UsageError(f"a control needs at least one free step; horizon {steps} leaves none: lengthen it.")
    probe(problem)
    return settled(problem)


def _check_words(
    name: Any, scenarios: Any, baselines: Any, metrics: Any, plots: Any, constraints: Any
) -> None:
    """Refuse keywords of a wrong kind, before anything is computed."""
    if name is not None and (not isinstance(name, str) or not re.fullmatch(r"[\w][\w .,+()=-]{0,79}", name)):
        raise UsageError(
            f"name must be a short word or phrase of letters, digits and spaces; found {name!r}."
        )
    if scenarios is not None and not isinstance(scenarios, (Mapping, Scenarios)):
        raise UsageError(
            f"scenarios must be a dict name -> tensor, or Scenarios; found {type(scenarios).__name__}."
        )
    for keyword, given in (("baselines", baselines), ("metrics", metrics), ("plots", plots)):
        if given is not None and not (
            isinstance(given, Mapping) and all(callable(f) for f in given.values())
        ):
            raise UsageError(f"{keyword} must be a dict name -> function; found {given!r}.")
    if not isinstance(constraints, (list, tuple)) or not all(callable(f) for f in constraints):
        raise UsageError(f"constraints must be a list of functions of a trajectory; found {constraints!r}.")


def checked_horizon(horizon: int, system: Simulator) -> int:
    """The number of steps as a whole number that fits the system."""
    steady = isinstance(system, Steady)
    if (
        not isinstance(horizon, int)
        or isinstance(horizon, bool)
        or horizon < 0
        or (horizon == 0) is not steady
    ):
        wanted = "0 for a steady system" if steady else "a whole number of steps, at least 1"
        raise UsageError(f"horizon must be {wanted}; found {horizon!r}.")
    return horizon


def checked_unknown(
    unknown: Slot | Sequence[Slot] | Unknown | None, control: ControlSequence | None
) -> Unknown:
    """What is sought, from the two keywords that can say it."""
    if control is not None and not isinstance(control, ControlSequence):
        raise UsageError(f"control must be a ControlSequence(shape, low=None, high=None); found {control!r}.")
    if isinstance(unknown, Unknown):
        slots: tuple[Any, ...] = unknown.slots
    elif isinstance(unknown, Slot):
        slots = (unknown,)
    else:
        slots = tuple(unknown or ())
    if control is not None:
        slots = (control, *slots)
    if not slots:
        raise UsageError(
            "nothing is sought: pass control=ControlSequence(shape), or unknown=InitialState(), say."
        )
    wrong = [slot for slot in slots if not isinstance(slot, Slot)]
    if wrong:
        raise UsageError(f"unknown must be made of slots such as InitialState(); found {wrong[0]!r}.")
    return unknown if isinstance(unknown, Unknown) and control is None else Unknown(slots)


def gathered(state: Tree, scenarios: Mapping[str, Tree] | Scenarios | None) -> Scenarios:
    """Initial state and further per-scenario data as one set of scenarios."""
    given = scenarios if isinstance(scenarios, Scenarios) else Scenarios(dict(scenarios or {}))
    leaf = tree.leaves(state)[0]
    data = {name: tree.to(value, dtype=leaf.dtype, device=leaf.device) for name, value in given.data.items()}
    return Scenarios({"initial_state": state, **data}, given.sampler)


def _with_lifted(scenarios: Scenarios, lifted: folds.Data) -> Scenarios:
    """The scenarios with the data that terms brought along."""
    own = sorted(name for name, entry in lifted.items() if not entry.shared)
    if scenarios.sampler is not None and own:
        raise UsageError(
            f"{own[0]} was given for each scenario as a tensor, which the sampler cannot draw afresh: put it into the "
            f"scenarios as an entry, have the sampler draw it, and name it, reach({own[0]!r})."
        )
    data = {**scenarios.data, **{name: entry.value for name, entry in lifted.items()}}
    shared = scenarios.shared | {name for name, entry in lifted.items() if entry.shared}
    return replace(scenarios, data=data, shared=shared)


def start_state(system: Simulator, parameters: Mapping[str, Any], scenarios: Scenarios) -> Tree:
    """The first state of a rollout, ``(scenarios, ...)``: a template for what terms compare it with."""
    initial = scenarios.data["initial_state"]
    own = {name: scenarios.data[name] for name in system.parameters if name in scenarios.data}
    with torch.no_grad():
        values = parameter_values(system, {**parameters, **own}, like=initial)
        for key, value in values.items():
            numbers = [leaf for leaf in tree.leaves(value) if not bool(torch.isfinite(leaf).all())]
            if numbers:
                raise UsageError(f"parameter {key} is not finite: {value}; give finite values.")
        state = system.start(initial, values)
        system.check(initial, values)
    return state


def _name_of(simulator: Any) -> str:
    name = getattr(simulator, "__name__", None) or type(simulator).__name__
    return "control" if name == "<lambda>" else str(name)
