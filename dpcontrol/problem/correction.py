"""``correction_problem``: which correction makes my coarse solver as good as the fine one?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.trajectory import Trajectory, rollout
from dpcontrol.problem.base import Problem
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.evaluating import ErrorCurves
from dpcontrol.problem.examination import Examination
from dpcontrol.problem.following import Compare, Follow, parts_of
from dpcontrol.problem.given import solver_of
from dpcontrol.problem.hybrids import MEASURED, channel_counts, missed
from dpcontrol.problem.networks import made_by, require_correction
from dpcontrol.problem.objective import Objective
from dpcontrol.problem.packed import sizes as sizes_of
from dpcontrol.problem.reference import Reference
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import Parameters
from dpcontrol.problem.windows import Windows
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.channels import Channels
from dpcontrol.sim.hybrid import HybridSimulator, Maker
from dpcontrol.tree import Tree

Loss = Objective | Callable[[Tree, Tree], Tensor]


def correction_problem(
    coarse: Simulator | Callable[..., Tree],
    *,
    reference: Reference | Tree,
    network: torch.nn.Module | Maker | None = None,
    unroll: int = 4,
    horizon: int | None = None,
    where: str = "after",
    inputs: Sequence[str] = (),
    dimensions: int | None = None,
    loss: Loss | None = None,
    windows: int = 32,
    examination: Examination | None = None,
    device: torch.device | str | None = None,
    metrics: Mapping[str, Any] | None = None,
    plots: Mapping[str, Any] | None = None,
    name: str | None = None,
    **rest: Any,
) -> Problem:
    r"""Pose a correction task: the weights with which ``coarse`` and ``network`` together follow ``reference``.

    .. math:: \min_w \; E_{\text{window}} \sum_{k=1}^{N} \ell(x_k, r_k), \quad x_{k+1} = \mathrm{hybrid}(x_k; w),
        \quad x_0 = r_0

    The unknown is ``z["parameters"]["correction"]``. The problem's own scenarios, on which it is judged, are windows of
    the *test* trajectories; those that training draws (``scenarios.draw``) are windows of the *training* trajectories;
    strategies that train a correction (``unrolled``, ``supervised``, ``noisy``, ``stopped``, ``surrogate``) draw them
    of the length they want, and validate on the *validation* trajectories. Strategies that would fit the problem's own
    scenarios (``lbfgs``, say) are refused; they can fit a problem whose scenarios are a fixed set of training windows,
    ``problem.with_scenarios(training_scenarios(problem))``.

    What differs between trajectories (a viscosity) is an entry of the scenarios: where ``coarse`` has a parameter of
    that name it takes its value, and the network sees those that ``inputs`` names as constant channels.

    Args:
        coarse: the numerical part, a simulator or a function ``step(state, control)``; or a
            :class:`~dpcontrol.sim.hybrid.HybridSimulator` of your own, without a ``network``.
        reference: a :class:`~dpcontrol.problem.reference.Reference`, from stored trajectories or from
            :func:`~dpcontrol.problem.reference.simulated_reference`; or its states, leaves
            ``(steps + 1, trajectories, ...)``. Where states are dicts, only the entries that it has are compared, seen
            and corrected.
        network: ``network(inputs, outputs) -> nn.Module`` from channels to channels (drawn anew for each seed), or a
            module, which starts with the weights it has; see :class:`~dpcontrol.sim.channels.Channels`. What goes in
            and comes out is of size 1: states are divided by their root mean square, outputs are multiplied by that of
            what ``coarse`` misses in one step, both taken from the training trajectories.
        unroll: through how many steps of the solver training goes by default.
        horizon: steps of the windows that the answer is judged on; ``unroll`` by default.
        where: ``"after"``, ``"before"``, ``"force"`` or ``"source"``, see ``HybridSimulator``.
        inputs: names of the reference's parameters that the network sees.
        dimensions: axes of the grid; by default those behind the first axis of the smallest part of a state.
        loss: a function ``loss(state, reference) -> (scenarios,)`` of each step, or an objective over the entry
            ``"reference"`` of the scenarios, such as ``track("reference")``; by default the relative mean square.
        windows: at most so many windows to be judged on.
        examination: what answers are asked besides, by ``dpcontrol compare`` or
            :func:`dpcontrol.comparison.examine`: longer rollouts, other trajectories, what finer solvers cost for the
            same error; by default longer rollouts only.
        device: where windows are simulated; trajectories stay where they are, in memory or in files.
        metrics, plots, name, rest: as in :func:`~dpcontrol.problem.control.control_problem`; beside yours there is a
            figure of long rollouts (:class:`~dpcontrol.problem.evaluating.ErrorCurves`), and there are
            ``relative_error``, ``mean |x - r| / mean |r|`` over all steps but the first, and ``error_ratio``, the same
            difference over that of ``coarse`` alone.

    Raises:
        UsageError: one sentence, before any work.

    Source: K. Um et al., "Solver-in-the-loop", NeurIPS 2020.
    """
    known = reference if isinstance(reference, Reference) else Reference(reference)
    asked = _asked(examination, known)
    cut = Windows(known, unroll if horizon is None else horizon, unroll=unroll, examination=asked)
    target = tree.leaves(known.states)[0].device if device is None else torch.device(device)
    measured = cut.of("train", 1).spread(MEASURED)
    cut = replace(cut, sizes=sizes_of(measured["reference"]), device=target)
    own = cut.of("test", cut.steps).spread(windows)
    hybrid = _hybrid(coarse, network, where, inputs, dimensions, measured)
    if name is None:
        name = f"{type(hybrid.coarse).__name__} corrected {hybrid.where}"
    return control_problem(
        hybrid,
        initial_state=own.pop("initial_state"),
        horizon=cut.steps,
        objective=_objective(loss, cut.sizes),
        scenarios=Scenarios(own, sampler=cut),
        unknown=Parameters("correction"),
        metrics={
            "relative_error": relative_error,
            "error_ratio": ErrorRatio(hybrid.coarse),
            **(metrics or {}),
        },
        plots={"long rollouts": ErrorCurves(), **(plots or {})},
        name=name,
        **rest,
    )


def _asked(examination: Examination | None, reference: Reference) -> Examination:
    asked = Examination() if examination is None else examination
    if not isinstance(asked, Examination):
        raise UsageError(f"examination is an Examination(...); found {type(asked).__name__}.")
    if asked.resolutions:
        reference.known_origin()
    return asked


def relative_error(trajectory: Trajectory, scenario: Mapping[str, Tree]) -> tuple[Tensor, Tensor]:
    """``sum |x - r|`` and ``sum |r|`` over all steps but the first, each ``(scenarios,)``."""
    return _distance(trajectory.states, _by_step(scenario)), _distance(_by_step(scenario), None)


@dataclass(frozen=True)
class ErrorRatio:
    """The metric: distance from the reference, and that of the coarse solver alone."""

    coarse: Simulator

    def __call__(self, trajectory: Trajectory, scenario: Mapping[str, Tree]) -> tuple[Tensor, Tensor]:
        reference = _by_step(scenario)
        own = {name: scenario[name] for name in self.coarse.parameters if name in scenario}
        alone = rollout(
            self.coarse,
            scenario["initial_state"],
            length=trajectory.horizon,
            parameters=own,
            scenario=scenario,
        )
        return _distance(trajectory.states, reference), _distance(alone.states, reference)


def _by_step(scenario: Mapping[str, Tree]) -> Tree:
    return tree.map(lambda leaf: leaf.transpose(0, 1), scenario["reference"])


def _distance(states: Tree, other: Tree) -> Tensor:
    apart = states if other is None else tree.map(lambda a, b: a - b, parts_of(states, other), other)
    leaves = tree.leaves(apart)
    parts = [leaf[1:].abs().transpose(0, 1).flatten(1).sum(1) for leaf in leaves]
    return torch.stack(parts).sum(0)


def _objective(loss: Loss | None, sizes: tuple[float, ...]) -> Objective:
    if loss is None:
        return Follow("reference", sizes)
    if isinstance(loss, Objective):
        return loss
    if not callable(loss):
        raise UsageError(f"loss is a function loss(state, reference) or an objective; found {loss!r}.")
    return Compare("reference", loss)


def _hybrid(
    coarse: Simulator | Callable[..., Tree],
    network: torch.nn.Module | Maker | None,
    where: str,
    inputs: Sequence[str],
    dimensions: int | None,
    measured: Mapping[str, Tree],
) -> HybridSimulator:
    """Coarse solver and network, put together with the sizes that the training trajectories have."""
    if isinstance(coarse, HybridSimulator) and network is None:
        return coarse
    state = measured["initial_state"]
    varying = {key: value[0] for key, value in measured.items() if key not in ("initial_state", "reference")}
    coarse = solver_of(coarse, varying)
    if not callable(network):
        raise UsageError(
            "correction_problem needs a network, a module or a function (inputs, outputs) -> module; found "
            f"{type(network).__name__}."
        )
    if isinstance(inputs, str):
        raise UsageError(
            f"inputs are names of the reference's parameters, such as ({inputs!r},); found {inputs!r}."
        )
    unknown = sorted(set(inputs) - (set(measured) - {"initial_state", "reference"}))
    if unknown:
        raise UsageError(
            f"the network shall see {', '.join(unknown)}, which is no parameter of the reference; it has "
            f"{sorted(set(measured) - {'initial_state', 'reference'})}."
        )
    axes = dimensions or min(leaf.ndim for leaf in tree.leaves(state)) - 1
    parts = tuple(state) if isinstance(state, Mapping) else ()
    seen = {key: _centred(measured[key]) for key in inputs}
    layout = Channels(axes, parts, sizes_of(state), (), seen)
    layout = replace(layout, corrections=missed(coarse, layout, measured, where))
    like = tree.leaves(state)[0]
    if isinstance(network, torch.nn.Module):
        # a copy in the precision of the states, buffers and frozen weights included
        hybrid = HybridSimulator(coarse, copy.deepcopy(network).to(like), where, layout)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = made_by("network", network, *channel_counts(layout, state))
        hybrid = HybridSimulator(coarse, made.to(like), where, layout, network)
    require_correction(hybrid, measured)
    return hybrid


def _centred(values: Tensor) -> tuple[float, float]:
    width = float(values.double().std(correction=0))
    return float(values.double().mean()), width if width > 0 else 1.0
