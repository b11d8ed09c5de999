r"""Performance profiles: the share of all runs and scenes in which a strategy is within a factor of the best.

.. math:: \rho(\tau) = \frac{1}{R S} \left| \{ (r, s) : L_{rs} \le \tau \min_{\text{all}} L_{\cdot s} \} \right|

over the R runs and S scenes of a strategy, the best being the lowest loss that any run of any strategy has in that
scene. A run without an answer is counted and is never near. At :math:`\tau = 1` stands the share of scenes that nobody
did better. Ratios need losses above zero.

Source: E. Dolan, J. More, "Benchmarking optimization software with performance profiles", Math. Program. 91 (2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpcontrol.comparison.records import NOT_RUN, REFUSED, Results
from dpcontrol.comparison.summary import Summary

EQUAL = 1e-6  # relative: who is so near the best is as good


@dataclass(frozen=True)
class Profile:
    """``ratios`` ``(runs x scenes,)`` in ascending order, infinite for runs without an answer."""

    label: str
    ratios: np.ndarray

    def share(self, factor: float) -> float:
        """The share of runs and scenes within a factor of the best."""
        return float(np.mean(self.ratios <= factor * (1 + EQUAL)))


def profiles(results: Results, summaries: Sequence[Summary]) -> list[Profile]:
    """One profile for each strategy that ran, in the summaries' order; none where a loss is not above zero."""
    answered = [run.record["losses"] for run in results.runs if run.answered]
    if not answered:
        return []
    best = np.min(np.asarray(answered, float), axis=0)
    if not (best > 0).all():
        return []
    found = []
    for summary in summaries:
        runs = [run for run in results.of(summary.label) if run.status not in (REFUSED, NOT_RUN)]
        rows = [
            np.asarray(run.record["losses"], float) / best if run.answered else np.full(len(best), np.inf)
            for run in runs
        ]
        if rows:
            found.append(Profile(summary.label, np.sort(np.concatenate(rows))))
    return found
