"""Asking an inference problem a few questions at the door: do the data speak about what is sought, and of whom?"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.believed import EXPERIMENTS
from dpcontrol.problem.predicting import draw_prior, measurements, predictions
from dpcontrol.problem.sites import sites
from dpcontrol.results import UsageError

DRAWS = 2  # of the prior, beside the start


def check_evidence(problem: Problem) -> None:
    """Raise :class:`UsageError` where data, names or experiments do not fit what is sought.

    A run and its gradient at the start, and two more where something seems to say nothing.
    """
    z = problem.start()
    known = sites(z)
    strangers = sorted(set(problem.truth or {}) - set(known))
    if strangers:
        raise UsageError(
            f"truth names {', '.join(strangers)}, which is not sought; it is {', '.join(known)}: use these names."
        )
    for name, value in (problem.truth or {}).items():
        _truth_fits(name, value, known[name])
    for k, data in enumerate(measurements(problem)):
        if bool(torch.isnan(data).all()):
            raise UsageError(f"observation {k} has no data: every entry is NaN; leave it out.")
    if problem.differentiable and problem.horizon > 0:
        _speaks(problem)


def _truth_fits(name: str, value: object, like: object) -> None:
    for given, wanted in zip(tree.leaves(value), tree.leaves(like), strict=False):
        shape = tuple(torch.as_tensor(given).shape)
        try:
            fits = torch.broadcast_shapes(shape, wanted.shape) == wanted.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise UsageError(
                f"the truth of {name} has shape {shape}, but what is sought has {tuple(wanted.shape)}: give one value, "
                "or one of that shape."
            )


def _speaks(problem: Problem) -> None:
    generator = torch.Generator().manual_seed(0)
    silent: set[str] | None = None
    for k in range(1 + DRAWS):
        z = problem.start() if k == 0 else draw_prior(problem, generator)
        named = z.get("parameters", {})
        separate = z.get(EXPERIMENTS, {})
        slopes = _slopes(problem, z, {**named, **separate})
        if slopes is None:
            return
        own, everything = slopes
        for name, slope in own.items():
            if name in separate and problem.scenarios.count > 1 and bool((slope[1:] != 0).any()):
                raise UsageError(
                    f"{name} of one experiment changes what is predicted for another: a parameter that is sought "
                    f"separately has the shape (scenarios,), here {tuple(slope.shape)}; line it up with the state, "
                    f"parameters[{name!r}][:, None] say."
                )
        mute = {name for name, slope in everything.items() if not bool((slope != 0).any())}
        silent = mute if silent is None else silent & mute
        if not silent:
            return
    assert silent is not None
    raise UsageError(
        f"{', '.join(sorted(silent))} has a prior, but changes nothing that is predicted: is the name right, and does "
        "it act before something is measured? Leave it out otherwise."
    )


def _slopes(
    problem: Problem, z: dict[str, tree.Tree], named: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Gradients of what is predicted, of the first scenario and of all, in named parameters; ``None`` for failures."""
    if not named:
        return None
    asked = {name: value.detach().clone().requires_grad_() for name, value in named.items()}
    moved = {
        slot: {name: asked.get(name, part) for name, part in value.items()}
        if slot in ("parameters", EXPERIMENTS)
        else value
        for slot, value in z.items()
    }
    try:
        with warnings.catch_warnings():
            # a step that looks at a number of its parameters, float(p), may
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
            found = predictions(problem, moved)
    except (ArithmeticError, ValueError, AssertionError):
        return None  # such draws have density zero
    except (RuntimeError, IndexError) as error:
        raise UsageError(
            f"predicting {problem.scenarios.count} experiments together failed with {type(error).__name__}: {error}. "
            "A parameter that is shared has its own shape, one that is sought separately a leading axis of "
            "scenarios: line them up with the state."
        ) from error
    if not all(bool(torch.isfinite(part).all()) for part in found):
        return None
    results: list[tuple[Tensor, ...]] = []
    for part in ([rows[:, 0] for rows in found], found):
        # different weights, so that effects do not cancel
        total = sum((torch.cos(torch.arange(p.numel()).to(p)).reshape(p.shape) * p).sum() for p in part)
        if not isinstance(total, Tensor) or not total.requires_grad:
            results.append(tuple(torch.zeros_like(value) for value in asked.values()))
            continue
        results.append(
            torch.autograd.grad(total, list(asked.values()), retain_graph=True, materialize_grads=True)
        )
    first, everything = (dict(zip(asked, each, strict=True)) for each in results)
    return first, everything
