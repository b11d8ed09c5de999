"""``unrolled`` and what it is compared with: ``supervised``, ``noisy``, ``stopped``, and ``surrogate``."""

from __future__ import annotations

import abc
import math
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import GradientMode, StopGradient
from dpcontrol.meter import Meter
from dpcontrol.problem import Demand, Problem, Scenarios, View, training_scenarios, without_solver
from dpcontrol.problem.hybrids import fresh_weights, training_windows
from dpcontrol.results import Status, UsageError
from dpcontrol.run import Strategy
from dpcontrol.strategies.checks import cap, one_of, positive, whole
from dpcontrol.strategies.learning.descent import OPTIMIZERS
from dpcontrol.strategies.learning.training import Lessons, Pace, Training

WITHOUT_BUDGET = 2000
GROWTH = 0.5  # share of a training in which a curriculum reaches all steps
VALIDATED_UNROLLS = 4  # length of a validation rollout


@dataclass(frozen=True)
class Corrector(Strategy):
    """What all of them share: minibatches of windows, an optimizer, and validation by rollouts, the same for all.

    A validation rolls windows of the *validation* trajectories out, longer than those of the training; the weights of
    the lowest loss there are the answer, and the problem's own scenarios, windows of the *test* trajectories, judge
    them. Budgets in steps are equal for all: one step of one window, and one more for its way back. So ``supervised``
    has many more iterations than ``unrolled``, and is ahead wherever a training is short, rollouts are, or the coarse
    solver itself keeps the states that it leads to near those of the training; see ``tests/benchmarks/README.md``.

    Args:
        batch: windows of an iteration.
        optimizer: ``"soap"``, which needs half as many steps or fewer in plane flows, or ``"adam"``, which with a
            larger rate and batch is as good where a training is short and the network small.
        learning_rate: at the start; it falls along half a cosine over the budget or the iterations.
        iterations: at most this many; ``None`` goes on until the budget is spent, and up to 2000 without a budget.
        clip: a gradient whose norm is more than so many times the running mean of earlier norms is shortened to that.
        validation: at most so many windows to validate on.
        rollout: steps of a validation rollout; four times the problem's unrolled steps by default (and no longer than
            the trajectories).
        validate_every: iterations between two validations.
        patience: stop after this many validations without a better one; ``None`` never.
    """

    _: KW_ONLY
    batch: int = 8
    optimizer: str = "soap"
    learning_rate: float = 2e-3
    iterations: int | None = None
    clip: float = 3.0
    validation: int = 16
    rollout: int | None = None
    validate_every: int = 100
    patience: int | None = None

    def __post_init__(self) -> None:
        who = type(self).__name__
        whole(who, batch=self.batch, validation=self.validation, validate_every=self.validate_every)
        positive(who, learning_rate=self.learning_rate, clip=self.clip)
        one_of(who, OPTIMIZERS, optimizer=self.optimizer)
        optional = {"iterations": self.iterations, "rollout": self.rollout, "patience": self.patience}
        whole(who, **{name: value for name, value in optional.items() if value is not None})

    @property
    def needs(self) -> frozenset[View]:
        return frozenset({View.LOSS, View.GRADIENT, View.REFERENCE})

    @property
    def honours(self) -> frozenset[Demand]:
        return frozenset({Demand.HELD_OUT})

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    @abc.abstractmethod
    def steps(self, problem: Problem, done: float) -> int:
        """Steps of a training window when so much of the training (0 to 1) is done."""

    @property
    def mode(self) -> GradientMode | None:
        """How a rollout is differentiated; as the problem says by default."""
        return None

    def seen(self, windows: Scenarios, sizes: tuple[float, ...], generator: torch.Generator) -> Scenarios:
        """The drawn windows as the training has them; unchanged by default."""
        return windows

    def look_at(self, problem: Problem) -> None:
        """Windows must fit into the trajectories."""
        super().look_at(problem)
        if View.REFERENCE not in problem.offers:
            return
        cut = training_windows(problem)
        lengths = {"unroll": self.steps(problem, 1.0), "rollout": self.rollout or 1}
        for name, length in lengths.items():
            if length > cut.reference.steps:
                raise UsageError(
                    f"{type(self).__name__}({name}={length}) is longer than the {cut.reference.steps} steps of the "
                    "reference: take fewer, or simulate longer trajectories."
                )

    def run(self, meter: Meter, generator: torch.Generator) -> Status:
        problem = meter.problem
        cut = training_windows(problem)
        length = min(self.rollout or VALIDATED_UNROLLS * cut.unroll, cut.reference.steps)
        held_out = training_scenarios(problem, "validation", steps=length, most=self.validation)

        def fresh() -> Tensor:
            drawn = fresh_weights(problem, generator)
            return meter.start() if drawn is None else tree.ravel(drawn)[None]

        def gradient(weights: Tensor, done: float) -> tuple[Tensor, Tensor]:
            steps = self.steps(problem, done)
            distribution = replace(problem.scenarios, sampler=cut.of("train", steps))
            drawn = self.seen(distribution.draw(generator, self.batch), cut.sizes, generator)
            return meter.sampled_gradient(weights, drawn, self.mode, horizon=steps)

        def validate(weights: Tensor) -> Tensor:
            return meter.sampled_values(weights, held_out, horizon=length).mean()

        pace = Pace(
            self.optimizer,
            self.learning_rate,
            self.clip,
            self.validate_every,
            self.patience,
            cap(self.iterations, meter, WITHOUT_BUDGET),
        )
        words = f"; validated on {held_out.count} rollouts of {length} steps"
        lessons = Lessons(fresh, gradient, validate, held_out.count * length)
        return Training(meter, lessons, pace, meter.resumed(), words).run()


@dataclass(frozen=True)
class Unrolled(Corrector):
    r"""Train inside the solver's loop: the network meets its own consequences, and their gradient comes back.

    .. math:: \min_w \; E \sum_{k=1}^{n} \ell(x_k, r_k), \quad x_{k+1} = \mathrm{hybrid}(x_k; w), \; x_0 = r_0

    Args:
        unroll: ``n``; as the problem says by default.
        curriculum: begin with so many steps, which grow geometrically to ``n`` by the middle of the training;
            ``None`` for ``n`` from the beginning. Single steps come at an ``n``-th of the price, and what they teach is
            most of what there is to learn: of a budget in steps it goes twice as far.
        gradient: another gradient mode of the engine, such as ``TruncatedBPTT(2)``.

    Source: K. Um et al., "Solver-in-the-loop", NeurIPS 2020.
    """

    unroll: int | None = None
    curriculum: int | None = 1
    gradient: GradientMode | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_lengths("Unrolled", self.unroll, self.curriculum)
        if self.gradient is not None and not isinstance(self.gradient, GradientMode):
            raise UsageError(f"gradient must be a gradient mode such as Full(); found {self.gradient!r}.")

    @property
    def mode(self) -> GradientMode | None:
        return self.gradient

    def steps(self, problem: Problem, done: float) -> int:
        return _grown(problem, self.unroll, self.curriculum, done)


@dataclass(frozen=True)
class Supervised(Corrector):
    """One step from states of the reference: the network never meets its own consequences.

    The same as ``unrolled`` with one step; with the correction after the step nothing of the solver is differentiated.
    """

    def steps(self, problem: Problem, done: float) -> int:
        return 1


@dataclass(frozen=True)
class Noisy(Corrector):
    """One step from states of the reference that are perturbed, towards the next state of the reference.

    Noise stands for the errors that the network will meet in longer rollouts, and teaches it to take them back.

    Args:
        noise: standard deviation of the white noise on each entry, in units of the typical size of its leaf.

    Source: A. Sanchez-Gonzalez et al., "Learning to simulate complex physics with graph networks", ICML 2020.
    """

    noise: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("Noisy", noise=self.noise)

    def steps(self, problem: Problem, done: float) -> int:
        return 1

    def seen(self, windows: Scenarios, sizes: tuple[float, ...], generator: torch.Generator) -> Scenarios:
        leaves, build = tree.split_tensors(windows.data["initial_state"])
        moved = []
        for leaf, size in zip(leaves, sizes, strict=True):
            drawn = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype).to(leaf.device)
            moved.append(leaf + self.noise * size * drawn)
        return replace(windows, data={**windows.data, "initial_state": build(moved)})


@dataclass(frozen=True)
class Stopped(Corrector):
    """Several steps through the solver, without the gradient through it: interaction without its derivative.

    The network meets the states that it leads to, each of which is held constant; see
    :class:`~dpcontrol.engine.gradients.StopGradient`.

    Args:
        unroll: how many steps; as the problem says by default.
        curriculum: begin with so many, as in :class:`Unrolled`.
    """

    unroll: int | None = None
    curriculum: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_lengths("Stopped", self.unroll, self.curriculum)

    @property
    def mode(self) -> GradientMode | None:
        return StopGradient()

    def steps(self, problem: Problem, done: float) -> int:
        return _grown(problem, self.unroll, self.curriculum, done)


@dataclass(frozen=True)
class Surrogate(Corrector):
    """No solver at all: the same network learns the whole step, ``x_{k+1} = x_k + N(x_k)``, over several of them.

    Args:
        unroll: how many steps; as the problem says by default.
        curriculum: begin with so many, as in :class:`Unrolled`.
    """

    unroll: int | None = None
    curriculum: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_lengths("Surrogate", self.unroll, self.curriculum)

    def pose(self, problem: Problem) -> Problem:
        """The problem of a network alone."""
        return without_solver(problem) if View.REFERENCE in problem.offers else problem

    def steps(self, problem: Problem, done: float) -> int:
        return _grown(problem, self.unroll, self.curriculum, done)


def _grown(problem: Problem, unroll: int | None, curriculum: int | None, done: float) -> int:
    """Steps of a window when so much of the training is done."""
    steps = unroll or training_windows(problem).unroll
    first = min(curriculum or steps, steps)
    return min(steps, math.ceil(first * (steps / first) ** min(done / GROWTH, 1.0) - 1e-9))


def _require_lengths(who: str, unroll: int | None, curriculum: int | None) -> None:
    optional = {"unroll": unroll, "curriculum": curriculum}
    whole(who, **{name: value for name, value in optional.items() if value is not None})
