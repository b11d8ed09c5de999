"""A policy that Stable-Baselines3 trained, as a controller of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpcontrol.environments.actions import ActionMap, action_map
from dpcontrol.problem import Problem
from dpcontrol.problem.observing import Observer, observer
from dpcontrol.problem.slots import BoundedNetwork
from dpcontrol.tree import Tree


class MeanAction(nn.Module):
    """The deterministic action of a Stable-Baselines3 policy as a function of tensors."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, seen: Tensor) -> Tensor:
        """Actions ``(scenarios, size)``, not clipped."""
        act: Any = self.policy._predict
        action: Tensor = act(seen, deterministic=True)
        return action


class ForeignController(BoundedNetwork):
    """``control = action map(policy's mean action(observation))``: the network of a slot that seeks a policy.

    The policy runs in float32, whatever the problem's precision: Stable-Baselines3 casts what it sees.
    """

    def __init__(self, policy: nn.Module, observer: Observer, actions: ActionMap) -> None:
        super().__init__()
        self.acting = MeanAction(policy)
        self.observer = observer
        self.actions, self.control = actions, actions.control

    def forward(self, state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tensor:
        """The control ``(scenarios, *shape)``."""
        seen = self.observer(state, t, scenario).float()
        weights = {name: weight.float() for name, weight in self.acting.named_parameters()}
        acted = torch.func.functional_call(self.acting, weights, (seen,))
        return self.actions.to_control(acted, state, t, scenario)


def controller_of_sb3(problem: Problem, model: Any) -> ForeignController:
    """The policy of a trained Stable-Baselines3 model (or the policy itself) as a controller.

    It was trained in :func:`~dpcontrol.environments.vec_env` or
    :func:`~dpcontrol.environments.gymnasium_env` of a problem with the same observation; then
    ``problem.with_unknown(Policy(controller_of_sb3(problem, model)))`` scores it like any other controller.

    Raises:
        UsageError: if the problem seeks no control.
    """
    policy: Any = model if isinstance(model, nn.Module) else model.policy
    policy.set_training_mode(False)
    return ForeignController(policy, observer(problem), action_map(problem))
