"""Posteriors beside each other: how much sampling a budget buys, and how far approximations are from the truth.

Means and standard deviations are judged against a reference: the one that the problem brings (a published or exact
posterior), else the sampler of this comparison with the most effective draws among those whose chains have mixed. An
error of a mean is in standard deviations of the reference, that of a standard deviation relative to it; both at the
worst entry, averaged over the runs of a strategy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpcontrol.comparison.moments import Moments
from dpcontrol.comparison.records import Results, Run
from dpcontrol.comparison.words import amount, counted, listed, number
from dpcontrol.posterior.verdict import RHAT
from dpcontrol.posterior.words import rhat_words, table

CHAINS = "mcmc"
# A budget cuts all runs short; beyond this R-hat draws are no picture of the posterior, and do not compete.
MIXED = 1.05
ENOUGH = 10  # times a budget that left no draws is a first guess of one that leaves some
ALIKE = 1.5  # rates that differ by less are not told apart: effective draws are an estimate themselves


@dataclass(frozen=True)
class Sampled:
    """What the runs of one strategy say of the posterior; means over those that left draws.

    Attributes:
        label: of the strategy.
        kind: of its draws.
        runs, asked: how many left draws, how many were to be run.
        rhat: the worst of all runs.
        effective: the smallest bulk ESS over all entries.
        per_step: effective draws for each 1,000 simulated steps, one number for each run.
        per_second: the same for each second.
        divergences: in all runs, or ``None`` where the method has none.
        mean_error, sd_error: distances from the reference, or ``None`` where there is none.
        is_reference: whether it is the reference itself.
        warning: of the first run with one.
    """

    label: str
    kind: str
    runs: int
    asked: int
    rhat: float
    effective: float
    per_step: tuple[float, ...]
    per_second: tuple[float, ...]
    divergences: int | None
    mean_error: float | None
    sd_error: float | None
    is_reference: bool
    warning: str

    @property
    def chains(self) -> bool:
        """Whether it is a sampler, rather than an approximation."""
        return self.kind == CHAINS

    @property
    def mixed(self) -> bool:
        """Whether its chains agree well enough for their draws to be counted."""
        return self.chains and self.rhat < MIXED

    @property
    def rate(self) -> float:
        """Effective draws for each 1,000 simulated steps, mean over runs."""
        return float(np.mean(self.per_step))


@dataclass(frozen=True)
class Reference:
    """What errors are measured against: its name in words, and its moments."""

    words: str
    label: str | None
    moments: Moments


# -- one line for each strategy --------------------------------------------------------------------------------------


def sampled(results: Results) -> list[Sampled]:
    """One entry for each strategy with draws: samplers first, by effective draws per step, then approximations."""
    reference = reference_of(results)
    found = [
        _sampled(label, _with_draws(results, label), len(results.of(label)), reference)
        for label in results.labels
        if _with_draws(results, label)
    ]
    return sorted(
        found, key=lambda each: (not each.chains, not each.mixed, -each.rate, each.mean_error or 0.0)
    )


def _with_draws(results: Results, label: str) -> list[Run]:
    return [run for run in results.of(label) if run.record.get("posterior")]


def reference_of(results: Results) -> Reference | None:
    """What errors are measured against; ``None`` where nothing has mixed."""
    if results.reference_moments:
        return Reference("the reference posterior of the problem", None, results.reference_moments)
    best: Run | None = None
    for run in results.runs:
        found = run.record.get("posterior")
        if not found or found["kind"] != CHAINS or not found["rhat"] < MIXED:
            continue
        if best is None or found["ess_bulk"] > best.record["posterior"]["ess_bulk"]:
            best = run
    if best is None:
        return None
    draws = best.record["posterior"]["ess_bulk"]
    words = f"{best.label} (seed {best.seed}, {number(draws)} effective draws: its own error is about"
    return Reference(f"{words} {draws**-0.5:.2f} sd)", best.label, best.moments)


def _sampled(label: str, runs: Sequence[Run], asked: int, reference: Reference | None) -> Sampled:
    records = [run.record["posterior"] for run in runs]
    chains = records[0]["kind"] == CHAINS
    effective = [float(found["ess_bulk"]) for found in records]
    steps = [max(1, run.record["counts"]["simulated_steps"]) for run in runs]
    seconds = [max(1e-9, run.record["seconds"]) for run in runs]
    own = reference is not None and reference.label == label
    errors = [] if reference is None or own else [_errors(run.moments, reference.moments) for run in runs]
    diverged = [found["divergences"] for found in records if found["divergences"] is not None]
    return Sampled(
        label=label,
        kind=records[0]["kind"],
        runs=len(runs),
        asked=asked,
        rhat=max(float(found["rhat"]) for found in records) if chains else float("nan"),
        effective=float(np.mean(effective)) if chains else float("nan"),
        per_step=tuple(1000 * e / s for e, s in zip(effective, steps, strict=True)),
        per_second=tuple(e / s for e, s in zip(effective, seconds, strict=True)),
        divergences=sum(diverged) if diverged else None,
        mean_error=float(np.mean([mean for mean, _ in errors])) if errors else None,
        sd_error=float(np.mean([sd for _, sd in errors])) if errors else None,
        is_reference=own,
        warning=next((found["warning"] for found in records if found["warning"]), ""),
    )


def _errors(found: Moments, reference: Moments) -> tuple[float, float]:
    """The largest error of a mean, in reference sds, and the largest relative one of an sd."""
    means, sds = [0.0], [0.0]
    for name in set(found) & set(reference):
        mean, sd = (np.asarray(part, float) for part in found[name])
        known_mean, known_sd = (np.asarray(part, float) for part in reference[name])
        scale = np.where(known_sd > 0, known_sd, np.nan)
        means.append(float(np.nanmax(np.abs(mean - known_mean) / scale)))
        sds.append(float(np.nanmax(np.abs(sd / scale - 1))))
    return max(means), max(sds)


# -- words -----------------------------------------------------------------------------------------------------------

HEAD = ("posterior", "R-hat", "bulk ESS", "per 1,000 steps", "per second", "error of means", "of sds", "")


def rows(found: Sequence[Sampled]) -> list[list[str]]:
    """The cells of a table below :data:`HEAD`."""
    return [
        [
            each.label,
            rhat_words(each.rhat) if each.chains else "–",
            number(each.effective) if each.chains else "–",
            number(each.rate) if each.chains else "–",
            number(float(np.mean(each.per_second))) if each.chains else "–",
            "reference" if each.is_reference else _sds(each.mean_error),
            "reference" if each.is_reference else _percent(each.sd_error),
            _remark(each),
        ]
        for each in found
    ]


def _sds(error: float | None) -> str:
    if error is None:
        return "–"
    if error < 0.005:
        return "less than 0.01 sd"
    return f"{error:.2f} sd" if error < 100 else f"{number(error)} sd"


def _percent(error: float | None) -> str:
    if error is None:
        return "–"
    return "less than 0.1 %" if error < 0.001 else f"{number(100 * error, 2)} %"


def _remark(each: Sampled) -> str:
    kinds = {"independent": "approximation", "ensemble": "approximation by an ensemble"}
    parts = [kinds.get(each.kind, "")]
    if each.runs < each.asked:
        parts.append(f"{each.asked - each.runs} of {counted(each.asked, 'run')} left no draws")
    if each.divergences:
        parts.append(counted(each.divergences, "divergence"))
    if each.chains and not each.rhat < RHAT:
        parts.append("R-hat above 1.01" if each.mixed else "not mixed")
    return ", ".join(part for part in parts if part)


def text_table(found: Sequence[Sampled]) -> str:
    """The table for a terminal."""
    return table(list(HEAD), rows(found))


def caption(results: Results) -> str:
    """What the numbers of the table are."""
    reference = reference_of(results)
    told = (
        "There is no reference: no chains have mixed."
        if reference is None
        else f"Errors are those of the worst entry against {reference.words}: of means in its standard deviations, of "
        "standard deviations relative to its."
    )
    return (
        "Bulk ESS: effective draws of the worst entry, all costs of a run counted (warm-up, search for the start). "
        f"Means over runs, R-hat is the worst. {told}"
    )


def headline(found: Sequence[Sampled]) -> str:
    """Who samples best, in a line."""
    mixed = [each for each in found if each.mixed]
    if not mixed:
        several = [each.label for each in found if each.chains]
        if not several:
            return f"Only approximations of the posterior: {listed([each.label for each in found])}"
        return f"No sampler has mixed within the budget: {listed(several)}"
    rates = [each.rate for each in mixed]
    alike = [each for each in mixed if each.rate * ALIKE >= rates[0]]
    unit = "effective draws per 1,000 simulated steps"
    if len(alike) > 1:
        span = f"{number(alike[-1].rate)} to {number(rates[0])}"
        return f"{listed([each.label for each in alike])} sample best, about alike: {span} {unit}"
    said = f"{mixed[0].label} samples best: {number(rates[0])} {unit}"
    if len(mixed) > 1:
        said += f", {number(rates[0] / rates[1])} times those of {mixed[1].label}"
    return said


def sentences(found: Sequence[Sampled], results: Results) -> list[str]:
    """What supports the headline."""
    told = []
    mixed = [each for each in found if each.mixed]
    if mixed:
        figures = [
            f"{each.label} {number(each.rate)} per 1,000 steps and {number(float(np.mean(each.per_second)))} per second"
            for each in mixed
        ]
        told.append(f"Effective draws of the worst entry: {'; '.join(figures)}.")
    stuck = [each for each in found if each.chains and not each.mixed]
    if stuck:
        parts = [f"{each.label} (R-hat {rhat_words(each.rhat)})" for each in stuck]
        verb = "has" if len(stuck) == 1 else "have"
        told.append(f"{listed(parts)} {verb} not mixed: neither draws nor their number can be relied on.")
    approximations = [each for each in found if not each.chains and each.mean_error is not None]
    if approximations:
        parts = [
            f"{each.label} {_sds(each.mean_error)} (mean) and {_percent(each.sd_error)} (sd), after "
            f"{amount(_steps(results, each.label))} steps"
            for each in approximations
        ]
        told.append(f"At their worst entries approximations are off by: {'; '.join(parts)}.")
    told += [f"{each.label} warns: {each.warning}." for each in found if each.warning and each.mixed]
    return told


def _steps(results: Results, label: str) -> float:
    return float(np.mean([run.record["counts"]["simulated_steps"] for run in _with_draws(results, label)]))


NO_DRAWS = "No strategy left draws of the posterior: the budget is too small for any of them"


def sought(results: Results) -> bool:
    """Whether a posterior was asked for by some strategy that answered."""
    return any(run.answered and run.record.get("seeks_posterior") for run in results.runs)


def silent(results: Results) -> list[str]:
    """Strategies of which no run left draws, although they seek a posterior (and why), or seek none."""
    points: list[str] = []
    told: list[str] = []
    for label in results.labels:
        answered = [run for run in results.of(label) if run.answered]
        if not answered or _with_draws(results, label):
            continue
        if answered[0].record.get("seeks_posterior"):
            told.append(f"{label} left no draws: {answered[0].record['sentence']}{_needed(answered)}")
        else:
            points.append(label)
    if points and len(points) < len(results.labels):
        told.append(
            f"{listed(points)} {'gives' if len(points) == 1 else 'give'} a single point and no posterior."
        )
    return told


def _needed(runs: Sequence[Run]) -> str:
    """What first draws would take: where a budget ended a run, it was spent on the way there."""
    spent = [run.record["counts"]["simulated_steps"] for run in runs if run.status == "budget spent"]
    if not spent:
        return ""
    return (
        f" So {amount(max(spent))} simulated steps do not pay for what comes before its first draw: ten times as many "
        f"({amount(ENOUGH * max(spent))}) may leave some, and a picture to rely on takes more."
    )
