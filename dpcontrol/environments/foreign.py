"""A policy that Stable-Baselines3 trained, as a controller of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcontrol.environments.actions import ActionMap, action_map
from dpcontrol.environments.batch import FAR, Batch
from dpcontrol.environments.spaces import spaces_of
from dpcontrol.environments.wanted import wanted
from dpcontrol.problem import Problem
from dpcontrol.problem.observing import Observer, observer
from dpcontrol.problem.policy_slot import BoundedNetwork
from dpcontrol.results import UsageError
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
        # a scenario that has failed is shown as something finite: the policy would refuse all of them
        acted = torch.func.functional_call(
            self.acting, weights, (seen.nan_to_num(0.0, FAR, -FAR).clamp(-FAR, FAR),)
        )
        return self.actions.to_control(acted, state, t, scenario)


def controller_of_sb3(problem: Problem, model: Any) -> ForeignController:
    """The policy of a trained Stable-Baselines3 model (or the policy itself) as a controller.

    It was trained in :func:`~dpcontrol.environments.vec_env` or
    :func:`~dpcontrol.environments.gymnasium_env` of a problem with the same observation; then
    ``problem.with_unknown(Policy(controller_of_sb3(problem, model)))`` scores it like any other controller.

    Raises:
        UsageError: if the problem seeks no control, or the model is none of Stable-Baselines3, has other observations
            or actions than the problem, or saw observations that were scaled on their way (``VecNormalize``).
    """
    policy: Any = _policy_of(model)
    seen, acted = spaces_of(Batch(problem, 1, failure=0.0))
    own = policy.action_space
    if policy.observation_space.shape != seen.shape or not (
        isinstance(own, type(acted))
        and own.shape == acted.shape
        and np.allclose(own.low, acted.low)
        and np.allclose(own.high, acted.high)
    ):
        spaces = [" ".join(str(space).split()) for space in (policy.observation_space, own)]
        raise UsageError(
            f"the model observes {spaces[0]} and acts in {spaces[1]}, but {problem.name} shows {seen.shape[0]} numbers "
            f"and takes {acted.shape[0]} from -1 to 1: train it in vec_env or gymnasium_env of this problem."
        )
    policy.set_training_mode(False)
    return ForeignController(policy, observer(problem), action_map(problem))


def _policy_of(model: Any) -> nn.Module:
    """The policy of a model of Stable-Baselines3, or the policy that was given itself."""
    policy = model
    if isinstance(model, wanted("stable_baselines3.common.base_class").BaseAlgorithm):
        policy, scaling = model.policy, model.get_vec_normalize_env()
        if scaling is not None and scaling.norm_obs:
            raise UsageError(
                "the model saw observations that VecNormalize had scaled, which a controller does not see: train it "
                "with VecNormalize(env, norm_obs=False); observations of a problem have size 1 as they are."
            )
    if not isinstance(policy, wanted("stable_baselines3.common.policies").BasePolicy):
        raise UsageError(
            "controller_of_sb3 takes a trained model of Stable-Baselines3, such as PPO.load(path), or its policy; "
            f"found {type(model).__name__}."
        )
    found: nn.Module = policy
    return found
