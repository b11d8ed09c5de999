"""``shac``: a feedback controller trained through short windows of the simulator, with a learned value behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.meter import Meter
from dpcontrol.problem import Policy
from dpcontrol.problem.policy_slot import MemoryNetwork
from dpcontrol.results import Counts, Status, UsageError
from dpcontrol.strategies.checks import cap, one_of, positive, whole, within
from dpcontrol.strategies.learning.critic import Critic
from dpcontrol.strategies.learning.descent import OPTIMIZERS, Clip, falling, optimizer
from dpcontrol.strategies.learning.posing import NetworkLearner
from dpcontrol.strategies.learning.scenes import Scenes
from dpcontrol.strategies.learning.underway import Stretch, Underway, advance

WITHOUT_BUDGET = 2000
PATIENCE_OF_FAILURES = 10  # in a row


@dataclass(frozen=True)
class ActorCritic(NetworkLearner):
    r"""Short-horizon actor-critic: policy gradients through ``window`` steps of the simulator and a learned value.

    .. math:: \min_w \; E \Big[ \sum_{k = m}^{m + h - 1} c_k + V(o_{m+h}) \Big], \qquad
        V(o_k) \approx E \Big[ \sum_{j \ge k} c_j \Big]

    For horizons over which gradients explode: no gradient goes through more than ``h`` steps of the simulator, and what
    comes later enters through the value ``V``, a smooth function that is learnt from the same episodes by TD(lambda)
    (:class:`~dpcontrol.strategies.learning.critic.Critic`). Where a window reaches the end of an episode nothing is
    estimated: the closing condition and the terminal cost count as they are.

    The horizon is cut into windows, and for every window there is a batch of episodes that stands at its beginning, so
    that each iteration sees all parts of the horizon; the episodes go on from one iteration to the next, and fresh
    scenes replace those that have ended. An iteration costs as much as one of ``policy`` with the same ``batch``.
    Before the first one such a batch is taken through the windows once, so that they all have episodes to begin with.
    Observation, network and judgement (held-out scenes, validation) are those of ``policy``. Costs are not discounted;
    the controller does not explore by noise, fresh scenes do that.

    What the objective remembers of the steps before (a peak, a running mean) is no part of the observation, so that a
    value cannot depend on it; controllers with a memory are refused.

    Args:
        network, width, depth, base: see :class:`~dpcontrol.strategies.learning.posing.NetworkLearner`; the value's
            network is an MLP of the same size.
        window: steps that are differentiated through, ``h``.
        batch: episodes at the beginning of each window.
        optimizer: of both networks, ``"soap"`` or ``"adam"``.
        learning_rate: of the controller, at the start; it falls along half a cosine over the budget.
        value_rate: of the value, likewise.
        value_steps: steps of the value's fit in each iteration, with ``value_batch`` estimates each.
        trace: lambda of TD(lambda), from 0 (one step and a value) to 1 (the whole window and a value).
        lag: how much of the value's slow copy, which the estimates are made with, stays at each iteration.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 2000 without a budget.
        clip: a gradient whose norm is more than so many times the running (geometric) mean of earlier norms is
            shortened to that. The status reports how often.
        validation: how many scenarios to validate on, where they can be drawn.
        validate_every: iterations between two validations.

    Raises:
        UsageError: for a network with a memory.

    Source: J. Xu et al., "Accelerated policy learning with parallel differentiable simulation", ICLR 2022.
    """

    window: int = 16
    batch: int = 16
    optimizer: str = "soap"
    learning_rate: float = 1e-2
    value_rate: float = 5e-3
    value_steps: int = 16
    value_batch: int = 256
    trace: float = 0.95
    lag: float = 0.8
    iterations: int | None = None
    clip: float = 3.0
    validation: int = 64
    validate_every: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"window": self.window, "batch": self.batch}
        counts |= {"value_steps": self.value_steps, "value_batch": self.value_batch}
        counts |= {"validation": self.validation, "validate_every": self.validate_every}
        whole("ActorCritic", **counts, **({} if self.iterations is None else {"iterations": self.iterations}))
        positive("ActorCritic", learning_rate=self.learning_rate, value_rate=self.value_rate, clip=self.clip)
        within("ActorCritic", 0, 1, learning_rate=self.learning_rate, value_rate=self.value_rate)
        within("ActorCritic", 0, 1 + 1e-12, trace=self.trace)
        within("ActorCritic", 0, 1, lag=self.lag)
        one_of("ActorCritic", OPTIMIZERS, optimizer=self.optimizer)

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        slot = meter.problem.unknown.slots[0]
        if isinstance(slot, Policy) and isinstance(slot.network, MemoryNetwork):
            raise UsageError(
                f"shac cuts episodes into windows and learns values of observations, but the controller of "
                f"{meter.problem.name} has a memory: take policy, or a network without one."
            )
        most = cap(self.iterations, meter, WITHOUT_BUDGET)
        training = Training(self, meter, generator, most)
        with training.scenes.judged_at_the_end(training.validate):
            while training.iteration < most:
                meter.keep(training.pack)
                ended = training.step()
                if ended is not None:
                    return ended
        training.validate()
        return Status("iterations spent", "the iterations were spent; more of them may lower the loss.")


class Training:
    """A training under way: weights, value, episodes, validation scenarios, and what is counted."""

    def __init__(
        self, strategy: ActorCritic, meter: Meter, generator: torch.Generator, iterations: float
    ) -> None:
        self._strategy, self._meter, self._generator, self._most = strategy, meter, generator, iterations
        kept = meter.resumed()
        self.iteration, self.failed = 0, 0
        self._seed = int(torch.randint(2**62, (), generator=generator)) if kept is None else kept["seed"]
        self._weights = strategy.fresh(meter, generator) if kept is None else kept["weights"]
        self._finite = self._weights
        self._clip = Clip(strategy.clip)
        self._optimizer = optimizer(strategy.optimizer, meter.layout())
        self._error = math.nan  # relative, of the value
        self._critic = Critic(
            meter.problem,
            self._seed,
            strategy.width,
            strategy.depth,
            strategy.optimizer,
            strategy.trace,
            strategy.lag,
        )
        self.scenes = Scenes(meter, self._seed, strategy.validation)
        self._episodes: list[Underway] = []
        if kept is not None:
            self._unpack(kept)

    def step(self) -> Status | None:
        """One iteration, and the validation that is due before it; how the training ended, or ``None``."""
        if self.iteration % self._strategy.validate_every == 0:
            self.validate()
        if not self._episodes:
            self._episodes = self._begun()
        stretches, total, gradient = self._through_windows()
        norm = gradient.norm()
        self.iteration += 1
        if not bool(torch.isfinite(norm) & torch.isfinite(total)):
            return self._take_back()
        self.failed = 0
        self._finite = self._weights
        fall = falling(self._done())
        direction = self._optimizer.direction(gradient * self._clip.shortened(float(norm)))
        self._weights = self._weights - self._strategy.learning_rate * fall * direction
        self._learn_value(stretches, self._strategy.value_rate * fall)
        self._episodes = [stretch.after or self._new() for stretch in stretches]
        value = f"the value was off by {self._error:.0%} at last"
        if len(stretches) == 1:
            value = "the window is the whole horizon: no value is learned, and this is policy"
        self._meter.remark(f"{self._clip.words()}; {value}{self.scenes.remark}.")
        return None

    def validate(self) -> None:
        """Score the weights on the validation scenarios."""
        loss = self._meter.sampled_values(self._weights, self.scenes.validation).mean()
        self._meter.observe(self._weights, loss[None], steps=0)

    def _through_windows(self) -> tuple[list[Stretch], Tensor, Tensor]:
        """A window of all episodes; the mean of costs and values, and its gradient ``(1, dimension)``."""
        problem, strategy = self._meter.problem, self._strategy
        count = sum(episodes.scenarios.count for episodes in self._episodes) // len(self._episodes)
        self._meter.spend(Counts(2 * count * problem.horizon, count))
        point = self._weights.detach().requires_grad_()
        z = self._meter.trees(point)
        stretches = [advance(problem, z, episodes, strategy.window) for episodes in self._episodes]
        totals = []
        for stretch in stretches:
            total = stretch.costs.sum(0).mean()
            if stretch.after is not None:
                last = stretch.first + len(stretch.costs)
                total = total + self._critic.value(stretch.states[-1], last, stretch).mean()
            totals.append(total)
        whole = torch.stack(totals).sum()
        return stretches, whole.detach(), torch.autograd.grad(whole, point)[0]

    def _learn_value(self, stretches: list[Stretch], rate: float) -> None:
        if len(stretches) == 1:  # the window is the whole horizon: there is nothing to be estimated
            self._error = 0.0
            return
        found = [self._critic.estimates(stretch) for stretch in stretches]
        self._error = self._critic.fit(
            torch.cat([seen for seen, _ in found]),
            torch.cat([wanted for _, wanted in found]),
            rate,
            steps=self._strategy.value_steps,
            batch=self._strategy.value_batch,
            generator=self._generator,
        )

    def _begun(self) -> list[Underway]:
        """A batch of episodes at the beginning of each window: at first the same scenes, on their way."""
        problem, strategy = self._meter.problem, self._strategy
        z, found = self._meter.trees(self._weights), [self._new()]
        for _ in range(1, math.ceil(problem.free_steps / strategy.window)):
            self._meter.spend(Counts(strategy.window * found[-1].scenarios.count))
            with torch.no_grad():
                after = advance(problem, z, found[-1], strategy.window).after
            assert after is not None
            found.append(after)
        return found

    def _new(self) -> Underway:
        return Underway(self.scenes.batch(self._generator, self._strategy.batch))

    def _done(self) -> float:
        """How much of the budget or of the iterations is gone."""
        return min(max(self._meter.fraction(), self.iteration / self._most), 1.0)

    def _take_back(self) -> Status | None:
        """After something not finite: half of the way back to the latest good weights, with fresh episodes."""
        self.failed += 1
        self._meter.charge(Counts(failures=1))
        if self.failed > PATIENCE_OF_FAILURES:
            return Status(
                "diverged",
                f"{self.failed} iterations in a row gave a loss or gradient that is not finite; a shorter window, a "
                "smaller learning rate or clip may help.",
            )
        self._weights = (self._weights + self._finite) / 2
        self._episodes = []
        return None

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "seed": self._seed,
            "weights": self._weights,
            "finite": self._finite,
            "clip": self._clip.pack(),
            "optimizer": self._optimizer.pack(),
            "critic": self._critic.pack(),
            "episodes": [tree.detach(episodes.pack()) for episodes in self._episodes],
            "counts": [self.iteration, self.failed],
            "error": self._error,
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self._finite, self._error = kept["finite"], kept["error"]
        self._clip.unpack(kept["clip"])
        self._optimizer.unpack(kept["optimizer"])
        self._critic.unpack(kept["critic"])
        own = self._meter.problem.scenarios
        self._episodes = [Underway.unpacked(episodes, own) for episodes in kept["episodes"]]
        self.iteration, self.failed = kept["counts"]
