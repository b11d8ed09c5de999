"""The one result of every strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcontrol import store, tree
from dpcontrol.engine.trajectory import Trajectory
from dpcontrol.posterior import Draws, Posterior
from dpcontrol.problem.base import Problem
from dpcontrol.problem.goals import goals
from dpcontrol.problem.policy_slot import Policy
from dpcontrol.results import Counts, Status, UsageError
from dpcontrol.tree import Tree

STORED = "solution.safetensors"  # in the folder of a run


@dataclass(frozen=True)
class Solution:
    """What a run found, the same fields for every strategy.

    Attributes:
        value: what was sought, as the dict ``z`` (slot name -> tree; layout in :mod:`dpcontrol.problem.unknown`).
        status: how the run ended, with a sentence.
        loss: mean over scenarios, judged on the plant.
        losses: per scenario, ``(scenarios,)``.
        metrics: the problem's figures, means over scenarios or ratios of means.
        history: columns ``simulated_steps, gradients, seconds, loss`` (mean of the best so far) and ``latest`` (mean
            loss of the evaluation itself, NaN where it did not cover all scenarios); one row per evaluation.
        counts: what it cost (see :class:`~dpcontrol.results.Counts`).
        seconds: wall time.
        strategy: its name; ``configuration`` shows the fields that differ from their defaults.
        budget: the limits that were in force.
        problem: the problem as the strategy asked it; ``None`` for a solution loaded without it.
        draws: of the posterior, from strategies that sample or approximate one (``posterior`` has more to say of them);
            ``value`` is then the most probable point that was seen.
        diagnostics: of the draws, plain values (see :func:`dpcontrol.posterior.plain`); empty without draws.
    """

    problem: Problem | None
    strategy: str
    configuration: str
    seed: int
    budget: Mapping[str, Any]
    value: Tree
    status: Status
    loss: float
    losses: Tensor
    metrics: Mapping[str, float]
    history: Mapping[str, list[Any]]
    counts: Counts
    seconds: float
    folder: str | None = None
    problem_name: str = ""
    draws: Draws | None = field(default=None, repr=False)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    _stored: Trajectory | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        figures = ", ".join(
            f"{name} {value:.6g}" for name, value in {"loss": self.loss, **self.metrics}.items()
        )
        return f"Solution of {self.name} by {self.strategy}: {figures} ({self.status}, {self.cost})"

    def __str__(self) -> str:
        sentence = self.status.sentence.removesuffix(self.diagnostics.get("sentence", "")).rstrip()
        figures = {
            "loss": f"{self.loss:.8g}",
            **{name: f"{value:.6g}" for name, value in self.metrics.items()},
        }
        lines = [f"  {name:<22}{value}" for name, value in {**figures, "cost": self.cost}.items()]
        return "\n".join([f"{self.name} by {self.strategy}: {sentence}", *lines])

    @property
    def cost(self) -> str:
        """What it came to, in words."""
        counts = self.counts
        return f"{counts.simulated_steps} simulated steps, {counts.gradients} gradients, {self.seconds:.1f} s"

    @property
    def name(self) -> str:
        """The problem's name, also where the solution was loaded without it."""
        return self.problem_name if self.problem is None else self.problem.name

    @property
    def reproducible(self) -> bool:
        """Whether the same call gives the same numbers to the bit: not when a limit in seconds ended it."""
        return self.budget.get("seconds") is None or self.status.kind not in ("budget spent", "interrupted")

    @property
    def posterior(self) -> Posterior | None:
        """The posterior, where the strategy gives one: summary, verdict, predictions, pictures, ArviZ.

        Raises:
            UsageError: if the solution was loaded without its problem.
        """
        if self.draws is None:
            return None
        if self.problem is None:
            raise UsageError(
                "a posterior needs its problem: load the solution with problem=..., or use .draws."
            )
        return Posterior(self.problem, self.draws, self.strategy)

    def trajectory(self) -> Trajectory:
        """The trajectory on the plant: states ``(horizon + 1, scenarios, ...)``, controls, times.

        Runs whose problem has metrics, or that are stored in a folder, have it at hand; others are rolled out again.
        """
        if self._stored is not None:
            return self._stored
        if self.problem is None:
            raise UsageError("this solution was stored without a trajectory; load it with problem=...")
        with torch.no_grad():
            return self.problem.simulate(self.value)

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure of loss, trajectory, target and control; written to ``path`` (PNG, PDF, SVG) if one is given.

        Of a posterior: marginals, and predictions beside what was measured.
        """
        from dpcontrol import plot

        if self.draws is not None and self.problem is not None:
            return Posterior(self.problem, self.draws, self.strategy).plot(path)

        trajectory, title = self.trajectory(), f"{self.name} by {self.strategy}"
        figures = {"loss": self.loss, **self.metrics}
        said = " · ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
        words, wanted = plot.Words(title, f"{self.status}: {said}"), {}
        if self.problem is not None:
            plant = self.problem.plant or self.problem.simulator
            words = replace(words, states=plant.state_names, controls=plant.control_names)
            last = tree.map(lambda leaf: leaf[-1], trajectory.states)
            for goal in goals(self.problem, last):
                wanted.update(plot.wanted_quantities(goal.path, goal.steps, goal.values))
        figure = plot.solution_figure(trajectory, self.history, words=words, wanted=wanted)
        if path is not None:
            plot.write(figure, path)
        return figure

    def own_figures(self) -> dict[str, Any]:
        """Name -> figure: those of a posterior, and those that the problem brings along (``plots=``)."""
        from dpcontrol.plot import own_figure

        if self.problem is None:
            return {}
        posterior = self.posterior
        found = {} if posterior is None else posterior.figures()
        brought = {
            name: own_figure(name, draw, {self.strategy: self}) for name, draw in self.problem.plots.items()
        }
        return {**found, **brought}

    def record(self) -> dict[str, Any]:
        """The plain values that ``--json`` prints."""
        return {
            "problem": self.name,
            "strategy": self.strategy,
            "configuration": self.configuration,
            "seed": self.seed,
            "loss": self.loss,
            "losses": [float(loss) for loss in self.losses],
            "status": self.status.kind,
            "sentence": self.status.sentence,
            "seconds": self.seconds,
            "counts": {"simulated_steps": self.counts.simulated_steps, "gradients": self.counts.gradients},
            "failures": self.counts.failures,
            "budget": dict(self.budget),
            "reproducible": self.reproducible,
            "metrics": dict(self.metrics),
            "posterior": dict(self.diagnostics) or None,
            "folder": self.folder,
        }

    def save(self, folder: str | Path) -> None:
        """Store everything but the problem itself, and the trajectory, as safetensors and JSON."""
        path = Path(folder)
        trajectory = self.trajectory()  # once: it is a rollout
        content = {
            "value": tree.detach(self.value),
            "losses": self.losses,
            "states": trajectory.states,
            "controls": trajectory.controls,
            "times": trajectory.times,
        }
        info = {**self.record(), "history": {name: list(column) for name, column in self.history.items()}}
        store.save(path / STORED, content, {**info, "folder": str(path)})
        if self.draws is not None:
            store.save(path / "draws.safetensors", self.draws.to_tree())

    @classmethod
    def load(cls, folder: str | Path, problem: Problem | None = None) -> Solution:
        """A stored solution; give the problem to go on working with it, or do without for its numbers and plots.

        The problem is the one that the strategy asked: ``dpcontrol.load(folder, problem)`` finds that by itself.

        Raises:
            UsageError: if the folder holds no solution, or one of a problem that seeks something else.
        """
        path = Path(folder)
        content, info = store.load(path / STORED)
        if problem is not None and set(content["value"]) != set(problem.unknown.names):
            raise UsageError(
                f"{path} holds {', '.join(sorted(content['value']))}, but {problem.name} seeks "
                f"{', '.join(problem.unknown.names)}: dpcontrol.load(folder, problem) poses it as the strategy did."
            )
        if problem is not None:
            _require_weights(path, problem, content["value"])
        drawn = path / "draws.safetensors"
        return cls(
            problem=problem,
            strategy=info["strategy"],
            configuration=info["configuration"],
            seed=info["seed"],
            budget=info["budget"],
            value=content["value"],
            status=Status(info["status"], info["sentence"]),
            loss=info["loss"],
            losses=content["losses"],
            metrics=info["metrics"],
            history=info["history"],
            counts=Counts(info["counts"]["simulated_steps"], info["counts"]["gradients"], info["failures"]),
            seconds=info["seconds"],
            folder=str(path),
            problem_name=info["problem"],
            draws=Draws.from_tree(store.load(drawn)[0]) if drawn.is_file() else None,
            diagnostics=info.get("posterior") or {},  # solutions of earlier versions have none
            _stored=Trajectory(content["states"], content["controls"], content["times"]),
        )


def _require_weights(path: Path, problem: Problem, value: Mapping[str, Tree]) -> None:
    """Refuse the weights of a policy that are not those of the problem's network."""
    for slot in problem.unknown.slots:
        if isinstance(slot, Policy):
            stored, wanted = value[slot.name], slot.guess(problem.pose())
            if not tree.same_shapes(stored, wanted):
                raise UsageError(
                    f"{path} holds the weights of a network that does not fit {problem.name}: found "
                    f"{tree.describe(stored)}, expected {tree.describe(wanted)}; load it with the problem that it was "
                    "trained for."
                )
