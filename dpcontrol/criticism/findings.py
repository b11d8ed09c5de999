"""What a calibration found: ranks, tests, a verdict in words, pictures."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dpcontrol.criticism.ranks import band_p_value, chi_square, holm, shape_in_words
from dpcontrol.criticism.simulations import Simulation
from dpcontrol.posterior.words import counted, html_table, number, table

RATE = 0.001  # false alarms of a whole calibration
FEWEST = 20  # simulations below which nothing is judged
ENOUGH = 100  # simulations that find a width off by a factor of 2 nearly always
TOLERATED = 0.05  # share of failed runs beyond which a calibration has not passed


@dataclass(frozen=True)
class Quantity:
    """One ranked quantity.

    Attributes:
        name: of the quantity.
        ranks: of the simulations that have one ``(simulations,)``, each ``0 .. ranked``.
        chi_square, band: p-values of the two tests.
        adjusted: the smaller of them, adjusted for the number of all tests (Holm).
        words: what its ranks say of the posterior where they are not uniform; empty elsewhere.
    """

    name: str
    ranks: np.ndarray
    chi_square: float
    band: float
    adjusted: float
    words: str

    @property
    def rejected(self) -> bool:
        """Whether its ranks are not uniform."""
        return self.adjusted < RATE


@dataclass(frozen=True)
class Calibration:
    """What :func:`sbc` found; ``print`` it.

    Attributes:
        problem, strategy: names; ``configuration`` is the strategy with its fields.
        ranked: how many draws of each posterior were ranked.
        wanted: how many simulations were asked for.
        simulations: those that have ended.
    """

    problem: str
    strategy: str
    configuration: str
    ranked: int
    wanted: int
    simulations: tuple[Simulation, ...]

    @property
    def succeeded(self) -> tuple[Simulation, ...]:
        """The simulations with ranks."""
        return tuple(each for each in self.simulations if each.failure is None)

    @property
    def failures(self) -> tuple[Simulation, ...]:
        """The simulations without."""
        return tuple(each for each in self.simulations if each.failure is not None)

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """All ranked quantities with their tests."""
        good = self.succeeded
        if not good:
            return ()
        names = list(good[0].ranks)
        columns = [np.array([each.ranks[name] for each in good]) for name in names]
        chi = [chi_square(ranks, self.ranked) for ranks in columns]
        bands = [band_p_value(ranks, self.ranked) for ranks in columns]
        adjusted = holm(np.array([*chi, *bands])).reshape(2, -1).min(0)
        return tuple(
            Quantity(name, ranks, c, b, float(a), shape_in_words(ranks, self.ranked) if a < RATE else "")
            for name, ranks, c, b, a in zip(names, columns, chi, bands, adjusted, strict=True)
        )

    @property
    def rejected(self) -> tuple[Quantity, ...]:
        """The quantities whose ranks are not uniform."""
        return tuple(each for each in self.quantities if each.rejected)

    @property
    def complete(self) -> bool:
        """Whether all simulations have ended."""
        return len(self.simulations) == self.wanted

    @property
    def passed(self) -> bool:
        """Whether enough simulations ran, few failed, and all ranks are uniform."""
        failing = len(self.failures) / max(1, len(self.simulations))
        return len(self.succeeded) >= FEWEST and failing <= TOLERATED and not self.rejected

    # -- in words ----------------------------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """One paragraph."""
        return " ".join([self._headline(), *self._warnings()])

    def _headline(self) -> str:
        good = len(self.succeeded)
        told = f"{counted(good, 'simulation')} of {self.problem} by {self.strategy}"
        tests = f"{2 * len(self.quantities)} tests at a false-alarm rate of {RATE:g} for all of them together"
        if good < FEWEST:
            return f"{told}: too few to judge by, {FEWEST} are the least."
        few = f" With fewer than {ENOUGH} simulations only gross errors would show." if good < ENOUGH else ""
        if not self.rejected:
            least = min(each.adjusted for each in self.quantities)
            return (
                f"{told}: calibrated. No ranks of {counted(len(self.quantities), 'quantity', 'quantities')} speak "
                f"against it (smallest adjusted p-value {number(least, 2)}, {tests}).{few}"
            )
        wrong = ", ".join(f"{each.name} {each.words}" for each in self.rejected)
        return (
            f"{told}: NOT calibrated. In the draws {wrong} ({tests}). The data were drawn from this problem's own "
            "prior, simulator and noise model, so the strategy does not sample their posterior, or a density is wrong."
        )

    def _warnings(self) -> list[str]:
        found = []
        if self.failures:
            reasons = Counter(each.failure for each in self.failures)
            reason, times = reasons.most_common(1)[0]
            also = "" if times == len(self.failures) else f" ({times} times)"
            found.append(
                f"Warning: {counted(len(self.failures), 'simulation')} failed and have no ranks; most often{also}: "
                f"{reason}"
            )
        if not self.complete:
            found.append(
                f"Warning: {self.wanted - len(self.simulations)} of {self.wanted} were not run; resume it."
            )
        # estimates of an ESS scatter: what is worth much less is meant
        short = sum(each.effective < self.ranked / 2 for each in self.succeeded)
        if short:
            found.append(
                f"Warning: in {counted(short, 'simulation')} the chains were worth less than half of the {self.ranked} "
                "draws that were ranked; ranks pile up at the ends by that alone: take longer chains, or rank fewer."
            )
        redrawn = sum(each.redrawn for each in self.succeeded)
        if redrawn:
            found.append(
                f"{counted(redrawn, 'draw')} of the prior made the simulator fail and were drawn again."
            )
        return found

    def __str__(self) -> str:
        parts = [f"Calibration of {self.problem} by {self.configuration}"]
        if self.quantities:
            parts.append(table(*self._cells()))
        return "\n".join([*parts, f"verdict: {self.verdict}"])

    def _repr_html_(self) -> str:
        import html

        shown = html_table(*self._cells()) if self.quantities else ""
        return f"{shown}<p>{html.escape(self.verdict)}</p>"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = [
            "quantity",
            "mean rank / expected",
            "spread / expected",
            "p, chi-square",
            "p, band",
            "adjusted",
            "",
        ]
        rows = []
        for each in self.quantities:
            u = (each.ranks + 0.5) / (self.ranked + 1)
            spread = math.sqrt(np.square(u - 0.5).mean() * 12 / (1 - (self.ranked + 1.0) ** -2))
            cells = [
                number(value, 2) if value < 0.1 else f"{value:.2f}"
                for value in (each.chi_square, each.band, each.adjusted)
            ]
            rows.append([each.name, f"{2 * u.mean():.2f}", f"{spread:.2f}", *cells, each.words])
        return head, rows

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "problem": self.problem,
            "strategy": self.strategy,
            "configuration": self.configuration,
            "ranked": self.ranked,
            "wanted": self.wanted,
            "passed": self.passed,
            "verdict": self.verdict,
            "rate": RATE,
            "quantities": [
                {**dataclasses.asdict(each), "ranks": each.ranks.tolist(), "rejected": each.rejected}
                for each in self.quantities
            ],
            "failures": [each.failure for each in self.failures],
            "seconds": sum(each.seconds for each in self.simulations),
            "simulated_steps": sum(each.simulated_steps for each in self.simulations),
        }

    # -- pictures ----------------------------------------------------------------------------------------------------

    def plot(self, path: str | Path | None = None) -> Any:
        """Empirical distribution functions of the ranks less the uniform one, with the band that they should keep to.

        Written to ``path`` (PNG, PDF, SVG) if one is given.
        """
        from dpcontrol import plot
        from dpcontrol.criticism.pictures import differences

        figure = differences(self)
        if path is not None:
            plot.write(figure, path)
        return figure

    def figures(self) -> dict[str, Any]:
        """All figures by name: rank differences, rank histograms."""
        from dpcontrol.criticism.pictures import differences, histograms

        return {"rank differences": differences(self), "rank histograms": histograms(self)}
