"""Where a run stopped being finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.tree import Tree


def diagnose(problem: Problem, z: Mapping[str, Tree]) -> str:
    """One sentence that names the first step, field and scenario that are not finite, and the size of things before."""
    with torch.no_grad():
        trajectory = problem.simulate(z, plant=False)
        losses = problem.loss(z)
    for k in range(trajectory.horizon + 1):
        for path, leaf in tree.named_leaves(trajectory.states):
            bad = ~torch.isfinite(leaf[k]).reshape(leaf.shape[1], -1).all(1)
            if bool(bad.any()):
                scenario = int(torch.nonzero(bad)[0])
                size = max(
                    float(x[max(k - 1, 0), scenario].abs().max()) for x in tree.leaves(trajectory.states)
                )
                return (
                    f"state{path} is not finite from step {k} in scenario {scenario}; the largest value one step "
                    f"before was {size:.3g}. Take shorter steps, or bound what is sought."
                )
    bad = ~torch.isfinite(losses)
    if bool(bad.any()):
        scenario = int(torch.nonzero(bad)[0])
        return f"all states are finite, but the loss of scenario {scenario} is not: look at the cost's last terms."
    return "states and losses are finite, but a gradient is not: look for sqrt, norm or division at zero."
