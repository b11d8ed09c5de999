"""``policy``: a feedback controller, trained through the simulator over the problem's distribution of scenarios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from dpcontrol.engine.gradients import Auto, GradientMode, Tail, TruncatedBPTT
from dpcontrol.meter import Meter
from dpcontrol.problem import Scenarios, plan_gradient
from dpcontrol.results import Status, UsageError
from dpcontrol.strategies.checks import cap, one_of, positive, whole, within
from dpcontrol.strategies.learning.descent import OPTIMIZERS, Clip, falling, optimizer
from dpcontrol.strategies.learning.posing import Body, NetworkLearner
from dpcontrol.strategies.learning.scenes import Scenes

WITHOUT_BUDGET = 2000
PATIENCE_OF_FAILURES = 10  # in a row
GROWTH = 0.5  # share of a training in which a curriculum reaches the whole horizon


@dataclass(frozen=True)
class LearnedPolicy(NetworkLearner):
    r"""Train a feedback controller ``u_k = network(observation_k; w)`` through the simulator.

    .. math:: \min_w \; E_{\text{scenario}} \, L(\text{closed loop under } w)

    Every iteration rolls the closed loop out over a minibatch of fresh scenarios, differentiates its mean loss by
    backpropagation through time (the physics included), clips the gradient's norm, and takes a step of the optimizer,
    whose rate falls along a half cosine over the budget. What counts as the best so far is the mean loss on validation
    scenarios, drawn once; the problem's own scenarios are never trained on where it has a distribution to draw from,
    so that they are held-out scenes. Without a distribution the problem's scenarios are all there is: training,
    validation and judgement are on the same ones, and the status says so.

    The controller sees what every learned method sees (:class:`~dpcontrol.problem.observing.Observer`): state, target,
    time to go. Its answer ``z["policy"]`` are weights; one decision costs one call of the network.

    Where gradients explode over the horizon (:func:`~dpcontrol.problem.adjoint.gradient_growth`) there are two biased
    remedies. ``window`` cuts the way back every so many steps, so that no decision is blamed for what comes later than
    that. ``curriculum`` begins with the end: at first only the last so many steps are differentiated, from the states
    that the controller itself leads to, and that part grows (geometrically) to the whole horizon by the middle of the
    training. A shorter episode of that kind has the problem's own end, its terminal cost and closing condition, at the
    right time to go; an episode cut off at its other end would ask for the target too early. It helps because a
    gradient explodes along an uncontrolled system and not along one that is held by then: when the whole horizon comes,
    its tail is. See also ``shac``, which learns a value for what lies behind a window. Measured on a kicked rotor
    (``tests/benchmarks/results/exploding_gradients.json``): the whole horizon fails, and short windows do best where
    costs come at every step.

    Args:
        network, width, depth, base: see :class:`~dpcontrol.strategies.learning.posing.NetworkLearner`.
        batch: scenarios of an iteration.
        optimizer: ``"soap"`` (:class:`~dpcontrol.strategies.learning.descent.SOAP`) or ``"adam"``.
        learning_rate: at the start; roughly how much the weights move at each step.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 2000 without a budget.
        clip: a gradient whose norm is more than so many times the running (geometric) mean of earlier norms is
            shortened to that. The status reports how often.
        window: differentiate over at most this many steps at a time (biased: see
            :class:`~dpcontrol.engine.gradients.TruncatedBPTT`); over the whole horizon by default.
        curriculum: how many steps at the end of the horizon to begin with (biased until they are the whole: see
            :class:`~dpcontrol.engine.gradients.Tail`); the whole horizon from the start by default.
        validation: how many scenarios to validate on, where they can be drawn.
        validate_every: iterations between two validations.
        patience: stop after this many validations without a better one; ``None`` never.

    Source: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020. Beginning
    with the end: C. Florensa et al., "Reverse curriculum generation for reinforcement learning", CoRL 2017.
    """

    batch: int = 64
    optimizer: str = "soap"
    learning_rate: float = 1e-2
    iterations: int | None = None
    clip: float = 3.0
    window: int | None = None
    curriculum: int | None = None
    validation: int = 128
    validate_every: int = 20
    patience: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(
            "LearnedPolicy", batch=self.batch, validation=self.validation, validate_every=self.validate_every
        )
        positive("LearnedPolicy", learning_rate=self.learning_rate, clip=self.clip)
        within("LearnedPolicy", 0, 1, learning_rate=self.learning_rate)
        one_of("LearnedPolicy", OPTIMIZERS, optimizer=self.optimizer)
        optional = {
            "iterations": self.iterations,
            "window": self.window,
            "curriculum": self.curriculum,
            "patience": self.patience,
        }
        whole("LearnedPolicy", **{name: value for name, value in optional.items() if value is not None})
        if self.window is not None and self.curriculum is not None:
            raise UsageError(
                f"LearnedPolicy takes window=... or curriculum=..., not both (found {self.window} and "
                f"{self.curriculum}): leave one out."
            )

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
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
    """A training under way: the weights, the optimizer, the validation scenarios, and what is counted.

    ``seed`` is that of the validation scenarios, so that a resumed training draws the same.
    """

    def __init__(
        self, strategy: LearnedPolicy, meter: Meter, generator: torch.Generator, iterations: float
    ) -> None:
        self._strategy, self._meter, self._generator, self._most = strategy, meter, generator, iterations
        kept = meter.resumed()
        self.iteration, self.failed, self.worse = 0, 0, 0
        self._clip = Clip(strategy.clip)
        self._seed = int(torch.randint(2**62, (), generator=generator)) if kept is None else kept["seed"]
        self._weights = strategy.fresh(meter, generator) if kept is None else kept["weights"]
        self._finite = self._weights
        self._optimizer = optimizer(strategy.optimizer, meter.layout())
        if kept is not None:
            self._unpack(kept)
        self.scenes = Scenes(meter, self._seed, strategy.validation)
        self._exact = self._decided()

    def step(self) -> Status | None:
        """One iteration, and the validation that is due before it; how the training ended, or ``None``."""
        if self.iteration % self._strategy.validate_every == 0 and self.validate():
            return Status(
                "converged",
                f"{self._strategy.patience} validations in a row brought nothing better; stopped early.",
            )
        scenes = self.scenes.batch(self._generator, self._strategy.batch)
        losses, gradient = self._meter.sampled_gradient(self._weights, scenes, self._mode())
        norm = gradient.norm()
        self.iteration += 1
        if not bool(torch.isfinite(norm) & torch.isfinite(losses).all()):
            return self._take_back()
        self.failed = 0
        self._finite = self._weights
        direction = self._optimizer.direction(gradient * self._clip.shortened(float(norm)))
        self._weights = self._weights - self._strategy.learning_rate * falling(self._done()) * direction
        self._meter.remark(f"{self._clip.words()}{self.scenes.remark}.")
        return None

    def validate(self) -> bool:
        """Score the weights on the validation scenarios; whether it is time to stop early."""
        before = float(self._meter.best)
        loss = self._meter.sampled_values(self._weights, self.scenes.validation).mean()
        self._meter.observe(self._weights, loss[None], steps=0)
        self.worse = 0 if float(self._meter.best) < before else self.worse + 1
        return self._strategy.patience is not None and self.worse >= self._strategy.patience

    def _decided(self) -> GradientMode | None:
        """The problem's way of differentiating; where the memory at hand decides, it is asked once, for a batch."""
        problem, size = self._meter.problem, self._strategy.batch
        if self._strategy.window is not None:
            return TruncatedBPTT(self._strategy.window)
        if not isinstance(problem.gradient, Auto):
            return None
        own = problem.scenarios
        alike = Scenarios(own.take(torch.arange(size) % own.count), own.sampler, own.shared)
        return plan_gradient(problem.with_scenarios(alike)).chosen.mode

    def _mode(self) -> GradientMode | None:
        first, steps = self._strategy.curriculum, self._meter.problem.free_steps
        if first is None or first >= steps:
            return self._exact
        reach = math.ceil(first * (steps / first) ** min(self._done() / GROWTH, 1.0))
        return self._exact if reach >= steps else Tail(reach)

    def _done(self) -> float:
        """How much of the budget or of the iterations is gone."""
        return min(max(self._meter.fraction(), self.iteration / self._most), 1.0)

    def _take_back(self) -> Status | None:
        """After something not finite: half of the way back to the latest weights that gave a finite gradient."""
        self.failed += 1
        if self.failed > PATIENCE_OF_FAILURES:
            return Status(
                "diverged",
                f"{self.failed} minibatches in a row gave a loss or gradient that is not finite; a shorter window, a "
                "curriculum, a smaller learning rate or clip may help.",
            )
        self._weights = (self._weights + self._finite) / 2
        return None

    def pack(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "seed": self._seed,
            "weights": self._weights,
            "finite": self._finite,
            "clip": self._clip.pack(),
            "optimizer": self._optimizer.pack(),
            "counts": [self.iteration, self.failed, self.worse],
        }

    def _unpack(self, kept: dict[str, Any]) -> None:
        self._finite = kept["finite"]
        self._clip.unpack(kept["clip"])
        self._optimizer.unpack(kept["optimizer"])
        self.iteration, self.failed, self.worse = kept["counts"]


__all__ = ["Body", "LearnedPolicy", "Training"]
