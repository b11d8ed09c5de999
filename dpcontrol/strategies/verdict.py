"""One status for a run of many separate searches."""

from __future__ import annotations

from dataclasses import dataclass

from dpcontrol.meter import Meter
from dpcontrol.problem.diagnosis import diagnose
from dpcontrol.results import Status


class NotFinite(Exception):
    """A loss or gradient that is not finite ends its search."""


@dataclass(frozen=True)
class Ended:
    """How one search ended, as a kind of :class:`~dpcontrol.results.Status`."""

    kind: str


SENTENCES = {
    "converged": "the tolerances were met",
    "iterations spent": "the iterations were spent; more of them may lower the loss",
    "stalled": "the line search found no lower loss: the rounding floor, or a kink; if early, try adjoint",
    "diverged": "a loss or gradient was not finite; shorter time steps, bounds, or a smaller start guess may help",
}


def summary(ended: list[Ended], meter: Meter) -> Status:
    """The worst of what happened, with numbers where the searches differ."""
    kinds = [each.kind for each in ended]
    worst = max(kinds, key=list(SENTENCES).index)
    if worst == "stalled" and kinds.count("stalled") < len(kinds):
        # a few searches that end at the rounding floor are no failure of the whole
        worst = max((kind for kind in kinds if kind != "stalled"), key=list(SENTENCES).index)
    count = kinds.count(worst)
    share = "" if len(kinds) == 1 else f"{count} of {len(kinds)} searches: "
    where = f" ({diagnose(meter.problem, meter.best_value())})" if worst == "diverged" else ""
    return Status(worst, f"{share}{SENTENCES[worst]}{where}.")
