"""What is asked of a sampler of scenarios before anything is trained on what it draws."""

from __future__ import annotations

import torch

from dpcontrol import tree
from dpcontrol.problem.scenarios import Scenarios, unlike
from dpcontrol.results import UsageError


def require_distribution(scenarios: Scenarios) -> None:
    """Ask the sampler of scenarios, if there is one, for a few of them, twice from equal generators.

    It is asked where draws are needed, rather than where a problem is posed: a draw may cost a simulation.

    Raises:
        UsageError: if it fails, or draws another number of scenarios, other shapes, another dtype or device than the
            problem's own, numbers that are not finite, or two different sets.
    """
    if scenarios.sampler is None:
        return
    count = 3 if scenarios.count == 2 else 2  # another number than that of the problem's own
    first, second = _drawn(scenarios, count), _drawn(scenarios, count)
    for name, own in scenarios.data.items():
        drawn, again = first.data[name], second.data[name]
        pairs = list(zip(tree.leaves(drawn), tree.leaves(own), strict=True))
        if any(leaf.shape[1:] != mine.shape[1:] for leaf, mine in pairs):
            raise UsageError(unlike(name, drawn, own, count))
        if not bool(tree.all_finite(drawn)):
            raise UsageError(
                f"the sampler of scenarios drew numbers for {name} that are not finite; look for a logarithm, a root "
                "or a division out of its range."
            )
        if any(not torch.equal(a, b) for a, b in zip(tree.leaves(drawn), tree.leaves(again), strict=True)):
            raise UsageError(
                f"the sampler of scenarios drew two different {name} from equal generators; draw all that is random "
                "from the generator that it is given, as in torch.rand(n, generator=generator)."
            )


def _drawn(scenarios: Scenarios, count: int) -> Scenarios:
    return scenarios.draw(torch.Generator().manual_seed(0), count)
