"""What the diagnostics of a posterior mean, in words, with a remedy for each trouble."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dpcontrol.posterior.summary import LONGEST, Summary
from dpcontrol.posterior.words import counted, number, rhat_words
from dpcontrol.results import Status

RHAT, ESS, ENERGY, PARETO = 1.01, 400.0, 0.3, 0.7
HOPELESS = 1.1  # an R-hat beyond which means and sds are those of the start rather than of the posterior
SATURATED = 0.01  # share of transitions as long as they may be
FEWEST = 100  # draws of a chain below which diagnostics are noise


@dataclass(frozen=True)
class Trouble:
    """Something wrong with the draws, in a few words, and what to do about it in a sentence."""

    words: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.words}. {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """What can be said of a posterior's draws.

    Attributes:
        headline: one sentence.
        troubles: what is wrong, the worst first.
        approximate: whether the draws are those of an approximation, whose error is not known.
        mixed: whether nothing speaks against the chains having converged (``None``: they are no chains).
    """

    headline: str
    troubles: tuple[Trouble, ...]
    approximate: bool
    mixed: bool | None

    @property
    def good(self) -> bool:
        """Whether there is nothing to warn of."""
        return not self.troubles

    @property
    def warning(self) -> str:
        """The troubles in one line, without remedies, for pictures and tables; empty where there are none."""
        return "; ".join(trouble.words for trouble in self.troubles)

    @property
    def sentence(self) -> str:
        """Everything in one paragraph."""
        return " ".join([self.headline, *(f"Warning: {trouble}" for trouble in self.troubles)])

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"! {trouble}" for trouble in self.troubles)])

    def _repr_html_(self) -> str:
        import html

        alarms = "".join(
            f'<p style="color:#b3402a"><b>{html.escape(each.words)}.</b> {html.escape(each.remedy)}</p>'
            for each in self.troubles
        )
        return f"<p>{html.escape(self.headline)}</p>{alarms}"

    def on(self, status: Status) -> Status:
        """A run's status with this verdict: whose chains have not mixed is not called converged."""
        kind = "iterations spent" if status.kind == "converged" and self.mixed is False else status.kind
        return Status(kind, f"{status.sentence} {self.sentence}")


def judge(summary: Summary) -> Verdict:
    """The verdict on a posterior; see :meth:`Posterior.verdict`."""
    return {"mcmc": _chains, "independent": _approximation, "ensemble": _ensemble}[summary.kind](summary)


def plain(summary: Summary) -> dict[str, Any]:
    """The worst diagnostics and the verdict as plain values, for records."""
    verdict = judge(summary)
    return {
        "kind": summary.kind,
        "chains": summary.chains,
        "draws": summary.draws,
        "rhat": summary.worst_rhat.value,
        "ess_bulk": summary.worst_bulk.value,
        "ess_tail": summary.worst_tail.value,
        "divergences": summary.divergences,
        "good": verdict.good,
        "sentence": verdict.sentence,
        "warning": verdict.warning,
    }


def _chains(summary: Summary) -> Verdict:
    told = f"{counted(summary.chains, 'chain')} of {counted(summary.draws, 'draw')}"
    slow = _mixing(summary)
    troubles = [*slow, *_geometry(summary)]
    rhat, bulk, tail = summary.worst_rhat, summary.worst_bulk, summary.worst_tail
    figures = (
        f"worst R-hat {rhat_words(rhat.value)}, bulk ESS {number(bulk.value)}, tail ESS {number(tail.value)}"
    )
    if summary.divergences is not None:
        figures += (
            f", {counted(summary.divergences, 'divergence') if summary.divergences else 'no divergences'}"
        )
    verb = "have" if summary.chains > 1 else "has"
    verb = f"{verb} not mixed well enough" if slow else f"{verb} mixed"
    return Verdict(f"{told} {verb}: {figures}.", tuple(troubles), False, not slow)


def _mixing(summary: Summary) -> list[Trouble]:
    if summary.draws < FEWEST:
        few = f"only {counted(summary.draws, 'draw')} of each chain, too few to judge them"
        return [Trouble(few, f"Let every chain draw {FEWEST} times or more (a larger budget or draws=...).")]
    found = []
    rhat, bulk, tail = summary.worst_rhat, summary.worst_bulk, summary.worst_tail
    if math.isinf(rhat.value):
        found.append(
            Trouble(
                f"{rhat.where} never moved", "Every step was refused: begin elsewhere, or with smaller steps."
            )
        )
    elif rhat.value > HOPELESS:
        remedy = (
            "Do not use these means and sds. Look at the traces: chains that drift need a longer warm-up, chains that "
            "stay apart have found several modes, which a stronger prior or more data tells apart."
        )
        found.append(Trouble(f"R-hat {rhat_words(rhat.value)} at {rhat.where}: the chains disagree", remedy))
    elif rhat.value > RHAT:
        words = f"R-hat {rhat_words(rhat.value)} at {rhat.where}, above {RHAT}"
        found.append(Trouble(words, "Draw more, after a longer warm-up."))
    for name, worst in (("bulk", bulk), ("tail", tail)):
        if worst.value < ESS and not math.isinf(rhat.value):
            more = ESS / max(worst.value, 1.0)
            of = "means and medians" if name == "bulk" else "outer quantiles and sds"
            words = f"{name} ESS {number(worst.value)} at {worst.where}, below {ESS:.0f}"
            found.append(Trouble(words, f"Draw {_times(more)} before you rely on {of}."))
    if summary.chains == 1:
        found.append(
            Trouble(
                "a single chain",
                "It cannot show a mode that it never met: run four (chains=4) from dispersed starts.",
            )
        )
    return found


def _geometry(summary: Summary) -> list[Trouble]:
    found = []
    if summary.divergences:
        total = summary.chains * summary.draws
        share = number(100 * summary.divergences / total, 2)
        words = f"{counted(summary.divergences, 'transition')} diverged ({share} %)"
        remedy = (
            "The posterior is missed where it is most curved: ask for smaller steps (target_acceptance=0.95), or "
            "give the prior in a form in which scales do not depend on each other; pairs show where they lie."
        )
        found.append(Trouble(words, remedy))
    if summary.saturated is not None and summary.saturated > SATURATED:
        share = number(100 * summary.saturated, 2)
        words = f"{share} % of the transitions went on for {LONGEST:,} leapfrogs or more"
        remedy = (
            "Steps are tiny beside the posterior's width: a longer warm-up, or another parametrisation; depth=12 lets "
            "them go on."
        )
        found.append(Trouble(words, remedy))
    known = [
        each for each in (() if summary.energy_mixing is None else summary.energy_mixing) if each == each
    ]
    if (mixing := min(known, default=math.inf)) < ENERGY:
        words = f"E-BFMI {number(float(mixing), 2)}, below {ENERGY}"
        remedy = "Energies are explored slowly, so tails may be missed: a longer warm-up, or another parametrisation."
        found.append(Trouble(words, remedy))
    return found


def _approximation(summary: Summary) -> Verdict:
    told = f"An approximation, {counted(summary.chains * summary.draws, 'independent draw')} of it"
    k = summary.weights_shape
    if k is None:
        headline = (
            f"{told}: how far it is from the posterior was not checked. It sees one mode and no skewness beyond "
            "that of the parametrisation; nuts, pcn or metropolis would tell."
        )
        return Verdict(headline, (), True, None)
    if k == -math.inf:
        return Verdict(
            f"{told}: all importance weights are equal, so it is the posterior itself.", (), True, None
        )
    if k <= PARETO:
        headline = (
            f"{told}: importance weights between it and the posterior are tame (Pareto k {k:.2f}, below "
            f"{PARETO}), so it covers the posterior about its mode; moments may still be off by a part of an sd. Modes "
            "that it never met were not checked."
        )
        return Verdict(headline, (), True, None)
    remedy = "Its means may hold, its sds and tails do not: sample with nuts, or use a richer family."
    words = f"Pareto k {k:.2f} of the importance weights, above {PARETO}: it misses much of the posterior"
    return Verdict(f"{told}.", (Trouble(words, remedy),), True, None)


def _ensemble(summary: Summary) -> Verdict:
    headline = (
        f"An approximation, an ensemble of {counted(summary.chains * summary.draws, 'particle')}: exact for linear "
        "models with Gaussian prior and noise, and more particles than unknowns. Nothing was checked; elsewhere it is "
        "a guess at mean and covariance, and small ensembles tend to be too narrow."
    )
    return Verdict(headline, (), True, None)


def _times(factor: float) -> str:
    if factor <= 1.25:
        return "a little more"
    if factor <= 2:
        return "twice as much"
    return f"about {factor:.0f} times as much" if factor < 100 else "a hundred times as much or more"
