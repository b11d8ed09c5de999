"""A posterior as ArviZ's ``InferenceData``, which other programs read (as NetCDF, too)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol.posterior.predictive import measured_times
from dpcontrol.posterior.priors import prior_draws
from dpcontrol.problem.predicting import measurements, misfits
from dpcontrol.results import UsageError

if TYPE_CHECKING:
    from dpcontrol.posterior.posterior import Posterior

# ArviZ's names of what samplers note
NAMES = {
    "log_density": "lp",
    "divergent": "diverging",
    "energy": "energy",
    "accepted": "acceptance_rate",
    "steps": "n_steps",
}


def to_arviz(posterior: Posterior, *, predictions: int, prior: int, log_likelihood: bool) -> Any:
    """See :meth:`Posterior.to_arviz`.

    Raises:
        UsageError: if ArviZ is not installed.
    """
    arviz = _arviz()
    draws = posterior.draws
    groups: dict[str, Any] = {
        "posterior": posterior.values,
        "sample_stats": {
            theirs: getattr(draws, ours).numpy()
            for ours, theirs in NAMES.items()
            if getattr(draws, ours) is not None
        },
        "observed_data": _named([part.cpu().numpy() for part in measurements(posterior.problem)]),
        "attrs": {"problem": posterior.problem.name, "kind": draws.kind, "inference_library": "dpcontrol"},
    }
    if prior:
        groups["prior"] = {
            name: values[None] for name, values in prior_draws(posterior.problem, prior).items()
        }
    if predictions:
        replicated = posterior.predict(predictions).replicated
        groups["posterior_predictive"] = _named([part.numpy()[None] for part in replicated])
    if log_likelihood:
        groups["log_likelihood"] = _named(_pointwise(posterior))
    names, times = _named(measurements(posterior.problem)), _named(measured_times(posterior.problem))
    axes = {name: [f"{name}_time", "experiment", f"{name}_entry"] for name in names}
    return arviz.from_dict(**groups, dims=axes, coords={f"{name}_time": times[name] for name in names})


def _named(parts: Sequence[Any]) -> dict[str, Any]:
    names = ["data"] if len(parts) == 1 else [f"data_{k + 1}" for k in range(len(parts))]
    return dict(zip(names, parts, strict=True))


def _pointwise(posterior: Posterior) -> list[np.ndarray]:
    """Log-density of each measurement under every draw, ``(chains, draws, rows, scenarios, measurements)``.

    Zero where nothing was measured, minus infinity where the simulator failed.
    """
    draws = posterior.draws
    predicted = posterior.predict(draws.chains * draws.count)
    found = [torch.full((draws.chains * draws.count, *part.shape), -torch.inf) for part in predicted.measured]
    for k, draw in enumerate(predicted.chosen):
        z = posterior.natural(draws.flat()[draw])
        terms = zip(misfits(posterior.problem), predicted.measured, predicted.predicted, found, strict=True)
        for term, data, parts, place in terms:
            place[draw] = term.noise.log_density(data, parts[k], z).to(place)
    return [part.reshape(draws.chains, draws.count, *part.shape[1:]).numpy() for part in found]


def _arviz() -> Any:
    try:
        return importlib.import_module("arviz")
    except ModuleNotFoundError as error:
        raise UsageError("ArviZ is not installed: pip install 'dpcontrol[bayes]'.") from error
