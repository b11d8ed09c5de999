"""``policy``: a feedback controller, trained through the simulator over the problem's distribution of scenarios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.engine.gradients import Auto, GradientMode, Tail, TruncatedBPTT
from dpcontrol.meter import Meter
from dpcontrol.problem import Problem, plan_gradient
from dpcontrol.results import Status, UsageError
from dpcontrol.strategies.checks import cap, one_of, positive, whole, within
from dpcontrol.strategies.learning.descent import OPTIMIZERS
from dpcontrol.strategies.learning.posing import NetworkLearner
from dpcontrol.strategies.learning.scenes import Scenes
from dpcontrol.strategies.learning.training import Lessons, Pace, Training

WITHOUT_BUDGET = 2000
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
        batch: scenarios of an iteration. Few of them make many iterations out of a budget in simulated steps; more
            of them are quicker in seconds, up to where an iteration costs more than its overhead.
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

    batch: int = 16
    optimizer: str = "soap"
    learning_rate: float = 1e-2
    iterations: int | None = None
    clip: float = 3.0
    window: int | None = None
    curriculum: int | None = None
    validation: int = 64
    validate_every: int = 40
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
        kept = meter.resumed()
        # that of the validation scenarios: a resumed training draws the same
        seed = int(torch.randint(2**62, (), generator=generator)) if kept is None else kept["seed"]
        scenes, exact = Scenes(meter, seed, self.validation), self._mode(meter.problem)

        def fresh() -> Tensor:
            return self.fresh(meter, generator)

        def gradient(weights: Tensor, done: float) -> tuple[Tensor, Tensor]:
            mode = self._end(meter.problem.free_steps, done) or exact
            return meter.sampled_gradient(weights, scenes.batch(generator, self.batch), mode)

        def validate(weights: Tensor) -> Tensor:
            return meter.sampled_values(weights, scenes.validation).mean()

        pace = Pace(
            self.optimizer,
            self.learning_rate,
            self.clip,
            self.validate_every,
            self.patience,
            cap(self.iterations, meter, WITHOUT_BUDGET),
        )
        lessons = Lessons(fresh, gradient, validate, scenes.price, {"seed": seed})
        return Training(meter, lessons, pace, kept, scenes.remark).run()

    def _mode(self, problem: Problem) -> GradientMode | None:
        """How the whole horizon is differentiated; where the memory at hand decides, it is asked once, for a batch."""
        if self.window is not None:
            return TruncatedBPTT(self.window)
        if not isinstance(problem.gradient, Auto):
            return None
        own = problem.scenarios
        alike = own.subset(torch.arange(self.batch) % own.count)
        return plan_gradient(problem.with_scenarios(alike)).chosen.mode

    def _end(self, steps: int, done: float) -> Tail | None:
        """The part at the end that a curriculum differentiates so far; ``None`` for the whole horizon."""
        first = self.curriculum
        if first is None or first >= steps:
            return None
        reach = math.ceil(first * (steps / first) ** min(done / GROWTH, 1.0))
        return None if reach >= steps else Tail(reach)
