"""What ``ppo`` and ``sac`` share: learning from rewards alone, by Stable-Baselines3, under a meter."""

from __future__ import annotations

import abc
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.environments import ForeignController
from dpcontrol.environments.actions import action_map
from dpcontrol.environments.batch import Batch, price_of_failure
from dpcontrol.environments.spaces import spaces_of
from dpcontrol.environments.vector import tensor_env
from dpcontrol.environments.wanted import wanted
from dpcontrol.meter import Meter
from dpcontrol.problem import Policy, Problem, Scenarios, View
from dpcontrol.problem.observing import observer
from dpcontrol.results import Counts, Status, UsageError
from dpcontrol.strategies.checks import one_of, positive, share, whole
from dpcontrol.strategies.learning.posing import Learner
from dpcontrol.strategies.learning.scenes import NOT_HELD_OUT, Scenes

WITHOUT_BUDGET = 200_000  # environment steps


@dataclass(frozen=True)
class ModelFree(Learner):
    """What ``ppo`` and ``sac`` have in common; see there.

    They see what every learned method sees (state, target, time to go) and are judged like ``policy``: trained on fresh
    scenes, validated on drawn ones, scored on the problem's own. A step of an episode costs one simulated step, so does
    a step of validation. The rewards of an episode sum to minus its loss; they are scaled by their running spread.

    Args:
        steps: environment steps at most; ``None`` goes on until the budget is spent (200,000 without a budget).
        environments: episodes that run at once.
        width, depth: of the hidden layers of the networks, as in ``policy``.
        base: the name of one of the problem's simple laws, whose control the actions correct; none by default.
        reach: how far actions reach where the control has no bounds, in units of its scale.
        learning_rate: of Adam; ``schedule`` is ``"constant"``, or ``"cosine"``: it falls along half a cosine over the
            budget, as in ``policy``.
        state_noise: actions deviate by a smooth function of the state (generalised state-dependent exploration), drawn
            anew every so many steps, instead of by independent noise; ``None`` for independent noise.
        discount: of future rewards; the horizon is finite and the time to go is seen, so it may be 1.
        validation: how many scenes to validate on; ``validate_every``: environment steps between two validations.
    """

    steps: int | None = None
    environments: int = 64
    width: int = 128
    depth: int = 2
    base: str | None = None
    reach: float = 4.0
    learning_rate: float = 3e-4
    schedule: str = "constant"
    state_noise: int | None = None
    discount: float = 0.99
    validation: int = 64
    validate_every: int = 20_000

    def __post_init__(self) -> None:
        name = type(self).__name__
        counts = {"environments": self.environments, "width": self.width, "depth": self.depth}
        counts |= {"validation": self.validation, "validate_every": self.validate_every}
        optional = {"steps": self.steps, "state_noise": self.state_noise}
        whole(name, **counts, **{field: value for field, value in optional.items() if value is not None})
        positive(name, learning_rate=self.learning_rate, reach=self.reach)
        share(name, discount=self.discount)
        one_of(name, ("constant", "cosine"), schedule=self.schedule)
        if self.base is not None and not isinstance(self.base, str):
            raise UsageError(
                f"{name}(base=...) must be the name of one of the problem's simple laws, or None; found {self.base!r}."
            )

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.ACTING})

    def load(self) -> None:
        wanted("stable_baselines3")

    def pose(self, problem: Problem) -> Problem:
        """As every learner does; a problem that seeks the weights of another network is refused."""
        posed = super().pose(problem)
        if posed is problem and self.needs <= posed.offers:
            self._require_own_network(posed)
        return posed

    def _require_own_network(self, problem: Problem) -> None:
        """Refuse a problem that seeks a policy, but not the weights of an acting network like a fresh one."""
        slot = problem.unknown.slots[0]
        assert isinstance(slot, Policy)
        if isinstance(slot.network, ForeignController):
            with _generators_restored(0):
                batch = Batch(problem, 1, failure=0.0, actions=slot.network.actions)
                fresh = self._actor(*spaces_of(batch))
            own = {name: tuple(weight.shape) for name, weight in fresh.named_parameters()}
            if own == {name: tuple(w.shape) for name, w in slot.network.acting.policy.named_parameters()}:
                return
        raise UsageError(
            f"{type(self).__name__} trains networks of its own, but {problem.name} seeks the weights of another one "
            f"({type(slot.network).__name__}): give it the problem as it was before a policy was sought."
        )

    def controller(self, problem: Problem) -> torch.nn.Module:
        """A fresh acting network behind the observation of the problem and before its actions."""
        actions = action_map(problem, base=self.base, reach=self.reach)
        with _generators_restored(0):
            spaces = spaces_of(Batch(problem, 1, failure=0.0))
            policy = self._actor(*spaces)
        return ForeignController(policy, observer(problem), actions)

    @abc.abstractmethod
    def _actor(self, seen: Any, acted: Any) -> torch.nn.Module:
        """A fresh acting network for an observation and an action space."""

    @abc.abstractmethod
    def _model(self, env: Any, **options: Any) -> Any:
        """The learner; ``options`` are those that all have in common."""

    @abc.abstractmethod
    def _acting(self, model: Any) -> torch.nn.Module:
        """The part of a learner that acts."""

    def _fresh(self, kind: Any, seen: Any, acted: Any, **own: Any) -> Any:
        """A policy of Stable-Baselines3 of some kind, with the layers that all have in common."""
        noise = self.state_noise is not None
        return kind(seen, acted, lambda _: self.learning_rate, use_sde=noise, **own, **self._layers())

    def _layers(self) -> dict[str, Any]:
        return {"net_arch": [self.width] * self.depth, "activation_fn": torch.nn.SiLU}

    def _common(self, meter: Meter, seed: int) -> dict[str, Any]:
        def rate(remaining: float) -> float:
            if self.schedule == "constant":
                return self.learning_rate
            done = max(meter.fraction(), 1 - remaining)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        noise = {} if self.state_noise is None else {"use_sde": True, "sde_sample_freq": self.state_noise}
        return {"learning_rate": rate, "gamma": self.discount, "seed": seed, "device": "cpu", **noise}

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        kept = meter.resumed()
        # the generator of a resumed run is behind this draw; other validation scenes would make losses incomparable
        seed = int(torch.randint(2**31, (), generator=generator)) if kept is None else int(kept["seed"])
        slot = meter.problem.unknown.slots[0]
        assert isinstance(slot, Policy) and isinstance(slot.network, ForeignController)
        scenes = Scenes(meter, seed, self.validation)
        if scenes.remark:
            meter.remark(f"{NOT_HELD_OUT}.")
        validation = scenes.validation
        if kept is None:
            untrained = meter.sampled_values(meter.start(), validation)
            failure = price_of_failure(untrained)
            meter.observe(meter.start(), untrained.mean()[None], steps=0)
        else:
            failure = float(kept["failure"])
        # as all who learn, it trains on the model; the plant is where answers are judged
        model_world = replace(meter.problem, plant=None)
        env = tensor_env(Batch(model_world, self.environments, seed, failure, slot.network.actions))
        scaled = wanted("stable_baselines3.common.vec_env").VecNormalize(
            env, norm_obs=False, gamma=self.discount, clip_reward=math.inf
        )
        with _generators_restored(seed):
            model = self._model(scaled, **self._common(meter, seed))
            training = Training(self, meter, model, validation, {"seed": seed, "failure": failure})
            if kept is not None:
                training.resume(kept["networks"], int(kept["since"]))
            with scenes.judged_at_the_end(training.validate):
                model.learn(self.steps or _most(meter), callback=training.callback())
            training.validate()
        return Status("iterations spent", "the steps were spent; more of them may lower the loss.")


class Training:
    """A learner at work: charges its steps, validates, and keeps what a later run can go on with."""

    def __init__(
        self, strategy: ModelFree, meter: Meter, model: Any, validation: Scenarios, begun: dict[str, float]
    ) -> None:
        self._strategy, self._meter, self._model, self._validation = strategy, meter, model, validation
        self._begun = begun  # what a resumed run has to know
        self._since = 0

    def resume(self, networks: dict[str, Tensor], since: int) -> None:
        """Go on with stored networks, so many steps after the last validation."""
        self._since = since
        self._model.policy.load_state_dict(networks)
        self._meter.remark("resumed with the stored networks and fresh random streams, so not to the bit.")

    def callback(self) -> Any:
        """What Stable-Baselines3 calls after every step of the batch."""
        base = wanted("stable_baselines3.common.callbacks").BaseCallback
        training = self

        class Charging(base):  # type: ignore[misc, valid-type]
            """Charges steps, and validates every now and then."""

            def _on_step(self) -> bool:
                training.stepped()
                return True

        return Charging()

    def stepped(self) -> None:
        """One step of all episodes was taken."""
        count = self._strategy.environments
        if self._since >= self._strategy.validate_every:
            self.validate()
            self._since = 0
        self._since += count
        self._meter.spend(Counts(count))
        self._meter.keep(self._pack)

    def validate(self) -> None:
        """Score the acting network on the validation scenes."""
        weights = self._weights()
        loss = self._meter.sampled_values(weights, self._validation).mean()
        self._meter.observe(weights, loss[None], steps=0)

    def _weights(self) -> Tensor:
        acting = self._strategy._acting(self._model)
        own = {f"acting.policy.{name}": value.detach() for name, value in acting.named_parameters()}
        layout = self._meter.layout()["policy"]
        return tree.ravel({"policy": {name: own[name].to(like) for name, like in layout.items()}})[None]

    def _pack(self) -> dict[str, Any]:
        networks = {name: value.clone() for name, value in self._model.policy.state_dict().items()}
        return {"networks": networks, "since": self._since, **self._begun}


def _most(meter: Meter) -> int:
    limits = meter.budget
    bounded = any(limit is not None for limit in (limits.seconds, limits.simulated_steps))
    return 2**40 if bounded else WITHOUT_BUDGET


@contextmanager
def _generators_restored(seed: int) -> Iterator[None]:
    """Stable-Baselines3 seeds and draws from the global generators: they are as they were afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
