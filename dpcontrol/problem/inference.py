"""``inference_problem``: which parameters, initial states or noise scales produced this measurement?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dpcontrol.problem.base import Problem
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.noise import NoiseModel
from dpcontrol.problem.prior import Prior, median_or_mean
from dpcontrol.problem.slots import InitialState, ObservationScale, Parameters
from dpcontrol.problem.terms import misfit
from dpcontrol.problem.unknown import Slot, Unknown
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree


def inference_problem(
    simulator: Simulator | Callable[..., Tree],
    *,
    data: Any,
    initial_state: Tree,
    horizon: int,
    prior: Mapping[str, Any] | None = None,
    noise: NoiseModel | None = None,
    observation: Callable[[Tree], Tree] | None = None,
    steps: Sequence[int] | None = None,
    unknown: Slot | Sequence[Slot] | None = None,
    **rest: Any,
) -> Problem:
    r"""Pose an inference task: ``p(z | data) ~ p(data | z) p(z)``, or, without a prior, maximum likelihood.

    Args:
        simulator, initial_state, horizon, rest: as in :func:`~dpcontrol.problem.control.control_problem`.
        data: measurements ``(rows, scenarios, ...)`` or ``(rows, ...)``, one row per entry of ``steps``.
        prior: name -> ``torch.distributions`` or Pyro density. Names of the simulator's parameters, ``initial_state``,
            and otherwise names of the noise model's unknown scales. What has a prior is sought, on its support.
        noise: density of a measurement around its prediction; without it (and without prior) least squares.
        observation: from a state ``(scenarios, ...)`` to a prediction; the whole state by default.
        steps: the steps at which the rows of ``data`` were taken; all by default.
        unknown: what is sought instead, without a prior.

    Raises:
        UsageError: one sentence, before any work.
    """
    if (prior is None) == (unknown is None):
        raise UsageError(
            "inference needs either prior={name: density}, or unknown=... for estimation without a prior."
        )
    if prior is not None and noise is None:
        raise UsageError(
            "a posterior needs the density of the measurements: pass noise=Gaussian(scale), say."
        )
    objective = misfit(data, noise, steps=steps, of=observation)
    sought = _slots(simulator, prior, rest.get("parameters")) if prior is not None else unknown
    problem = control_problem(
        simulator,
        initial_state=initial_state,
        horizon=horizon,
        objective=objective,
        unknown=sought,
        observation=observation,
        **rest,
    )
    if prior is None:
        return problem
    belief = Prior(_keys(problem, prior))
    return replace(problem, prior=belief, unknown=Unknown(problem.unknown.slots, belief.transforms()))


def _slots(simulator: Any, prior: Mapping[str, Any], parameters: Mapping[str, Any] | None) -> list[Slot]:
    for name, density in prior.items():
        if not callable(getattr(density, "log_prob", None)):
            raise UsageError(
                f"prior {name} must be a density with log_prob, such as torch.distributions.Normal(0, 1)."
            )
    own = set(simulator.parameters if isinstance(simulator, Simulator) else parameters or {})
    named = [name for name in prior if name in own]
    scales = [name for name in prior if name not in own and name != "initial_state"]
    slots: list[Slot] = []
    if named:
        slots.append(Parameters(*named, start={name: median_or_mean(prior[name]) for name in named}))
    if "initial_state" in prior:
        slots.append(InitialState())
    if scales:
        slots.append(ObservationScale({name: median_or_mean(prior[name]) for name in scales}))
    return slots


def _keys(problem: Problem, prior: Mapping[str, Any]) -> dict[str, Any]:
    """Densities by where their numbers stand in ``z``."""
    keys = {}
    for slot in problem.unknown.slots:
        if isinstance(slot, InitialState):
            keys["initial_state"] = prior["initial_state"]
        elif isinstance(slot, Parameters):
            keys.update({f"parameters.{name}": prior[name] for name in slot.names})
        elif isinstance(slot, ObservationScale):
            keys.update({f"observation.{name}": prior[name] for name in slot.start})
    return keys
