"""``inference_problem``: which parameters, initial states or noise scales produced this measurement?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.believed import SortedPriors, sort_priors
from dpcontrol.problem.control import as_simulator, checked_state, control_problem
from dpcontrol.problem.evidence import check_evidence
from dpcontrol.problem.objective import Objective
from dpcontrol.problem.observation import Observation
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.unknown import Slot, Unknown
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.function import wanted_keywords
from dpcontrol.sim.starting import StartsFrom
from dpcontrol.tree import Tree


def inference_problem(
    simulator: Simulator | Callable[..., Tree],
    *,
    data: Any,
    observation: Observation | Sequence[Observation],
    initial_state: Tree | Callable[[Mapping[str, Tensor]], Tree],
    horizon: int,
    prior: Mapping[str, Any] | None = None,
    unknown: Slot | Sequence[Slot] | None = None,
    start: Mapping[str, Any] | None = None,
    truth: Mapping[str, Any] | None = None,
    reference_posterior: Mapping[str, Any] | None = None,
    name: str | None = None,
    **rest: Any,
) -> Problem:
    r"""Pose an inference task: ``p(z | data) ~ p(data | z) p(z)``, or, without a prior, an estimation.

    What has a prior is sought, all of it at once: physical parameters, initial states, forcing fields, the noise that
    drives a stochastic system, scales of the measurement noise. Experiments are scenarios: what is sought is shared by
    all of them, unless its prior is ``Separately(density)`` (initial states and process noise always belong to one).

    In a step function a parameter that is shared has its own shape; one that is sought separately has a leading axis of
    scenarios, and meets a state ``(scenarios, n)`` as ``parameters["rate"][:, None]``. Process noise comes in by
    keyword, ``step(state, control, *, noise)``, ``(scenarios, ...)`` for each step.

    .. code-block:: python

        def step(state, control, *, parameters, noise):      # two experiments share a rate, each has its own source
            return state - 0.1 * parameters["rate"] * state + parameters["source"][:, None] + noise

        inference_problem(
            step, data=data, initial_state=start, horizon=20,            # start (2, n), data (rows, 2, n)
            observation=observe(Component(0), noise=StudentT("scale", 4.0), steps=range(5, 21, 5)),
            prior={"rate": LogNormal(0.0, 0.5), "source": Separately(Normal(0.0, 1.0)), "noise": Normal(0.0, 0.1),
                   "scale": LogNormal(-2.0, 1.0), "initial_state": GaussianField(n, 1.0, length_scale=0.2)})

    Args:
        simulator: as in :func:`~dpcontrol.problem.control.control_problem`.
        data: measurements ``(rows, scenarios, ...)`` or ``(rows, ...)``, one row per step that was observed; NaN marks
            an entry that was not measured. One for each observation where there are several.
        observation: how they were taken, :func:`~dpcontrol.problem.observation.observe`; or several.
        initial_state: leaves ``(scenarios, ...)``. Where it has a prior only its shape counts. A function
            ``initial_state(parameters)`` makes it of the parameters, its own ones included (an amplitude, say): it
            returns leaves ``(scenarios, ...)``, or ``(1, ...)`` where all scenarios are alike.
        horizon: number of steps (0 for a steady system).
        prior: name -> density, a ``torch.distributions`` or Pyro one, ``TruncatedNormal(...)``, ``GaussianField(...)``,
            or ``Separately(density)``. A name is that of a parameter, ``initial_state``, ``initial_state.PART`` of a
            state that is a dict, ``noise`` (each step's), or an unknown scale of a noise model. A scalar density of
            something with more entries is that of each of them.
        unknown: what is sought instead, without a prior: slots such as ``Parameters("viscosity", low=0.0)``.
        start: name -> where searches start, instead of the centre of the prior.
        truth: name -> the true value where it is known, for reports; no strategy sees it.
        reference_posterior: name -> ``(mean, standard deviation)`` of a published or exact posterior, for reports.
        name, rest: as in :func:`~dpcontrol.problem.control.control_problem`.

    Raises:
        UsageError: one sentence, before any work.
    """
    if (prior is None) == (unknown is None):
        raise UsageError(
            "inference needs either prior={name: density}, or unknown=... for estimation without a prior."
        )
    known = set(inspect.signature(control_problem).parameters) - {"control", "objective", "observation"}
    strange = sorted(set(rest) - known)
    if strange:
        raise UsageError(
            f"inference_problem takes no {', '.join(strange)}; see help(inference_problem) for what it takes."
        )
    observations, measured = _paired(observation, data)
    values = dict(rest.pop("parameters", None) or {})
    if prior is None:
        sought, slots = None, unknown
        system = as_simulator(simulator, values)
    else:
        sought = sort_priors(prior, start or {}, observations)
        values = {**_centres_of_function(simulator, sought), **values}
        system = as_simulator(simulator, values)
    if callable(initial_state):
        count = _count(rest.get("scenarios"), sought, measured)
        own = {} if sought is None else sought.unknown_to(system, count)
        system = StartsFrom(system, initial_state, own)
        initial_state = system.template(count, values)
    state = checked_state(initial_state)
    if sought is not None:
        sought.refuse_strangers(system)
        sought = sought.on(tree.leaves(state)[0].device)
        state = sought.started(state)
        slots = sought.slots(system, state, values)
    problem = control_problem(
        system,
        initial_state=state,
        horizon=horizon,
        objective=_total(
            [each.misfit(part, system.dt) for each, part in zip(observations, measured, strict=True)]
        ),
        parameters=values,
        unknown=slots,
        name=name or _name_of(simulator),
        **rest,
    )
    problem = replace(problem, truth=truth, reference_posterior=reference_posterior)
    if sought is None:
        return problem
    belief = sought.belief()
    posed = replace(problem, prior=belief, unknown=Unknown(problem.unknown.slots, belief.transforms))
    check_evidence(posed)
    return posed


def _paired(
    observation: Observation | Sequence[Observation], data: Any
) -> tuple[list[Observation], list[Any]]:
    """Observations and what was measured by each."""
    if isinstance(observation, Observation):
        return [observation], [data]
    if not isinstance(observation, list | tuple) or not all(
        isinstance(each, Observation) for each in observation
    ):
        raise UsageError(
            f"observation must be made by observe(sensor, noise=...), or be a list of such; found {observation!r}."
        )
    if not isinstance(data, list | tuple) or len(data) != len(observation):
        raise UsageError(
            f"{len(observation)} observations need a list of as many data; found {type(data).__name__}."
        )
    return list(observation), list(data)


def _total(terms: list[Objective]) -> Objective:
    found = terms[0]
    for term in terms[1:]:
        found = found + term
    return found


def _centres_of_function(simulator: Any, sought: SortedPriors) -> dict[str, Any]:
    """A user's function names no parameters: what has a prior is one."""
    if isinstance(simulator, Simulator) or "parameters" not in wanted_keywords(simulator):
        return {}
    return {name: sought.centre_of(name, density.shape) for name, density in sought.named.items()}


def _count(scenarios: Any, sought: SortedPriors | None, measured: list[Any]) -> int:
    """How many scenarios the further data speak of, or, where something belongs to each, the measurements; else 1."""
    data = scenarios.data if isinstance(scenarios, Scenarios) else scenarios or {}
    leaves = tree.leaves(dict(data))
    if leaves:
        return len(leaves[0])
    shapes = [tuple(leaf.shape) for leaf in tree.leaves(measured[0]) if isinstance(leaf, Tensor)]
    several = sought is not None and any(belief.separate for belief in sought.named.values())
    return shapes[0][1] if several and shapes and len(shapes[0]) > 1 else 1


def _name_of(simulator: Any) -> str:
    return (getattr(simulator, "__name__", None) or type(simulator).__name__).strip("<>")  # of a lambda
