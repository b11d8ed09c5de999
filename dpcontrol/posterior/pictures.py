"""The figures of a posterior, from its draws, its diagnostics and its predictions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol.plot.bands import Band, FieldDraws, bands_figure, draw_bands, draw_profile, field_figure
from dpcontrol.plot.chains import chains_figure
from dpcontrol.plot.framed import Head, framed
from dpcontrol.plot.marginals import Marginal, draw_marginals, marginals_figure, view
from dpcontrol.plot.pairs import pairs_figure
from dpcontrol.plot.style import styled
from dpcontrol.posterior.predictive import Predictions
from dpcontrol.posterior.priors import prior_curve, prior_draws
from dpcontrol.posterior.summary import LOG_DENSITY, SiteSummary, Summary, entry_labels
from dpcontrol.posterior.verdict import ESS, RHAT, Verdict, judge
from dpcontrol.posterior.words import number, rhat_words
from dpcontrol.problem.base import Problem
from dpcontrol.problem.fields import GaussianField
from dpcontrol.problem.sites import site_of

if TYPE_CHECKING:
    from dpcontrol.posterior.posterior import Posterior

SHOWN, IN_PAIRS, IN_TRACES, PANELS = 12, 6, 7, 6
PREDICTED = 200  # draws whose predictions are drawn
IN_FIELDS = 2  # entries of a field that are drawn like single numbers
COLUMNS = 3


@dataclass(frozen=True)
class Material:
    """What figures are made of, computed once."""

    posterior: Posterior
    values: dict[str, np.ndarray]
    summary: Summary
    verdict: Verdict

    @property
    def problem(self) -> Problem:
        return self.posterior.problem

    def head(self, title: str) -> Head:
        """A title with the verdict below it."""
        by = f" by {self.posterior.strategy}" if self.posterior.strategy else ""
        return Head(f"{self.problem.name}{by}: {title}", self.verdict.headline, self.verdict.warning)


def material(posterior: Posterior) -> Material:
    """Values and diagnostics of a posterior."""
    summary = posterior.summary()
    return Material(posterior, posterior.values, summary, judge(summary))


def overview(posterior: Posterior) -> Any:
    """Marginals (or the first field), and what is predicted beside what was measured."""
    found = material(posterior)
    shown, _ = bands(found.problem, posterior.predict(PREDICTED), COLUMNS)
    single = marginals(found, own=True)[:SHOWN]
    curve = next(iter(fields(found)), None)
    with styled():
        columns = min(len(single), 2 if curve is not None else 4)
        upper = max(2.6 * -(-len(single) // max(columns, 1)) + 0.3, 3.4 * (curve is not None))
        lower = 3.1 if shown else 0.0
        figure, body = framed(found.head("posterior"), max(11.5, 3.0 * columns), upper + lower)
        heights = [height for height in (upper, lower) if height]
        parts = list(body.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
        above = parts.pop(0)
        if single and curve is not None:
            above, right = above.subfigures(1, 2, width_ratios=(columns, 2))
            draw_profile(right, _flattened(curve), columns=3)
        elif curve is not None:
            draw_profile(above, _flattened(curve))
        if single:
            draw_marginals(above, single, columns)
        if shown:
            draw_bands(parts.pop(0), shown, len(shown))
    return figure


def figures(posterior: Posterior) -> dict[str, Any]:
    """All figures by name."""
    found = material(posterior)
    numbers = marginals(found)
    divergent = None if posterior.draws.divergent is None else posterior.draws.divergent.numpy()
    result = {"posterior marginals": marginals_figure(numbers[:SHOWN], found.head("marginals"))}
    if len(numbers) > 1:
        result["posterior pairs"] = pairs_figure(_related(numbers), divergent, found.head("pairs"))
    if posterior.draws.kind == "mcmc":
        worst = sorted(numbers, key=lambda each: each.alarm == "")[: IN_TRACES - 1]
        density = Marginal(
            LOG_DENSITY, posterior.draws.log_density.numpy(), alarm=_alarm(found, LOG_DENSITY, 0)
        )
        result["posterior traces"] = chains_figure([*worst, density], divergent, found.head("traces"))
    for field in fields(found):
        result[f"posterior {field.label.split('[')[0]}"] = field_figure(field, found.head(field.label))
    predicted = posterior.predict(PREDICTED)
    if predicted.count:
        shown, count = bands(found.problem, predicted, PANELS)
        part = f", {len(shown)} of {count} series" if len(shown) < count else ""
        head = _checked(found.head(f"predictions over data{part}"), predicted)
        result["posterior predictions"] = bands_figure(shown, head)
    return result


def _checked(head: Head, predicted: Predictions) -> Head:
    """With what the predictive check says."""
    check = predicted.check()
    if check.passed:
        return Head(head.title, f"{head.note} {' '.join(check.sentences)}", head.warning)
    odd = ", ".join(each.name for each in check.comparisons if each.unusual)
    said = f"the data are unusual for this model in {odd}"
    return Head(head.title, head.note, f"{head.warning}; {said}" if head.warning else said)


# -- single numbers --------------------------------------------------------------------------------------------------


def marginals(found: Material, *, own: bool = False) -> list[Marginal]:
    """Every entry of small sites, and of each field a few (the worst mixed ones); none of them where ``own``."""
    from dpcontrol.posterior.posterior import truths

    truth, reference = truths(found.problem), found.problem.reference_posterior or {}
    result = []
    for name, site in found.summary.sites.items():
        if name == LOG_DENSITY or (own and site.is_field):
            continue
        values = found.values[name]
        labels = entry_labels(name, site.mean.shape, found.problem.simulator.state_names)
        for place in _places(site):
            index: tuple[Any, ...] = tuple(int(k) for k in np.unravel_index(place, site.mean.shape))
            draws = values[(slice(None), slice(None), *index)]
            known, otherwise = _entry(truth.get(name), site, index), _pair(reference.get(name), site, index)
            result.append(
                Marginal(
                    label=labels[place],
                    values=draws,
                    prior=prior_curve(found.problem, name, index, view(draws.ravel(), known, otherwise)),
                    truth=known,
                    reference=otherwise,
                    caption=_caption(float(draws.mean()), float(draws.std())),
                    alarm=_alarm(found, name, place),
                )
            )
    return result


def _places(site: SiteSummary) -> list[int]:
    if not site.is_field:
        return list(range(site.mean.size))
    if site.mixing is None:
        return [int(k) for k in np.linspace(0, site.mean.size - 1, IN_FIELDS + 2).round()[1:-1]]
    return [int(k) for k in np.sort(site.examined[np.argsort(site.mixing.ess_bulk)[:IN_FIELDS]])]


def _entry(value: Any, site: SiteSummary, index: tuple[Any, ...]) -> float | None:
    if value is None:
        return None
    return float(np.broadcast_to(np.asarray(value, float), site.mean.shape)[index])


def _pair(pair: Any, site: SiteSummary, index: tuple[Any, ...]) -> tuple[float, float] | None:
    if pair is None:
        return None
    mean, sd = (_entry(torch.as_tensor(part).cpu().numpy(), site, index) for part in pair)
    return None if mean is None or sd is None else (mean, sd)


def _caption(mean: float, sd: float) -> str:
    """Both with so many decimals that the sd has two digits."""
    if not (sd > 0 and np.isfinite(sd)):
        return number(mean)
    decimals = int(max(0, 1 - np.floor(np.log10(sd))))
    if decimals > 6:
        return f"{number(mean)} ± {number(sd, 2)}"
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"


def _alarm(found: Material, name: str, place: int) -> str:
    mixing = found.summary.sites[name].mixing
    if mixing is None:
        return ""
    k = int(np.searchsorted(found.summary.sites[name].examined, place))
    rhat, bulk, tail = float(mixing.rhat[k]), float(mixing.ess_bulk[k]), float(mixing.ess_tail[k])
    if rhat > RHAT:
        return f"R-hat {rhat_words(rhat)}"
    return f"ESS {number(min(bulk, tail))}" if min(bulk, tail) < ESS else ""


def _related(numbers: Sequence[Marginal]) -> list[Marginal]:
    """Those that pairs tell most of: the most correlated ones."""
    if len(numbers) <= IN_PAIRS:
        return list(numbers)
    flat = np.stack([each.values.ravel() for each in numbers])
    spread = flat.std(1) > 0
    strongest = np.zeros(len(numbers))
    strongest[spread] = (np.abs(np.corrcoef(flat[spread])) - np.eye(int(spread.sum()))).max(1)
    kept = np.sort(np.argsort(-strongest)[:IN_PAIRS])
    return [numbers[k] for k in kept]


# -- fields ----------------------------------------------------------------------------------------------------------


def fields(found: Material) -> list[FieldDraws]:
    """Every site with many entries; of several experiments the first."""
    from dpcontrol.posterior.posterior import truths

    truth = truths(found.problem)
    wanted = [name for name, site in found.summary.sites.items() if site.is_field]
    prior = prior_draws(found.problem) if wanted else {}
    result = []
    for name in wanted:
        values = found.values[name]
        flat = values.reshape(-1, *values.shape[2:])
        known = truth.get(name)
        known = None if known is None else np.broadcast_to(known, flat.shape[1:])
        before = prior[name].reshape(len(prior[name]), *flat.shape[1:])
        cut = _to_grid(flat.shape[1:])
        beliefs = before.mean(0)[cut].squeeze(), before.std(0)[cut].squeeze()
        shown = flat[(slice(None), *cut)]
        shown = shown.reshape(len(shown), *beliefs[0].shape)
        truth_shown = None if known is None else known[cut].reshape(beliefs[0].shape)
        part = ", ".join(
            ":" if isinstance(k, slice) else str(k)
            for k, n in zip(cut, before.shape[1:], strict=True)
            if n > 1
        )
        label = f"{name}[{part}]" if "0" in part else name
        lengths = _lengths(found.problem, name, beliefs[0].shape)
        result.append(FieldDraws(label, shown, beliefs, truth_shown, lengths))
    return result


def _lengths(problem: Problem, site: str, shape: Sequence[int]) -> tuple[float, ...] | None:
    """Of the box that a Gaussian field of this shape lives in."""
    for key, density in problem.belief.densities.items():
        if (
            site_of(key) == site
            and isinstance(density, GaussianField)
            and density.event_shape == tuple(shape)
        ):
            return density.lengths
    return None


def _to_grid(shape: Sequence[int]) -> tuple[Any, ...]:
    """What is drawn of an array: the last one or two axes that are long, the first entry (or the middle) of others."""
    long = [axis for axis, size in enumerate(shape) if size > 4][-2:] or [len(shape) - 1]
    return tuple(slice(None) if axis in long or size == 1 else 0 for axis, size in enumerate(shape))


def _flattened(field: FieldDraws) -> FieldDraws:
    """A 2-D field as a curve through its middle."""
    if field.values.ndim == 2:
        return field
    middle = field.values.shape[1] // 2
    return FieldDraws(
        f"{field.label} (middle row)",
        field.values[:, middle],
        None if field.prior is None else (field.prior[0][middle], field.prior[1][middle]),
        None if field.truth is None else field.truth[middle],
        None if field.lengths is None else field.lengths[1:],
    )


# -- predictions -----------------------------------------------------------------------------------------------------


def bands(problem: Problem, predicted: Predictions, most: int) -> tuple[list[Band], int]:
    """Bands over time for each measured number; over the measurements where there are few times.

    At most so many, spread evenly over all of them, and how many there are.
    """
    series = []
    for k, (times, data) in enumerate(zip(predicted.times, predicted.measured, strict=True)):
        rows, scenarios, count = data.shape
        over_time = len(times) > 2
        inner = count if over_time else rows
        series += [(k, over_time, s, j) for s, j in itertools.product(range(scenarios), range(inner))]
    if not predicted.count or not series:
        return [], 0
    chosen = np.unique(np.linspace(0, len(series) - 1, most).round().astype(int))
    several = len(predicted.measured) > 1
    found = []
    for k, over_time, s, j in (series[place] for place in chosen):
        suffix = f", experiment {s + 1}" if predicted.measured[k].shape[1] > 1 else ""
        suffix += f", observation {k + 1}" if several else ""
        found.append((_over_time if over_time else _over_places)(problem, predicted, k, s, j, suffix))
    return found, len(series)


def _over_time(problem: Problem, predicted: Predictions, k: int, s: int, j: int, suffix: str) -> Band:
    data = predicted.measured[k].numpy()
    names, count = problem.simulator.state_names, data.shape[2]
    label = names[j] if len(names) == count else "measured" if count == 1 else f"measurement {j + 1}"
    clean, noisy = (part[k].numpy()[:, :, s, j] for part in (predicted.predicted, predicted.replicated))
    return Band(label + suffix, "time", predicted.times[k], data[:, s, j], clean, noisy)


def _over_places(problem: Problem, predicted: Predictions, k: int, s: int, j: int, suffix: str) -> Band:
    data = predicted.measured[k].numpy()
    count = data.shape[2]
    label = f"t = {predicted.times[k][j]:.4g}" if problem.horizon else "measured"
    clean, noisy = (part[k].numpy()[:, j, s] for part in (predicted.predicted, predicted.replicated))
    at = np.arange(1.0, count + 1)
    return Band(label + suffix, "measurement", at, data[j, s], clean, noisy, connected=count > 200)
