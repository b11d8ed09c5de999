"""``stress_test``: where in its prior does a problem's simulator fail, and how?"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.criticism.quantities import free_rows, quantities
from dpcontrol.meter import Meter
from dpcontrol.posterior.words import counted, number, table
from dpcontrol.problem.base import Problem, View
from dpcontrol.problem.diagnosis import diagnose
from dpcontrol.problem.predicting import draw_prior
from dpcontrol.results import SimulationFailed, UsageError

NUMBERS_AT_ONCE = 2**23  # entries of the states of all draws of a batch over all steps
EXPLAINED = 5  # failing draws that are followed step by step
TOLERATED = 0.05  # share of failing draws beyond which the prior is called too wide for the simulator
TELLING = 0.75  # how well a parameter alone tells failing draws from the others before it is named


@dataclass(frozen=True)
class Failure:
    """A draw of the prior that failed.

    Attributes:
        draw: which one.
        what: ``density`` (the log-density is not finite), ``gradient`` (it is, but its gradient is not), or ``raised``
            (an exception).
        sentence: at which step, in which field; empty for failures that were only counted.
    """

    draw: int
    what: str
    sentence: str = ""


@dataclass(frozen=True)
class Region:
    """Where one quantity lies among all draws and among those that failed: quantiles of 5, 50 and 95 %.

    ``above`` is the share of pairs (a failing draw, a draw that ran) in which the failing one is larger: 0.5 says
    nothing, 0 or 1 that this quantity alone tells them apart.
    """

    name: str
    everywhere: tuple[float, float, float]
    failing: tuple[float, float, float]
    above: float


@dataclass(frozen=True)
class StressTest:
    """What :func:`stress_test` found; ``print`` it.

    Attributes:
        problem: its name.
        draws: how many draws of the prior were tried.
        gradients: whether gradients were tried as well.
        failures: the failing draws.
        regions: where they lie, the most telling quantity first; empty where none failed or all did.
        seconds: wall time of all runs; ``share``, the part of it that went into failing draws.
    """

    problem: str
    draws: int
    gradients: bool
    failures: tuple[Failure, ...]
    regions: tuple[Region, ...]
    seconds: float
    share: float

    @property
    def failing(self) -> float:
        """The share of draws that failed."""
        return len(self.failures) / self.draws

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the probability that a draw of the prior fails (Clopper and Pearson)."""
        from scipy.stats import beta

        bad = len(self.failures)
        low = float(beta.ppf(0.025, bad, self.draws - bad + 1)) if bad else 0.0
        high = float(beta.ppf(0.975, bad + 1, self.draws - bad)) if bad < self.draws else 1.0
        return low, high

    @property
    def passed(self) -> bool:
        """Whether at most one draw in twenty failed, and none by an exception."""
        return self.failing <= TOLERATED and not any(each.what == "raised" for each in self.failures)

    @property
    def verdict(self) -> str:
        """One paragraph."""
        asked = "log-density and gradient" if self.gradients else "log-density"
        spent = f"{number(1e3 * self.seconds / self.draws)} ms a draw"
        if not self.failures:
            return (
                f"all {self.draws} draws of the prior gave a finite {asked} ({spent}): with 95 % confidence less than "
                f"{number(100 * self.interval[1], 2)} % of the prior fails."
            )
        failing, share = number(100 * self.failing, 2), number(100 * self.share, 2)
        low, high = (100 * end for end in self.interval)
        told = (
            f"{len(self.failures)} of {counted(self.draws, 'draw')} of the prior failed ({failing} %, 95 % interval "
            f"{number(low, 2)} to {number(high, 2)} %), at {share} % of the time ({spent})."
        )
        return f"{told}{self._where()} {self._remedy()}"

    def _where(self) -> str:
        if not self.regions or abs(self.regions[0].above - 0.5) < TELLING - 0.5:
            return ""
        first = self.regions[0]
        return f" They lie where {first.name} is {'large' if first.above > 0.5 else 'small'}."

    def _remedy(self) -> str:
        if any(each.what == "raised" for each in self.failures):
            return (
                "Samplers take what raises as density zero, but searches and batches of draws end there: return "
                "numbers that are not finite instead, torch.where(ok, x, nan)."
            )
        if self.passed:
            return "Samplers take them as density zero and live; the posterior is that of the prior without them."
        return (
            "Samplers would live, but walk into walls, and the prior that they see is another one: cut it "
            "(TruncatedNormal) to where the system makes sense, or take a smaller dt or a more stable scheme."
        )

    def __str__(self) -> str:
        lines = [f"Stress test of {self.problem}"]
        if self.regions:
            lines.append(table(*self._cells()))
        said: dict[str, list[int]] = {}
        for each in self.failures:
            if each.sentence:
                said.setdefault(f"({each.what}): {each.sentence}", []).append(each.draw)
        for words, draws in said.items():
            lines.append(f"{'draw' if len(draws) == 1 else 'draws'} {', '.join(map(str, draws))} {words}")
        return "\n".join([*lines, f"verdict: {self.verdict}"])

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["", "all draws: 5 %", "50 %", "95 %", "failing: 5 %", "50 %", "95 %", "larger"]
        rows = [
            [
                region.name,
                *(number(value) for value in (*region.everywhere, *region.failing)),
                f"{100 * region.above:.0f} %",
            ]
            for region in self.regions
        ]
        return head, rows

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = dataclasses.asdict(self)
        return {**found, "failing": self.failing, "passed": self.passed, "verdict": self.verdict}


def stress_test(problem: Problem, n: int = 200, *, seed: int = 0) -> StressTest:
    """Run ``n`` draws of the prior, value and gradient, and say which of them fail and where.

    A draw fails where its log-density or the gradient of that is not finite, or where the simulator raises. Draws run
    in batches; each of the first few that failed is followed step by step, to the step and the field where it began.

    Args:
        problem: posed with a prior.
        n: how many draws.
        seed: of the draws.

    Raises:
        UsageError: without a prior, or for a wrong ``n``.
    """
    if not isinstance(problem, Problem):
        raise UsageError(f"stress_test needs a Problem; found {type(problem).__name__}: pose one first.")
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UsageError(f"n must be a number of draws, 1 or more; found {n!r}.")
    generator = torch.Generator().manual_seed(seed)
    draws = [draw_prior(problem, generator) for _ in range(n)]
    free = free_rows(problem, draws)
    meter = Meter(dataclasses.replace(problem, joint=True))
    gradients = View.GRADIENT in problem.offers
    found: list[Failure] = []
    seconds, wasted, first = 0.0, 0.0, 0
    for batch in free.split(_together(problem)):
        began = time.perf_counter()
        failed = _failing(meter, batch, gradients)
        spent = time.perf_counter() - began
        seconds, wasted = seconds + spent, wasted + spent * len(failed) / len(batch)
        found += [dataclasses.replace(each, draw=first + each.draw) for each in failed]
        first += len(batch)
    explained = [_explained(problem, draws[each.draw], each) for each in found[:EXPLAINED]]
    regions = _regions(quantities(problem, free), np.array([each.draw for each in found], dtype=int))
    share = wasted / seconds if seconds > 0 else 0.0
    failures = (*explained, *found[EXPLAINED:])
    return StressTest(problem.name, n, gradients, failures, tuple(regions), seconds, share)


def _together(problem: Problem) -> int:
    """How many draws run as one batch."""
    state = problem.scenarios.data["initial_state"]
    entries = sum(leaf.numel() for leaf in tree.leaves(state)) * (problem.horizon + 1)
    return int(min(64, max(1, NUMBERS_AT_ONCE // max(1, entries))))


def _failing(meter: Meter, batch: Tensor, gradients: bool) -> list[Failure]:
    """The failing draws of a batch, numbered inside it; one by one where the batch raises."""
    meter.ledger.crash = ""
    try:
        found = list(_not_finite(meter, batch, gradients))
        if not meter.ledger.crash:
            return found
        if len(batch) == 1:
            return [Failure(0, "raised", meter.ledger.crash)]
    except Exception as error:  # of anybody's step: it becomes a line of the report
        if len(batch) == 1:
            return [Failure(0, "raised", f"{type(error).__name__}: {_first_line(error)}")]
    found = []
    for k, row in enumerate(batch):
        found += [dataclasses.replace(each, draw=k) for each in _failing(meter, row[None], gradients)]
    return found


def _not_finite(meter: Meter, batch: Tensor, gradients: bool) -> Iterator[Failure]:
    ask = meter.log_densities_and_gradients if gradients else meter.log_densities
    answer = ask(batch)
    densities = answer[0] if isinstance(answer, tuple) else answer
    bad = torch.nonzero(~torch.isfinite(densities)).flatten()
    if not len(bad):
        return
    alone = meter.log_densities(batch[bad]) if gradients else densities[bad]
    for k, value in zip(bad.tolist(), alone.tolist(), strict=True):
        yield Failure(k, "gradient" if math.isfinite(value) else "density")


def _explained(problem: Problem, z: dict[str, tree.Tree], failure: Failure) -> Failure:
    if failure.sentence:
        return failure
    try:
        said = diagnose(problem, z)
    except SimulationFailed as error:
        said = _first_line(error)
    nowhere = "nothing was found step by step: it fails in a batch of draws only."
    return dataclasses.replace(failure, sentence=said or nowhere)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _regions(values: dict[str, np.ndarray], failed: np.ndarray) -> list[Region]:
    from scipy.stats import rankdata

    count = len(next(iter(values.values())))
    bad, good = len(failed), count - len(failed)
    if bad == 0 or good == 0:
        return []
    found = []
    for name, column in values.items():
        ranks = rankdata(column)[failed]
        above = float((ranks.sum() - bad * (bad + 1) / 2) / (bad * good))
        found.append(Region(name, _quantiles(column), _quantiles(column[failed]), above))
    return sorted(found, key=lambda region: -abs(region.above - 0.5))


def _quantiles(column: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = (float(value) for value in np.quantile(column, [0.05, 0.5, 0.95]))
    return low, middle, high
