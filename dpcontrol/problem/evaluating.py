"""How good a learned correction is in long rollouts: error against length, stability, spectra, on any trajectories."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.trajectory import parameter_values, stepper
from dpcontrol.problem.base import Problem
from dpcontrol.problem.following import parts_of
from dpcontrol.problem.hybrids import coarse_of, hybrid_of, training_windows
from dpcontrol.problem.reference import Reference
from dpcontrol.problem.resolution import Resolution
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator
from dpcontrol.tree import Tree

TOO_LARGE = 10.0  # typical sizes; what has grown beyond is on its way to infinity
SPECTRAL_STEPS = 10  # the last ones that are compared, over which spectra are averaged


@dataclass(frozen=True)
class Evaluation:
    """Rollouts beside their reference.

    Attributes:
        errors: ``mean |x_k - r_k| / mean |r_k|`` over all parts and cells, ``(steps + 1, trajectories)``, as long as
            there is a reference; infinite where a rollout has failed.
        stable: whether a rollout is finite and below ten times the typical size so far,
            ``(rollout + 1, trajectories)``.
        spectrum, reference_spectrum: energy of each whole wavenumber, averaged over trajectories and the last ten steps
            that are compared; empty where the grid is not known.
        seconds: of one step of one trajectory.
    """

    errors: Tensor
    stable: Tensor
    spectrum: Tensor
    reference_spectrum: Tensor
    seconds: float

    def error(self, steps: int) -> float:
        """The mean over trajectories, averaged over the steps ``1 .. steps``.

        Raises:
            UsageError: if the reference is not so long.
        """
        if not 1 <= steps < len(self.errors):
            raise UsageError(
                f"errors are known for 1 to {len(self.errors) - 1} steps; found {steps}: simulate a longer reference."
            )
        return float(self.errors[1 : steps + 1].mean())

    def record(self, lengths: Sequence[int]) -> dict[str, Any]:
        """Plain values for a table or a file: errors over some lengths, the share that is stable to the end."""
        known = {f"error_{n}": self.error(n) for n in lengths if n < len(self.errors)}
        return {**known, "stable": float(self.stable[-1].double().mean()), "seconds_per_step": self.seconds}


def evaluate(
    problem: Problem,
    z: Mapping[str, Tree] | None = None,
    *,
    reference: Reference | None = None,
    part: str = "test",
    steps: int | None = None,
    solver: Resolution | None = None,
) -> Evaluation:
    """Roll the first states of whole trajectories out, and compare.

    Args:
        problem: made by :func:`~dpcontrol.problem.correction.correction_problem`.
        z: an answer of it; ``None`` for the coarse solver alone, or for ``solver``.
        reference: other trajectories (with parameters outside of the training's range, say); the problem's own by
            default.
        part: which of their trajectories, ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        steps: length of the rollouts; that of the reference by default. Behind its end only stability is looked at.
        solver: the same kind of solver on another grid, which starts from the fine states of the reference.

    Raises:
        UsageError: for another problem or part, for both an answer and a solver, or where a solver has no fine states
            to start from.
    """
    hybrid, cut = hybrid_of(problem), training_windows(problem)
    known = (reference or cut.reference).steps
    length = known if steps is None else steps
    found = setting(problem, z, reference=reference, part=part, steps=min(length, known), solver=solver)
    dimensions = None if hybrid.layout is None else hybrid.layout.dimensions
    return _compared(found, length, cut.sizes, dimensions)


@dataclass(frozen=True)
class Setting:
    """What is rolled out and from where, how its states are seen on the coarse grid, and what they are compared with.

    ``truth`` has leaves ``(trajectories, steps + 1, ...)``.
    """

    simulator: Simulator
    initial: Tree
    parameters: Mapping[str, Any]
    scenario: Mapping[str, Tree]
    truth: Tree
    downsample: Callable[[Tree], Tree] | None = None

    def seen(self, state: Tree) -> Tree:
        """The parts of a state that the reference has, on the coarse grid."""
        return parts_of(state if self.downsample is None else self.downsample(state), self.truth)


def setting(
    problem: Problem,
    z: Mapping[str, Tree] | None = None,
    *,
    reference: Reference | None = None,
    part: str = "test",
    steps: int | None = None,
    solver: Resolution | None = None,
) -> Setting:
    """What :func:`evaluate` rolls out; the same arguments, ``steps`` are those that are compared."""
    if z is not None and solver is not None:
        raise UsageError("evaluate takes an answer or a solver; found both: ask for one after the other.")
    cut = training_windows(problem)
    known = reference or cut.reference
    rows = known.rows(part)
    data = known.windows(rows, torch.zeros_like(rows), known.steps if steps is None else steps)
    truth = tree.to(data.pop("reference"), device=cut.device)
    initial = tree.map(lambda leaf: leaf[:, 0], truth)
    simulator: Simulator = coarse_of(problem)
    if solver is not None:
        simulator = solver.steps
        initial = solver.start(tree.to(tree.take(known.known_origin(), rows), device=cut.device))
    fixed = {**problem.parameters, **data}
    given: dict[str, Any] = {name: fixed[name] for name in simulator.parameters if name in fixed}
    if z is not None:
        simulator, given = hybrid_of(problem), {**given, **z["parameters"]}
    return Setting(simulator, initial, given, data, truth, None if solver is None else solver.downsample)


def spectrum(field: Tensor, dimensions: int) -> Tensor:
    r"""Energy of the whole wavenumbers ``0 .. n/2`` of a field ``(..., *grid)``: ``(..., wavenumbers)``.

    :math:`E(k) = \sum_{|\mathbf k| \in [k - 1/2, k + 1/2)} |\hat u_{\mathbf k}|^2`, with :math:`\hat u` the
    coefficients of a Fourier series; wavenumbers count the waves in the box, the shortest axis sets the largest. Of a
    field that is not periodic it holds the jump at the box's ends too.
    """
    grid = field.shape[field.ndim - dimensions :]
    axes = tuple(range(-dimensions, 0))
    energy = (torch.fft.fftn(field, dim=axes) / math.prod(grid)).abs().square()
    modes = torch.meshgrid(*(torch.fft.fftfreq(n, 1 / n) for n in grid), indexing="ij")
    radius = torch.stack(modes).square().sum(0).sqrt().round().long().flatten().to(field.device)
    flat = energy.flatten(field.ndim - dimensions)
    bins = torch.zeros(*flat.shape[:-1], int(radius.max()) + 1, dtype=flat.dtype, device=flat.device)
    return bins.index_add(-1, radius, flat)[..., : min(grid) // 2 + 1]


def _compared(at: Setting, length: int, sizes: tuple[float, ...], dimensions: int | None) -> Evaluation:
    simulator, truth = at.simulator, at.truth
    known = len(tree.leaves(truth)[0][0]) - 1
    errors, stable, spectra = [], [], []
    with torch.no_grad():
        values = parameter_values(simulator, at.parameters, like=at.initial)
        coefficients, state = simulator.prepare(values, at.scenario), simulator.start(at.initial, values)
        step, spent = stepper(simulator), 0.0
        leaf = tree.leaves(at.initial)[0]
        fine = torch.ones(len(leaf), dtype=torch.bool, device=leaf.device)
        for k in range(length + 1):
            seen = at.seen(state)
            fine = fine & _within(seen, sizes)
            stable.append(fine)
            if k <= known:
                row = tree.map(lambda leaf, k=k: leaf[:, k], truth)
                errors.append(torch.where(fine, _error(seen, row), torch.inf))
                if dimensions is not None and k > known - SPECTRAL_STEPS:
                    spectra.append(torch.stack([_energy(seen, dimensions), _energy(row, dimensions)]))
            if k < length:
                began = time.perf_counter()
                state = step(state, (None, None), coefficients, k)
                spent += time.perf_counter() - began
    found = torch.stack(spectra).mean(0) if spectra else torch.zeros(2, 0)
    seconds = spent / (max(length, 1) * len(fine))
    return Evaluation(torch.stack(errors), torch.stack(stable), found[0], found[1], seconds)


def _within(state: Tree, sizes: tuple[float, ...]) -> Tensor:
    verdicts = [
        leaf.flatten(1).square().mean(1).sqrt() < TOO_LARGE * size
        for leaf, size in zip(tree.leaves(state), sizes, strict=True)
    ]
    return torch.stack(verdicts).all(0)


def _error(state: Tree, row: Tree) -> Tensor:
    pairs = list(zip(tree.leaves(state), tree.leaves(row), strict=True))
    above = torch.stack([(x - r).abs().flatten(1).sum(1) for x, r in pairs]).sum(0)
    return above / torch.stack([r.abs().flatten(1).sum(1) for _, r in pairs]).sum(0)


def _energy(state: Tree, dimensions: int) -> Tensor:
    """Energy of all parts and components together, the mean over scenarios, ``(wavenumbers,)``."""
    found = []
    for leaf in tree.leaves(state):
        parts = spectrum(leaf, dimensions)
        found.append(parts.flatten(1, -2).sum(1).mean(0) if parts.ndim > 2 else parts.mean(0))
    shortest = min(len(part) for part in found)
    return torch.stack([part[:shortest] for part in found]).sum(0)


@dataclass(frozen=True)
class ErrorCurves:
    """A report's figure: error against time, and the spectrum at the end, of each solution and of the coarse solver.

    Called with a matplotlib figure and a dict, label -> solution. Every solution is rolled out over whole trajectories
    of the test part.

    Args:
        steps: at most so many.
    """

    steps: int | None = None

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        problem = next(iter(solutions.values())).problem
        found = {"coarse solver": evaluate(problem, steps=self._length(problem))}
        for label, solution in solutions.items():
            found[label] = evaluate(solution.problem, solution.value, steps=self._length(problem))
        spectral = len(found["coarse solver"].spectrum) > 2
        axes = figure.subplots(1, 2 if spectral else 1, squeeze=False)[0]
        for label, one in found.items():
            style = {"color": "0.45", "linestyle": "--"} if label == "coarse solver" else {}
            errors = one.errors.mean(1).cpu()
            axes[0].plot(range(1, len(errors)), errors[1:], label=label, **style)
            if spectral:
                axes[1].plot(range(1, len(one.spectrum)), one.spectrum[1:].cpu(), **style)
        axes[0].set(xlabel="steps", ylabel="relative error", yscale="log", title="error of a rollout")
        if spectral:
            truth = found["coarse solver"].reference_spectrum.cpu()
            axes[1].plot(range(1, len(truth)), truth[1:], "k:", label="reference")
            axes[1].set(
                xlabel="wavenumber", ylabel="energy", xscale="log", yscale="log", title="spectrum at the end"
            )
            # below are waves that rounding has made
            axes[1].set_ylim(bottom=max(0.1 * float(truth[1:].min()), 1e-10 * float(truth[1:].max())))
        figure.legend(loc="outside lower center", ncols=4)

    def _length(self, problem: Problem) -> int:
        longest = training_windows(problem).reference.steps
        return longest if self.steps is None else min(self.steps, longest)
