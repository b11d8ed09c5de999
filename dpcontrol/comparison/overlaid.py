"""Posteriors of several strategies drawn over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dpcontrol.comparison.posteriors import Sampled
from dpcontrol.comparison.records import Results
from dpcontrol.plot import style
from dpcontrol.plot.overlaid import overlaid_figure
from dpcontrol.posterior import Posterior
from dpcontrol.posterior.posterior import truths
from dpcontrol.posterior.summary import FEW, entry_labels
from dpcontrol.problem.base import Problem

POSTERIORS = "posteriors over each other"
PANELS, OF_A_FIELD = 12, 3


def overlaid_posteriors(
    problem: Problem, results: Results, found: Sequence[Sampled], colours: Mapping[str, str]
) -> bytes | None:
    """Marginals as SVG, those of the median run of each strategy; ``None`` where no draws are at hand."""
    values: dict[str, Mapping[str, np.ndarray]] = {}
    for each in found:
        run = results.representative(each.label)
        solution = None if run is None else run.solution()
        if solution is not None and solution.draws is not None:
            values[each.label] = Posterior(problem, solution.draws).values
    if not values:
        return None
    truth, reference = truths(problem), problem.reference_posterior or {}
    panels: list[Any] = []
    for name, first in next(iter(values.values())).items():
        shape = first.shape[2:]
        labels = entry_labels(name, shape, problem.simulator.state_names)
        for place in _places(len(labels)):
            index: tuple[Any, ...] = tuple(int(k) for k in np.unravel_index(place, shape))
            draws = {
                label: own[name][(slice(None), slice(None), *index)].ravel() for label, own in values.items()
            }
            panels.append(
                (
                    labels[place],
                    draws,
                    _entry(truth.get(name), shape, index),
                    _pair(reference.get(name), shape, index),
                )
            )
    dashed = [each.label for each in found if not each.chains]
    return style.as_svg(overlaid_figure(panels[:PANELS], colours, dashed))


def _places(entries: int) -> list[int]:
    """All entries, or a few of a field."""
    if entries <= FEW:
        return list(range(entries))
    return [int(k) for k in np.linspace(0, entries - 1, OF_A_FIELD + 2).round()[1:-1]]


def _entry(value: Any, shape: tuple[int, ...], index: tuple[int, ...]) -> float | None:
    return None if value is None else float(np.broadcast_to(np.asarray(value, float), shape)[index])


def _pair(pair: Any, shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[float, float] | None:
    if pair is None:
        return None
    mean, sd = (np.broadcast_to(torch.as_tensor(part).double().cpu().numpy(), shape)[index] for part in pair)
    return float(mean), float(sd)
