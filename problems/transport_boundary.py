r"""An unstable transport equation, brought to rest from its boundary.

The equation, on 0 < x < 1:

    u_t = u_x + beta(x) u(0, t),    u(1, t) = U(t)

The question: which boundary values U, held for 0.1 each and bounded, bring the state to rest soonest? What is done at
x = 1 is felt at x = 0 one unit of time later, and what happens at x = 0 acts on the whole line at once.

==========  ==================================================================  =====================
symbol      value                                                               unit (nondimensional)
==========  ==================================================================  =====================
``u``       state, 100 points                                                   1
``U``       control, boundary value at x = 1, -20 <= U <= 20, held for 0.1      1
``beta``    5 cos(7.35 arccos x)                                                1/time
``dx, dt``  0.01 and 1e-4: upwind differences, forward Euler                    length, time
``N``       50 controls, T = 5 (25 in the small size, T = 2.5)                  1
``u(x,0)``  1 in the first scene, 10 in the second                              1
==========  ==================================================================  =====================

Unknown: the held boundary values, one sequence for each scene, from zero. Searches work in units of 3 until t = 0.7 and
of 3 exp(-4 (t - 0.7)), not below 0.03, from then on: late controls are small, and with one unit for all of them L-BFGS
ends a percent higher. Observation: the whole state. Fresh scenes start from constants drawn from U(1, 10); the seed
changes nothing in the two published ones.

Objective: the published score, the sum of the Euclidean norms of the 50 states at the ends of the held steps,
J = sum_{k=1..N} |u_k|. It is convex in U (norms of a linear system's states), so that every dual point proves a lower
bound: for |y_k| <= 1, J(U) >= sum_k <y_k, u_k(U)>, which is linear in U and smallest in a corner of the bounds
(:func:`lower_bound`). It has kinks where a state is zero, and curvatures 1/|u_k| on the way there; ``smoothing=s``
poses sum_k sqrt(|u_k|^2 + e^2) - e with e = s |u_0| instead, which is never larger.

Metrics: ``score_from_1`` and ``score_from_10``, the scores of the two published starts; ``final_norm``, |u_N| / |u_0|.

Baselines: ``backstepping``, U = dx sum_i k_i u_i with k from k_i = sum_{j<i} k_{i-j} beta_j dx - beta_i in reverse
order, which would extinguish the continuous equation after one unit of time; ``LQR feedback``, clipped to the bounds,
with the stationary gain for sum |u_k|^2 + 0.01 U^2 of the held steps.

Reference: L. Bhan, Y. Bian, M. Krstic, Y. Shi, "PDE control gym: a benchmark for data-driven boundary control of
partial differential equations", L4DC 2024; M. Krstic, A. Smyshlyaev, Syst. Control Lett. 57 (2008).

Scores, full size: published, of the regulator here, and between which numbers the optimum is proven to lie
(``tests/benchmarks/results/transport_boundary.json``):

==========  =============  =======  =======  ============  ==================
start       backstepping   PPO      SAC      LQR feedback  optimum
==========  =============  =======  =======  ============  ==================
1           106.086        474.5    646.8    103.985       82.3228 .. 82.3267
10          1060.86        1818.5   1347.3   1039.85       823.247 .. 823.267
==========  =============  =======  =======  ============  ==================

Uncontrolled: 4,411 from 1. ``lbfgs`` ends within 0.03 % of the optimum, and with ``memory=100`` (as many differences as
there are controls, and more) at its upper number. Where it jams at a bound or a kink, and to prove a bound, solve a
sequence of smoothed problems, each from the answer of the one before::

    start = 0.0
    for smoothing in (0.1, 0.01, 1e-3, 1e-4):
        smoothed = problem(smoothing=smoothing, start=start)
        solution = dpcontrol.solve(smoothed, "lbfgs", memory=100, loss_tolerance=1e-16)
        start = solution.value["control"]
        proven = lower_bound(problem(), dual_point(solution.trajectory(), smoothing))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol import safe
from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    UsageError,
    control_problem,
    scene_generator,
)
from dpcontrol.problem.objective import Frame, Moment, Term
from dpcontrol.sim import BoundaryTransport, Simulator
from dpcontrol.tree import Tree

STRONGEST, PRICE = 20.0, 0.01
STARTS = (1.0, 10.0)
STEPS = {"full": 50, "small": 25}
PUBLISHED = {
    "backstepping (published)": (106.086, 1060.86),
    "PPO (published)": (474.5, 1818.5),
    "SAC (published)": (646.8, 1347.3),
}
STRATEGIES = ["baseline", "adjoint", "lbfgs", "cmaes"]
DEFAULTS = {
    "full": {"strategies": [*STRATEGIES, "cem"], "simulated_steps": 200_000, "seconds": 120.0},
    "small": {"strategies": STRATEGIES, "simulated_steps": 25_000, "seconds": 20.0},
}

Law = Callable[[Tensor, float, Mapping[str, Any]], Tensor]


def problem(*, size: str = "full", seed: int = 0, smoothing: float = 0.0, start: Any = 0.0) -> Problem:
    """Boundary control of the transport equation.

    Args:
        size: ``"full"`` (50 controls, the published setup) or ``"small"`` (25).
        seed: a whole number; there is nothing to draw.
        smoothing: ``e / |u_0|`` of a smoothed score; 0 is the published one.
        start: start guess of the controls, a number or a tensor that broadcasts to (scenes, N, 1).

    Raises:
        UsageError: for another size or seed, or a negative smoothing.
    """
    scene_generator("transport_boundary", size, seed)
    simulator = BoundaryTransport()
    laws = {"backstepping": linear_law(backstepping(simulator)), "LQR feedback": linear_law(lqr(simulator))}
    return control_problem(
        simulator,
        initial_state=constants(torch.tensor(STARTS), simulator.points),
        horizon=STEPS[size],
        objective=SumOfNorms(smoothing),
        control=bounded_control(3.0 * fading(STEPS[size], simulator.dt, rate=4.0, delay=0.7), start),
        scenarios=Scenarios({}, sampler=sampler(simulator.points)),
        baselines=laws,
        metrics=METRICS,
        plots=pictures(simulator, laws, STEPS[size], PUBLISHED if size == "full" else {}),
        name="transport_boundary",
    )


def backstepping(simulator: BoundaryTransport) -> Tensor:
    """The published gains, ``(points,)``: the kernel's convolution with the state by the rectangle rule."""
    dx = simulator.dx
    places = torch.linspace(dx, 1, simulator.points, dtype=torch.float64)  # as published, half a point off
    beta = 5.0 * torch.cos(7.35 * torch.arccos(places))
    kernel = torch.zeros_like(beta)
    for i in range(len(beta)):
        kernel[i] = dx * (kernel[1 : i + 1].flip(0) * beta[:i]).sum() - beta[i]
    return dx * kernel.flip(0)


# -- what reaction_diffusion_boundary shares -------------------------------------------------------------------


def fading(steps: int, dt: float, *, rate: float, delay: float = 0.0) -> Tensor:
    """1 until ``delay``, then falling at ``rate`` down to 0.01, ``(steps, 1)``: what later controls are worth."""
    times = dt * torch.arange(steps, dtype=torch.float64)[:, None]
    return torch.exp(-rate * (times - delay).clamp(min=0)).clamp(min=0.01)


def bounded_control(magnitude: Tensor, start: Any) -> ControlSequence:
    """The boundary values, in units of their magnitudes ``(N, 1)``."""
    return ControlSequence(1, low=-STRONGEST, high=STRONGEST, start=start, scale=magnitude)


class SumOfNorms(Term):
    """``sum_{k=1..N} |u_k|``; with ``smoothing`` s, ``sqrt(|u_k|^2 + e^2) - e`` in its place, ``e = s |u_0|``."""

    def __init__(self, smoothing: float = 0.0) -> None:
        if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float)) or not smoothing >= 0:
            raise UsageError(f"smoothing must be a number, 0 or larger; found {smoothing!r}.")
        self.smoothing = smoothing

    def stage(self, memory: Tree, moment: Moment, frame: Frame) -> tuple[Tree, Tensor | None]:
        return memory, None if moment.k == 0 else self.of(moment.state, frame)

    def finish(self, memory: Tree, moment: Moment, frame: Frame) -> Tensor | None:
        return self.of(moment.state, frame)

    def of(self, state: Tensor, frame: Frame) -> Tensor:
        """The cost of one state, ``(scenes,)``."""
        squares = state.square().sum(-1)
        if self.smoothing == 0:
            return safe.sqrt(squares)
        e = self.smoothing * torch.linalg.vector_norm(frame.scenario["initial_state"], dim=-1)
        return torch.sqrt(squares + e.square()) - e


def norms(trajectory: Trajectory) -> Tensor:
    """``|u_k|``, k = 1 .. N, ``(N, scenes)``."""
    return torch.linalg.vector_norm(trajectory.states[1:], dim=-1)


def score_from(start: float) -> Callable[[Trajectory, Mapping[str, Any]], tuple[Tensor, Tensor]]:
    """The metric: the mean score of the scenes that start from a constant; not a number where there are none."""

    def metric(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        chosen = (trajectory.states[0][:, 0] == start).to(trajectory.states.dtype)
        return norms(trajectory).sum(0) * chosen, chosen

    return metric


METRICS: Mapping[str, Callable[[Trajectory, Mapping[str, Any]], Any]] = {
    "score_from_1": score_from(1.0),
    "score_from_10": score_from(10.0),
    "final_norm": lambda path, scenario: norms(path)[-1] / torch.linalg.vector_norm(path.states[0], dim=-1),
}


def constants(values: Tensor, points: int) -> Tensor:
    """Constant states, ``(scenes, points)``, float64."""
    return values.double()[:, None].expand(-1, points).clone()


def sampler(points: int) -> Callable[[torch.Generator, int], dict[str, Tensor]]:
    """Draws constant starts from U(1, 10)."""

    def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        unit = torch.rand(count, generator=generator, dtype=torch.float64)
        return {"initial_state": constants(1 + 9 * unit, points)}

    return draw


def linear_law(gains: Tensor) -> Law:
    """The law ``U = gains . u``; ``gains`` has no more entries than the state, whose first ones it takes."""

    def law(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
        return (state[:, : len(gains)] @ gains.to(state))[:, None]

    return law


def held_matrices(simulator: Simulator) -> tuple[Tensor, Tensor]:
    """``A`` and ``B`` of a held step."""
    values = {name: torch.as_tensor(v, dtype=torch.float64) for name, v in simulator.parameters.items()}
    found = simulator.prepare(values, {})
    return found["A"], found["B"]


def lqr(simulator: Simulator, price: float = PRICE) -> Tensor:
    """Gains ``(points,)`` of ``U = gains . u``, the optimum of ``sum |u_k|^2 + price U_k^2`` without bounds.

    Riccati's equation by doubling, quadratically convergent (B. Anderson, Int. J. Control 28 (1978)).
    """
    A, B = held_matrices(simulator)
    identity = torch.eye(len(A), dtype=A.dtype)
    a, g, h = A, B @ B.T / price, identity
    for _ in range(50):
        solved = torch.linalg.solve(identity + g @ h, torch.cat((a, g), 1))
        moved, spread = solved[:, : len(a)], solved[:, len(a) :]
        added = a.T @ h @ moved
        a, g, h = a @ moved, g + a @ spread @ a.T, h + added
        if float(added.abs().max()) <= 1e-13 * float(h.abs().max()):
            break
    else:
        raise UsageError("Riccati's equation has no solution here: some growing mode cannot be controlled.")
    return -(B.T @ h @ A / (price + B.T @ h @ B))[0]


def lower_bound(problem: Problem, dual: Tensor) -> Tensor:
    """A number for each scene, ``(scenes,)``, below which no control within the bounds can bring the score.

    For ``|y_k| <= 1``, ``sum |u_k(U)| >= sum <y_k, u_k(U)> = c + <g, U>``, the least value of which over the bounds
    is ``c + sum_j min(g_j low_j, g_j high_j)``. Any ``y`` proves a bound; that of an optimum, ``u_k / |u_k|``, proves
    the optimum itself, and :func:`dual_point` makes it from a control that is nearly one.

    Args:
        dual: ``y``, ``(N, scenes, points)``; rows longer than 1 are scaled down.

    Raises:
        UsageError: if the control is unbounded.
    """
    limits = problem.unknown.limits(problem.pose())
    if limits is None or not bool(torch.isfinite(limits[0]["control"] - limits[1]["control"]).all()):
        raise UsageError(f"a lower bound of {problem.name} needs bounds on the control; it has none.")
    low, high = (side["control"] for side in limits)
    y = dual / torch.linalg.vector_norm(dual, dim=-1, keepdim=True).clamp(min=1.0)
    rest = {"control": torch.zeros_like(low).requires_grad_()}
    with torch.enable_grad():
        value = (y * problem.simulate(rest, plant=False).states[1:]).sum((0, 2))
        (g,) = torch.autograd.grad(value.sum(), rest["control"])
    return value.detach() + torch.minimum(g * low, g * high).sum((1, 2))


def dual_point(trajectory: Trajectory, smoothing: float = 0.0) -> Tensor:
    """``u_k / sqrt(|u_k|^2 + e^2)``, ``(N, scenes, points)``: the dual point of a (smoothed) score at a trajectory."""
    states = trajectory.states
    e = smoothing * torch.linalg.vector_norm(states[0], dim=-1)
    return states[1:] / safe.sqrt(states[1:].square().sum(-1) + e.square())[..., None].clamp(min=1e-300)


def pictures(
    simulator: Simulator, laws: Mapping[str, Law], steps: int, published: Mapping[str, tuple[float, float]]
) -> dict[str, Callable[..., None]]:
    """The figures of the report; scores only beside published ones."""
    found: dict[str, Callable[..., None]] = {
        "the state over space and time": SpaceTime(simulator, laws["backstepping"], steps)
    }
    return found | ({"scores beside the published ones": Scores(published)} if published else {})


class SpaceTime:
    """The report's picture: from the last scene, the state under each solution over space and time, and the controls.

    Called with a matplotlib figure and a dict, label -> solution. The uncontrolled state and a law go before them.
    """

    def __init__(self, simulator: Simulator, law: Law, steps: int, name: str = "backstepping") -> None:
        self.simulator, self.law, self.steps, self.name = simulator, law, steps, name

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        panels = self.panels(solutions)
        axes = figure.subplots(
            2, len(panels), sharex="row", sharey="row", squeeze=False, height_ratios=(2.4, 1)
        )
        image = None
        end = self.steps * self.simulator.dt
        limit = float(next(iter(panels.values()))[0][0].abs().max())
        for (top, bottom), (label, (states, controls)) in zip(axes.T, panels.items(), strict=True):
            image = top.imshow(
                states.numpy(), origin="lower", aspect="auto", extent=(0, 1, 0, end), cmap="RdBu_r",
                vmin=-1.5 * limit, vmax=1.5 * limit,
            )  # fmt: skip
            top.grid(False)
            top.set_title(label, fontsize=10)
            top.set(xlabel="x", xticks=(0, 0.5, 1))
            times = [k * self.simulator.dt for k in range(self.steps + 1)]
            bottom.step(
                times, [*controls.tolist(), float(controls[-1])], where="post", lw=1.3, color="#1d2433"
            )
            bottom.set_xlabel("t")
        axes[0, 0].set_ylabel("t")
        axes[1, 0].set_ylabel("U")
        axes[1, 0].set_ylim(-1.08 * STRONGEST, 1.08 * STRONGEST)
        figure.colorbar(image, ax=axes[0].tolist(), label="u", extend="both", pad=0.01)

    def panels(self, solutions: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Label -> states ``(steps + 1, points)`` and controls ``(steps,)`` of the last scene."""
        found = {label: solution.trajectory() for label, solution in solutions.items()}
        start = next(iter(found.values())).states[0][-1:]
        rest = torch.zeros(self.steps, 1, 1, dtype=start.dtype)
        result = {"uncontrolled": (rollout(self.simulator, start, rest).states[:, 0], rest[:, 0, 0])}
        if not any(self.name in label for label in found):
            result[self.name] = self.under_the_law(start)
        for label, trajectory in found.items():
            result[label] = (trajectory.states[:, -1], trajectory.controls[:, -1, 0])
        return result

    def under_the_law(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """States and controls of a closed loop from one state ``(1, points)``."""
        A, B = (part.to(start) for part in held_matrices(self.simulator))
        states, controls = [start], []
        for k in range(self.steps):
            controls.append(self.law(states[-1], k * self.simulator.dt, {}).clamp(-STRONGEST, STRONGEST))
            states.append(states[-1] @ A.T + controls[-1] @ B.T)
        return torch.cat(states), torch.cat(controls)[:, 0]


class Scores:
    """A picture of the scores of the two published starts, each solution's beside the published ones."""

    def __init__(self, published: Mapping[str, tuple[float, float]]) -> None:
        self.published = published

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        found = {
            label: tuple(solution.metrics[f"score_from_{start:g}"] for start in STARTS)
            for label, solution in solutions.items()
        }
        rows = {**found, **self.published}
        for column, axes in enumerate(figure.subplots(1, len(STARTS), sharey=True)):
            for place, (label, scores) in enumerate(rows.items()):
                own = label in found
                axes.barh(place, scores[column], color="#0072B2" if own else "#aab1bd", height=0.62)
                axes.text(scores[column], place, f"  {scores[column]:,.6g}", va="center", fontsize=9)
            axes.set_title(f"from {STARTS[column]:g}")
            axes.set_xlabel("score")
            axes.set_xlim(0, 1.25 * max(scores[column] for scores in rows.values()))
            axes.grid(False)
        figure.axes[0].set_yticks(range(len(rows)), list(rows))
        figure.axes[0].invert_yaxis()
