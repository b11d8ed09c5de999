"""The one noun: a problem, and its views."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Full, GradientMode
from dpcontrol.engine.trajectory import Trajectory
from dpcontrol.problem import objective as folds
from dpcontrol.problem import shown
from dpcontrol.problem.course import Opening
from dpcontrol.problem.objective import Objective
from dpcontrol.problem.policy_slot import Policy, played
from dpcontrol.problem.prior import Prior
from dpcontrol.problem.rolling import roll
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.problem.slots import ControlSequence
from dpcontrol.problem.terms import Misfit, target_state
from dpcontrol.problem.unknown import Law, Pose, Slot, Unknown
from dpcontrol.problem.windows import Windows
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree

Metric = Callable[[Trajectory, Mapping[str, Tree]], Tensor | tuple[Tensor, Tensor]]
Constraint = Callable[[Trajectory], Tensor]
PlotFunction = Callable[..., Any]


class View(enum.Enum):
    """What a problem can be asked for; strategies say which of these they need."""

    LOSS = "a loss"
    GRADIENT = "a gradient"
    EXACT_GRADIENT = "an exact gradient"
    RESIDUALS = "residuals (an objective that is a sum of squares)"
    CURVATURE = "a sum of squares or the density of measurements (for their Gauss-Newton matrix)"
    LOG_DENSITY = "a log-density (a prior)"
    STANDARD_NOISE = "measurement noise that is Gaussian or log-normal with a known scale"
    WHITE_PRIOR = "a prior that is Gaussian in some coordinates"
    ACTING = "a control that acts step by step"
    BASELINES = "simple laws of its own (baselines=...)"
    DISTRIBUTION = "a distribution of scenarios to draw from"
    REFERENCE = "reference trajectories to learn a correction from (correction_problem)"
    TARGET = "a target that is a whole state, which a controller sees (reach(target) or closing(target))"


class Demand(enum.Enum):
    """What a strategy must honour in a problem, or refuse it."""

    BOUNDS = "bounds"
    CONSTRAINTS = "constraints"
    HELD_OUT = "held-out trajectories (nothing may be fitted to those that it is judged on)"


@dataclass(frozen=True)
class Origin:
    """Where a problem can be found again: a problem file by name or path, with the arguments that built it."""

    reference: str
    size: str
    seed: int


@dataclass(frozen=True)
class Problem:
    """A control, inference or correction task over a simulator. Made by :func:`control_problem` and its siblings.

    ``z``, what is sought, is a dict: slot name -> tree (see :mod:`dpcontrol.problem.unknown` for its layout). Losses
    are per scenario, ``(scenarios,)``.

    ``joint`` treats all scenarios as one search even where they share nothing: a posterior is a density of everything.
    ``opening`` is where a window of another problem begins.
    ``truth`` (name -> value) and ``reference_posterior`` (name -> mean and standard deviation) are for reports only.
    """

    name: str
    simulator: Simulator
    scenarios: Scenarios
    horizon: int
    unknown: Unknown
    objective: Objective
    parameters: Mapping[str, Any] = field(default_factory=dict)
    plant: Simulator | None = None
    prior: Prior | None = None
    observation: Callable[[Tree], Tree] | None = None
    constraint_functions: tuple[Constraint, ...] = ()
    baselines: Mapping[str, Law] = field(default_factory=dict)
    references: Mapping[str, Law] = field(default_factory=dict)
    metric_functions: Mapping[str, Metric] = field(default_factory=dict)
    plots: Mapping[str, PlotFunction] = field(default_factory=dict)
    gradient: GradientMode = field(default_factory=Full)
    differentiable: bool = True
    origin: Origin | None = None
    description: str = ""
    joint: bool = False
    opening: Opening | None = None
    truth: Mapping[str, Any] | None = None
    reference_posterior: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return shown.in_a_line(self)

    def __str__(self) -> str:
        return shown.in_full(self)

    # -- sizes ---------------------------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The step that it begins with: 0, but for windows."""
        return 0 if self.opening is None else self.opening.first

    @property
    def free_steps(self) -> int:
        """Steps whose control is free: all, or all but the one that a closing condition takes."""
        return self.horizon - (folds.closing_term(self.objective) is not None)

    @property
    def separate(self) -> bool:
        """Whether every scenario is a problem of its own."""
        return self.unknown.separate and not self.joint

    def pose(self) -> Pose:
        """What the slots of the unknown may know of this problem."""
        initial = self.scenarios.data["initial_state" if self.opening is None else self.opening.state]
        leaf = tree.leaves(initial)[0]
        values = {**self.simulator.parameters, **self.parameters}
        return Pose(self.scenarios.count, self.free_steps, initial, values, leaf.dtype, leaf.device)

    def start(self, scenarios: Tensor | None = None) -> dict[str, Tree]:
        """The start guess, in natural numbers, for some scenarios or all."""
        guess = tree.map(
            torch.clone, self.unknown.guess(self.pose())
        )  # nobody shall write into the scenarios
        if scenarios is None:
            return guess
        shared = {slot.name for slot in self.unknown.slots if slot.shared}
        return {name: z if name in shared else tree.take(z, scenarios) for name, z in guess.items()}

    # -- what it offers and demands --------------------------------------------------------------------------------

    @property
    def offers(self) -> frozenset[View]:
        """The views that exist for this problem."""
        acting = len(self.unknown.slots) == 1 and isinstance(self.unknown.slots[0], (ControlSequence, Policy))
        squares = self.prior is None and folds.is_sum_of_squares(self.objective)
        noises = [term.noise for _, term in self.objective.terms if isinstance(term, Misfit)]
        measured = len(noises) == len(self.objective.terms)
        found = {
            View.LOSS: True,
            View.GRADIENT: self.differentiable,
            View.EXACT_GRADIENT: self.differentiable and self.gradient.exact,
            View.RESIDUALS: squares,
            View.CURVATURE: squares or measured,
            View.LOG_DENSITY: self.prior is not None,
            View.STANDARD_NOISE: measured and all(noise.standard for noise in noises),
            View.WHITE_PRIOR: self.prior is not None and self.prior.white,
            View.ACTING: acting and self.horizon > 0,
            View.BASELINES: bool(self.baselines) and acting,
            View.DISTRIBUTION: self.scenarios.sampler is not None,
            View.REFERENCE: isinstance(self.scenarios.sampler, Windows),
            View.TARGET: self.observation is None and target_state(self.objective) is not None,
        }
        return frozenset(view for view, there in found.items() if there)

    @property
    def demands(self) -> frozenset[Demand]:
        """What a strategy has to honour."""
        bounded = self.unknown.limits(self.pose()) is not None
        found = {
            Demand.BOUNDS: bounded,
            Demand.CONSTRAINTS: bool(self.constraint_functions),
            Demand.HELD_OUT: isinstance(self.scenarios.sampler, Windows),
        }
        return frozenset(demand for demand, there in found.items() if there)

    @property
    def belief(self) -> Prior:
        """The prior.

        Raises:
            UsageError: if there is none.
        """
        if self.prior is None:
            raise UsageError(f"{self.name} has no prior: pose it with inference_problem(..., prior=...).")
        return self.prior

    # -- views -------------------------------------------------------------------------------------------------------

    def loss(self, z: Mapping[str, Tree], scenarios: Tensor | None = None) -> Tensor:
        """Loss of each scenario, ``(scenarios,)``, differentiable.

        With a prior it is minus the log-density of data and unknown (without Jacobian), split over the scenarios so
        that their sum is the whole.
        """
        return self._with_prior(roll(self, z, scenarios).loss, z)

    def judge(self, z: Mapping[str, Tree]) -> Tensor:
        """Loss of each scenario on the plant, ``(scenarios,)``: what the answer is worth in the end."""
        return self.loss(z) if self.plant is None else roll(self, z, plant=True).loss

    def score(self, z: Mapping[str, Tree]) -> tuple[Tensor, dict[str, float], Trajectory | None]:
        """What :meth:`judge` and :meth:`metrics` say, in one rollout, and its trajectory if metrics asked for one."""
        if not self.metric_functions:
            return self.judge(z), {}, None
        rolled = roll(self, z, plant=True, keep=True)
        assert rolled.trajectory is not None
        losses = rolled.loss if self.plant is not None else self._with_prior(rolled.loss, z)
        return losses, _means(self.metric_samples(rolled.trajectory)), rolled.trajectory

    def residuals(self, z: Mapping[str, Tree], scenarios: Tensor | None = None) -> Tensor:
        """Residuals ``(scenarios, entries)``, whose sum of squares is the loss.

        Raises:
            UsageError: if the objective is not a sum of squares.
        """
        if View.RESIDUALS not in self.offers:
            raise UsageError(f"the objective of {self.name} is not a sum of squares, so it has no residuals.")
        found = roll(self, z, scenarios, residuals=True).residuals
        assert found is not None
        return found

    def log_likelihood(self, z: Mapping[str, Tree]) -> Tensor:
        """Log-likelihood of the data, a scalar."""
        return -roll(self, z).loss.sum()

    def log_prior(self, z: Mapping[str, Tree]) -> Tensor:
        """Log-density of the prior with respect to natural numbers, a scalar."""
        return self.belief.log_density(z)

    def log_density(self, free: Mapping[str, Tree], *, jacobian: bool = True) -> Tensor:
        """Log-density of the posterior up to a constant at *free* numbers, a scalar.

        With ``jacobian`` it is the density of the free numbers, which samplers need; without, that of the natural
        ones, whose maximum is the usual estimate.
        """
        z = self.unknown.natural(free)
        likelihood = self.log_likelihood(z)
        return likelihood + (self.belief.log_density_free(free, z) if jacobian else self.log_prior(z))

    def constraints(self, z: Mapping[str, Tree]) -> Tensor:
        """Values ``(scenarios, entries)`` that must not be positive."""
        trajectory = self.simulate(z)
        return torch.cat([function(trajectory) for function in self.constraint_functions], dim=1)

    def simulate(self, z: Mapping[str, Tree], *, plant: bool = True) -> Trajectory:
        """The trajectory under ``z``, on the plant (or on the model)."""
        trajectory = roll(self, z, plant=plant, keep=True).trajectory
        assert trajectory is not None
        return trajectory

    def run_law(self, law: Law) -> Trajectory:
        """The trajectory under a feedback law ``law(state, t, scenario) -> control``, clipped to the bounds."""
        acting = played(self.unknown.slots)

        def clipped(state: Tree, t: float, scenario: Mapping[str, Tree]) -> Tree:
            control = law(state, t, scenario)
            return control if acting is None else acting.clip(control)

        trajectory = roll(self, self.start(), plant=True, keep=True, law=clipped).trajectory
        assert trajectory is not None
        return trajectory

    def metric_samples(self, trajectory: Trajectory) -> dict[str, tuple[Tensor, Tensor]]:
        """Numerator and denominator of every metric, each ``(scenarios,)``; a plain mean has ones below.

        Raises:
            UsageError: if a metric fails or returns something else.
        """
        result = {}
        for name, function in self.metric_functions.items():
            try:
                found = function(trajectory, self.scenarios.data)
            except Exception as error:
                raise UsageError(f"metric {name!r} failed with {type(error).__name__}: {error}.") from error
            pair = found if isinstance(found, tuple) else (found, torch.ones_like(found))
            if len(pair) != 2 or any(tuple(part.shape) != (self.scenarios.count,) for part in pair):
                raise UsageError(
                    f"metric {name!r} must return one number per scenario, shape ({self.scenarios.count},), or a pair "
                    f"of such tensors; found {tree.describe(found)}."
                )
            result[name] = pair
        return result

    def metrics(self, z: Mapping[str, Tree]) -> dict[str, float]:
        """The figures that people in the field quote: means over scenarios, or ratios of means."""
        if not self.metric_functions:
            return {}
        with torch.no_grad():
            return _means(self.metric_samples(self.simulate(z)))

    # -- the same question, asked another way ------------------------------------------------------------------------

    def with_unknown(self, *slots: Slot) -> Problem:
        """The same problem with something else sought: a feedback policy instead of a control sequence, say.

        A policy plays the control that it replaces, within the bounds of that.
        """
        acting = played(self.unknown.slots)
        kept = [
            replace(slot, control=acting) if isinstance(slot, Policy) and slot.control is None else slot
            for slot in slots
        ]
        return replace(self, unknown=Unknown(tuple(kept)))

    def with_scenarios(self, scenarios: Scenarios) -> Problem:
        """The same problem, judged on other scenarios."""
        missing = sorted(set(self.scenarios.data) - set(scenarios.data))
        if missing:
            raise UsageError(f"these scenarios lack {missing}, which the problem needs.")
        return replace(self, scenarios=scenarios)

    def _with_prior(self, loss: Tensor, z: Mapping[str, Tree]) -> Tensor:
        if self.prior is None:
            return loss
        own = frozenset(slot.name for slot in self.unknown.slots if not slot.shared)
        return loss - self.prior.split(z, len(loss), own)


def _means(samples: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    return {name: float(top.mean() / bottom.mean()) for name, (top, bottom) in samples.items()}
