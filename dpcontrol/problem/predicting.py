"""What a problem with measurements predicts: views of ``(problem, z)`` that Bayesian methods and their critics ask for.

A prediction has the layout of the data, ``(rows, scenarios, measurements)`` with the measurements of a row flattened,
one tensor for each observation of the problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.objective import Sum
from dpcontrol.problem.rolling import roll
from dpcontrol.problem.terms import Misfit
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


def misfits(problem: Problem) -> list[Misfit]:
    """The terms that compare with measurements.

    Raises:
        UsageError: if there is none.
    """
    found = [term for _, term in problem.objective.terms if isinstance(term, Misfit)]
    if not found:
        raise UsageError(
            f"{problem.name} has no measurements with a noise model: pose it with inference_problem."
        )
    return found


def predictions(problem: Problem, z: Mapping[str, Tree], *, plant: bool = False) -> list[Tensor]:
    """What would be measured without noise under ``z``; differentiable."""
    trajectory = roll(problem, z, keep=True, plant=plant).trajectory
    assert trajectory is not None
    found = []
    for term in misfits(problem):
        steps = range(problem.horizon + 1) if term.steps is None else term.steps
        rows = [tree.map(lambda leaf, k=k: leaf[k], trajectory.states) for k in steps]
        found.append(torch.stack([tree.ravel(term.of(row), batch=1) for row in rows]))
    return found


def measurements(problem: Problem) -> list[Tensor]:
    """The data, in the layout of the predictions; NaN where nothing was measured."""
    data = [problem.scenarios.data[term.data] for term in misfits(problem)]
    return [tree.ravel(part, batch=2).transpose(0, 1) for part in data]


def pointwise_log_likelihood(problem: Problem, z: Mapping[str, Tree]) -> list[Tensor]:
    """Log-density of each measurement, in the layout of the predictions; zero where nothing was measured."""
    parts = zip(misfits(problem), measurements(problem), predictions(problem, z), strict=True)
    return [term.noise.log_density(data, prediction, z) for term, data, prediction in parts]


def replicate(problem: Problem, z: Mapping[str, Tree], generator: torch.Generator) -> list[Tensor]:
    """Data as they might have been measured under ``z``, in the layout of the predictions; NaN where the data are."""
    parts = zip(misfits(problem), measurements(problem), predictions(problem, z), strict=True)
    return [
        torch.where(torch.isnan(data), data, term.noise.sample(prediction, z, generator))
        for term, data, prediction in parts
    ]


def with_measurements(problem: Problem, data: Sequence[Tensor]) -> Problem:
    """The same problem with other data, given in the layout of the predictions."""
    changed = {}
    for term, part in zip(misfits(problem), data, strict=True):
        like = problem.scenarios.data[term.data]
        wanted = tree.ravel(like, batch=2).transpose(0, 1).shape
        if part.shape != wanted:
            raise UsageError(
                f"the data are {tuple(wanted)} (rows, scenarios, measurements); found {tuple(part.shape)}: give them "
                "like predictions(problem, z)."
            )
        changed[term.data] = tree.unravel(part.transpose(0, 1), like, 2)
    scenarios = replace(problem.scenarios, data={**problem.scenarios.data, **changed})
    return replace(problem, scenarios=scenarios)


def draw_prior(problem: Problem, generator: torch.Generator) -> dict[str, Tree]:
    """One draw of everything that is sought, in natural numbers.

    Raises:
        UsageError: without a prior.
    """
    return problem.belief.draw(problem.start(), generator)


def fisher_roots(problem: Problem, z: Mapping[str, Tree]) -> Tensor:
    """A vector whose Jacobian ``J`` in ``z`` gives the expected Fisher information of the data, ``J^T J``.

    For known Gaussian noise it is the predictions over the scale; unknown scales add their part (see
    :class:`~dpcontrol.problem.noise.NoiseModel`). What was not measured is left out.
    """
    weights = [weight for weight, term in problem.objective.terms if isinstance(term, Misfit)]
    found = []
    parts = zip(misfits(problem), weights, measurements(problem), predictions(problem, z), strict=True)
    for term, weight, data, prediction in parts:
        measured = ~torch.isnan(data)
        found += [weight**0.5 * root[measured] for root in term.noise.fisher_root(prediction, z)]
    return torch.cat(found)


def without_objective(problem: Problem) -> Problem:
    """The same problem with nothing to score: what is rolled out for its predictions alone."""
    return replace(problem, objective=Sum(()))
