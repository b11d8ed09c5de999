"""The tables of a comparison as plain values, for records and for other programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dpcontrol.comparison import costs, pricing
from dpcontrol.comparison.profiles import profiles
from dpcontrol.comparison.records import Results
from dpcontrol.comparison.stats import Estimate
from dpcontrol.comparison.summary import Summary


def overview(results: Results, summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """One dict for each strategy, best first; ``None`` for what there is not, or what is never reached."""
    shares = {each.label: each for each in profiles(results, summaries)}
    even = {each.controller: each for each in costs.break_even(results, summaries)}
    found = []
    for summary in summaries:
        near, pays = costs.reached(results, summary.label), even.get(summary.label)
        profile = shares.get(summary.label)
        found.append(
            {
                "strategy": summary.label,
                "family": summary.family,
                "loss": _estimate(summary.loss),
                "seeds_alone": _ends(summary.luck),
                "metrics": {name: _estimate(value) for name, value in summary.metrics.items()},
                "runs": {"asked": summary.asked, "answered": summary.answered, "failed": summary.failed},
                "statuses": dict(summary.statuses),
                "refused": summary.refused,
                "simulated_steps": summary.simulated_steps,
                "gradients": summary.gradients,
                "seconds": summary.seconds,
                "to_near_best": {"simulated_steps": near.steps, "seconds": near.seconds, "runs": near.runs},
                "decision": {
                    "kind": costs.kind_of(results, summary.label),
                    "seconds": costs.decision_seconds(results, summary.label),
                },
                "breaks_even": None
                if pays is None
                else {
                    "against": pays.solver,
                    "scenes": _finite(pays.steps),
                    "scenes_by_seconds": _finite(pays.seconds),
                    "equal_quality": pays.equal,
                },
                "share_best": None if profile is None else profile.share(1.0),
                "share_within_twice": None if profile is None else profile.share(pricing.TWICE),
                "tuning_trials": pricing.trials_of(results, summary.label),
            }
        )
    return found


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else {"value": found.value, "interval": _ends(found), "over": found.over}


def _ends(found: Estimate | None) -> list[float] | None:
    return None if found is None or found.interval is None else list(found.interval)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
