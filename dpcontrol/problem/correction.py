"""``correction_problem``: which correction makes my coarse solver as good as the fine one?"""

from __future__ import annotations

from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.problem.base import Problem
from dpcontrol.problem.control import control_problem
from dpcontrol.problem.slots import Parameters
from dpcontrol.problem.terms import track
from dpcontrol.sim.base import Simulator
from dpcontrol.sim.hybrid import HybridSimulator
from dpcontrol.tree import Tree


def correction_problem(
    coarse: Simulator, *, reference: Tree, network: torch.nn.Module, **rest: Any
) -> Problem:
    r"""Pose a correction task: the weights with which ``coarse`` and ``network`` together follow ``reference``.

    The unknown is ``z["parameters"]["correction"]``, the objective ``sum_k |x_k - reference_k|^2`` over a rollout in
    which the network meets its own consequences.

    Args:
        coarse: the numerical part.
        reference: trajectories in the coarse state's layout, leaves ``(steps + 1, scenarios, ...)``; the rollout
            starts at their first states and is as long as they are.
        network: maps a state to a correction of the same shape; its present weights are the start guess.
        rest: as in :func:`~dpcontrol.problem.control.control_problem`.

    Raises:
        UsageError: one sentence, before any work.
    """
    return control_problem(
        HybridSimulator(coarse, network),
        initial_state=tree.map(lambda leaf: leaf[0], reference),
        horizon=len(tree.leaves(reference)[0]) - 1,
        objective=track(reference),
        unknown=Parameters("correction"),
        **rest,
    )
