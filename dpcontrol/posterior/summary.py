"""A posterior in numbers: a table of moments, quantiles and diagnostics, entry by entry or field by field."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpcontrol.posterior.diagnostics import Mixing, energy_mixing, mixing
from dpcontrol.posterior.draws import Draws
from dpcontrol.posterior.words import counted, html_table, number, rhat_words, table

QUANTILES = (0.05, 0.5, 0.95)
FEW = 16  # a site with more entries than these is a field: one row, with its worst entry
EXAMINED = 512  # of a field so many entries, evenly spaced, get diagnostics (a millisecond each)
LOG_DENSITY = "log density"
LONGEST = 1023  # leapfrogs of a trajectory of NUTS that doubled ten times
CHUNK = 2**23  # numbers that are sorted at a time


@dataclass(frozen=True)
class SiteSummary:
    """One site in numbers; arrays have the site's shape ``(...)``.

    Attributes:
        name: of the site.
        mean, sd: moments.
        quantiles: ``(3, ...)``, of 5, 50 and 95 %.
        examined: the entries (as a flat index) that ``mixing`` is about: all of them, or some of a field.
        mixing: diagnostics, arrays ``(len(examined),)``; ``None`` where draws are not chains.
        labels: names of the entries, such as ``rates[3]``; of a field a single one.
    """

    name: str
    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray
    examined: np.ndarray
    mixing: Mixing | None
    labels: tuple[str, ...]

    @property
    def is_field(self) -> bool:
        """Whether it is shown as one row."""
        return len(self.labels) != self.mean.size

    def label_of(self, entry: int) -> str:
        """The name of the entry that is ``entry``-th among the examined."""
        place = int(self.examined[entry])
        if not self.is_field:
            return self.labels[place]
        index = np.unravel_index(place, self.mean.shape)
        said = ", ".join(str(int(k)) for k, size in zip(index, self.mean.shape, strict=True) if size > 1)
        return f"{self.name}[{said}]"


@dataclass(frozen=True)
class Worst:
    """The worst value of a diagnostic, and where it is."""

    value: float
    where: str

    def __str__(self) -> str:
        return f"{number(self.value, 4)} ({self.where})"


@dataclass(frozen=True)
class Summary:
    """A posterior in numbers; ``print`` it, or let a notebook show it. Made by :meth:`Posterior.summary`.

    Attributes:
        kind: of the draws (see :class:`~dpcontrol.posterior.draws.Draws`).
        chains, draws: how many chains, and draws of each.
        sites: by name, the log-density last.
        divergences: transitions that diverged; ``None`` where the method has no such thing.
        energy_mixing: E-BFMI of each chain, or ``None``.
        acceptance: mean acceptance probability, or ``None``.
        evaluations: of gradients (of densities, without gradients) for each draw, mean, or ``None``.
        saturated: share of transitions with ``LONGEST`` leapfrogs or more, or ``None``.
        weights_shape: Pareto k of an approximation's importance weights, or ``None`` where they are not known.
    """

    kind: str
    chains: int
    draws: int
    sites: Mapping[str, SiteSummary]
    divergences: int | None
    energy_mixing: np.ndarray | None
    acceptance: float | None
    evaluations: float | None = None
    saturated: float | None = None
    weights_shape: float | None = None

    @property
    def worst_rhat(self) -> Worst:
        """The largest R-hat; NaN where draws are not chains, or are too few."""
        return self._worst("rhat", largest=True)

    @property
    def worst_bulk(self) -> Worst:
        """The smallest effective sample size of the bulk."""
        return self._worst("ess_bulk", largest=False)

    @property
    def worst_tail(self) -> Worst:
        """The smallest effective sample size of the tails."""
        return self._worst("ess_tail", largest=False)

    def _worst(self, name: str, *, largest: bool) -> Worst:
        found = Worst(float("nan"), "nowhere")
        for site in self.sites.values():
            if site.mixing is None:
                continue
            values = getattr(site.mixing, name)
            place = int(np.argmax(values) if largest else np.argmin(values))
            value = float(values[place])
            if found.value != found.value or (value > found.value) == largest:
                found = Worst(value, site.label_of(place))
        return found

    # -- shown -----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        head, rows = self._cells()
        return f"{table(head, rows)}\n{self.footer()}"

    def _repr_html_(self) -> str:
        import html

        head, rows = self._cells()
        return f"{html_table(head, rows)}<p>{html.escape(self.footer())}</p>"

    def footer(self) -> str:
        """What the numbers are of, in a line or two."""
        total = f"{counted(self.chains * self.draws, 'draw')}"
        words = {
            "mcmc": f"{counted(self.chains, 'chain')} of {counted(self.draws, 'draw')}; R-hat, bulk and tail ESS are "
            "rank-normalised, se is the Monte Carlo standard error of the mean.",
            "independent": f"{total}, independent ones of an approximation; se is the Monte Carlo standard error of "
            "the approximation's mean.",
            "ensemble": f"{counted(self.chains * self.draws, 'particle')} of an ensemble, which approximates.",
        }[self.kind]
        if self.acceptance is not None:
            words += f" Mean acceptance {number(self.acceptance, 2)}"
            words += (
                "."
                if self.evaluations is None
                else f", {number(self.evaluations)} evaluations for each draw."
            )
        fields = [site for site in self.sites.values() if site.is_field]
        if fields:
            words += " Of fields the ranges over all entries are shown"
            some = [
                site for site in fields if site.mixing is not None and len(site.examined) < site.mean.size
            ]
            words += ", and the worst R-hat, ESS and se" if self.kind == "mcmc" else ""
            words += f" ({len(some[0].examined)} entries, evenly spaced, were examined)." if some else "."
        return words

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["", "mean", "sd", *(f"{100 * q:g} %" for q in QUANTILES)]
        head += {"mcmc": ["se", "R-hat", "bulk ESS", "tail ESS"], "independent": ["se"], "ensemble": []}[
            self.kind
        ]
        rows: list[list[str]] = []
        for site in self.sites.values():
            rows += [self._field_row(site)] if site.is_field else self._entry_rows(site)
        return head, rows

    def _entry_rows(self, site: SiteSummary) -> list[list[str]]:
        flat = [site.mean.ravel(), site.sd.ravel(), *site.quantiles.reshape(len(QUANTILES), -1)]
        rows = []
        for k, label in enumerate(site.labels):
            digits = _digits(float(flat[0][k]), float(flat[1][k]))
            cells = [
                number(float(column[k]), 3 if place == 1 else digits) for place, column in enumerate(flat)
            ]
            rows.append([label, *cells, *self._mixing_cells(site, [k])])
        return rows

    def _field_row(self, site: SiteSummary) -> list[str]:
        columns = [site.mean, site.sd, *site.quantiles]
        spans = [f"{number(float(c.min()))} … {number(float(c.max()))}" for c in columns]
        return [site.labels[0], *spans, *self._mixing_cells(site, slice(None))]

    def _mixing_cells(self, site: SiteSummary, which: Sequence[int] | slice) -> list[str]:
        if self.kind == "independent":
            chosen = site.sd.ravel()[which]
            return [number(float(chosen.max()) / np.sqrt(self.chains * self.draws), 2)]
        if site.mixing is None:
            return []
        found = site.mixing
        return [
            number(float(found.mcse_mean[which].max()), 2),
            rhat_words(float(found.rhat[which].max())),
            number(float(found.ess_bulk[which].min()), 3),
            number(float(found.ess_tail[which].min()), 3),
        ]


def _digits(mean: float, sd: float) -> int:
    """Digits of a mean that say as much as two of its sd."""
    if not (sd > 0 and abs(mean) > 0):
        return 3
    return int(min(7, max(3, np.floor(np.log10(abs(mean))) - np.floor(np.log10(sd)) + 2)))


def summarise(
    draws: Draws,
    values: Mapping[str, np.ndarray],
    names: Sequence[str] = (),
    *,
    few: int = FEW,
    weights_shape: float | None = None,
) -> Summary:
    """The summary of draws with their natural numbers.

    Args:
        draws: of the posterior.
        values: site -> ``(chains, draws, ...)``.
        names: of the entries of a state's last axis.
        few: a site with more entries is one row.
        weights_shape: Pareto k, where importance weights are known.
    """
    everything = {**values, LOG_DENSITY: draws.log_density.numpy()}
    chains = draws.kind == "mcmc"
    return Summary(
        kind=draws.kind,
        chains=draws.chains,
        draws=draws.count,
        sites={name: _site(name, found, names, few, chains) for name, found in everything.items()},
        divergences=None if draws.divergent is None else draws.divergences,
        energy_mixing=None if draws.energy is None else energy_mixing(draws.energy.numpy()),
        acceptance=None if draws.accepted is None else float(draws.accepted.mean()),
        evaluations=None if draws.steps is None else float(draws.steps.double().mean()),
        saturated=None
        if draws.steps is None or draws.energy is None
        else float((draws.steps >= LONGEST).double().mean()),
        weights_shape=weights_shape,
    )


def _site(name: str, values: np.ndarray, names: Sequence[str], few: int, chains: bool) -> SiteSummary:
    shape = values.shape[2:]
    flat = values.reshape(-1, int(np.prod(shape)))
    entries = flat.shape[1]
    step = max(1, CHUNK // len(flat))
    # an approximation may have draws of density zero, whose log-density is -inf
    with np.errstate(invalid="ignore"):
        quantiles = np.concatenate(
            [np.quantile(flat[:, k : k + step], QUANTILES, axis=0) for k in range(0, entries, step)], axis=1
        )
        mean, sd = flat.mean(0), flat.std(0, ddof=min(1, len(flat) - 1))
    examined = np.unique(np.linspace(0, entries - 1, min(entries, EXAMINED)).round().astype(int))
    columns = values.reshape(*values.shape[:2], entries)
    labels = entry_labels(name, shape, names) if entries <= few else (f"{name} ({entries:,} entries)",)
    return SiteSummary(
        name=name,
        mean=mean.reshape(shape),
        sd=sd.reshape(shape),
        quantiles=quantiles.reshape(len(QUANTILES), *shape),
        examined=examined,
        mixing=mixing(columns[:, :, examined]) if chains else None,
        labels=labels,
    )


def entry_labels(name: str, shape: Sequence[int], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of all entries: ``rates[3]``; axes with one entry are left out, and a state's entries have their names."""
    own = name.startswith("initial_state") and len(shape) > 0 and len(names) == shape[-1]
    axes = [[str(k) for k in range(size)] if size > 1 else [""] for size in shape]
    if own:
        axes[-1] = list(names)
    found = []
    for index in itertools.product(*axes):
        said = ", ".join(part for part in index if part)
        found.append(f"{name}[{said}]" if said else name)
    return tuple(found)
