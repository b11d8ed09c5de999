"""Between the actions of an environment, numbers from -1 to 1, and the controls of a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.problem import ControlSequence, Problem
from dpcontrol.problem.observing import law_of
from dpcontrol.problem.policy_slot import Policy
from dpcontrol.problem.unknown import Law
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

# how far an unbounded control reaches, in units of its scale: an environment's actions are bounded
REACH = 4.0


@dataclass(frozen=True)
class ActionMap:
    r"""``control = base + middle + half * action``, with ``action`` in ``[-1, 1]``, flat.

    Between two finite bounds the whole box is reached. Where a side is open the control reaches ``REACH`` times its
    scale on both sides of zero, unless it was made with another reach. What comes out is clipped to the bounds.
    ``base`` is a law of the problem that the actions correct; none by default.
    """

    control: ControlSequence
    middle: Tensor
    half: Tensor
    base: Law | None = None

    @property
    def size(self) -> int:
        """How many numbers an action has."""
        return math.prod(self.control.sizes)

    def to_control(self, actions: Tensor, state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tensor:
        """Controls ``(scenarios, *shape)`` of actions ``(scenarios, size)``, which are clipped to -1 and 1."""
        flat = actions.to(self.middle).clamp(-1.0, 1.0)
        own = self.middle + self.half * flat.reshape(len(flat), *self.control.sizes)
        return self.control.clip(own if self.base is None else own + self.base(state, t, scenario))


def action_map(problem: Problem, *, base: str | None = None, reach: float | None = None) -> ActionMap:
    """The map of a problem that seeks one control sequence.

    Args:
        problem: whose control it is.
        base: the name of one of the problem's simple laws, which the actions correct.
        reach: how far actions reach where a side of the control is open, in units of its scale.

    Raises:
        UsageError: for any other problem, or where it has no such law.
    """
    slots = problem.unknown.slots
    if len(slots) != 1 or not isinstance(slots[0], ControlSequence):
        wanted = (
            "the problem as it was before a policy was sought"
            if isinstance(slots[0], Policy)
            else "a control"
        )
        raise UsageError(
            f"an environment acts by a control step by step, but {problem.name} seeks "
            f"{', '.join(problem.unknown.names)}: give it {wanted}, control=ControlSequence(...)."
        )
    control, pose = slots[0], problem.pose()

    def full(value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=pose.dtype, device=pose.device).expand(control.sizes)

    low, high = (
        full(math.inf * sign if side is None else side)
        for side, sign in ((control.low, -1.0), (control.high, 1.0))
    )
    boxed = torch.isfinite(low) & torch.isfinite(high)
    far = (REACH if reach is None else reach) * full(
        control.step_scale(torch.empty((), dtype=pose.dtype, device=pose.device))
    )
    middle = torch.where(boxed, (torch.where(boxed, low, 0.0) + torch.where(boxed, high, 0.0)) / 2, 0.0)
    half = torch.where(boxed, (torch.where(boxed, high, 0.0) - torch.where(boxed, low, 0.0)) / 2, far)
    return ActionMap(control, middle, half, law_of(problem, base))
