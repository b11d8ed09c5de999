"""One status for a run of many separate searches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.results import Status


class NotFinite(Exception):
    """A loss or gradient that is not finite ends its search."""


@dataclass(frozen=True)
class Ended:
    """How one search ended, as a kind of :class:`~dpcontrol.results.Status`; ``why`` in the words of its method."""

    kind: str
    why: str | None = None


SENTENCES = {
    "converged": "the tolerances were met",
    "iterations spent": "the iterations were spent; more of them may lower the loss",
    "stalled": "no lower loss was found; try another strategy",
    "diverged": "a loss or gradient was not finite; shorter time steps, bounds, or a smaller start guess may help",
}


def summary(ended: list[Ended]) -> Status:
    """The worst of what happened, with the number of searches of each kind where there are several."""
    kinds = [each.kind for each in ended]
    order = list(SENTENCES)
    worst = max(kinds, key=order.index)
    if worst == "stalled" and kinds.count("stalled") < len(kinds):
        # a few searches that end at a kink are no failure of the whole
        worst = max((kind for kind in kinds if kind != "stalled"), key=order.index)
    reasons = Counter(each.why or SENTENCES[worst] for each in ended if each.kind == worst)
    why = reasons.most_common(1)[0][0]
    if len(kinds) == 1:
        return Status(worst, f"{why}.")
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in order if kind in kinds)
    return Status(worst, f"{counts} of {len(kinds)} searches ({worst}: {why}).")


def progressed(first: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether losses went from ``before`` to ``after`` by more than what is left of a search's tail, ``(n,)``.

    That is a millionth of the loss, or 1e-10 of all that was gained since the ``first`` loss where it nears zero.
    """
    gained = torch.where(torch.isfinite(first), first - after, torch.zeros_like(after))
    return before - after > torch.maximum(1e-6 * after.abs(), 1e-10 * gained)
