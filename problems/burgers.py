r"""Burgers' equation, steered by a distributed force from one state to another with little effort.

The equation, on 0 < x < 1 with u = 0 outside:

    u_t + u u_x = nu u_xx + F(x, t)

The question: which force F leads a given state to a given target in 32 steps, exactly, with the least effort?

=====================  ==============================================================  =====================
symbol                 value                                                           unit (nondimensional)
=====================  ==============================================================  =====================
``u``                  state, 32 cells, centres (i + 1/2)/32                           speed ``U``
``F``                  control, 32 cells, held during a step                           acceleration ``U^2/L``
``nu``                 0.003                                                           ``U L``
``dt``                 0.03                                                            time ``L/U``
``N``                  32 steps                                                        1
``u(0)``               Al exp(-(x-l)^2/(2 sl^2)) + Ar exp(-(x-r)^2/(2 sr^2))           ``U``
``l, Al, sl``          U(0.2, 0.4), U(0, 3), U(0.05, 0.15)                             ``L, U, L``
``r, Ar, sr``          U(0.6, 0.8), U(-3, 0), U(0.05, 0.15)                            ``L, U, L``
``u_target``           u after N steps under the constant force below                  ``U``
ground truth force     a exp(-(x-c)^2/(2 s^2))                                         ``U^2/L``
``a, c, s``            32 U(-0.05, 0.05), U(0.4, 0.6), U(0.1, 0.4)                     ``U^2/L, L, L``
=====================  ==============================================================  =====================

Unknown: the force of the first 31 steps, one sequence per scene, unbounded, starting from zero. The last force closes
the gap, F_31 = (u_target - step(u_31, 0))/dt, and its effort counts like any other: there is no weight to tune, and
every method reaches the target. Observation: the whole state; the target is an entry of the scenario.

Objective: effort E = 0.5 sum_{k,i} F_{k,i}^2 over all steps and cells, of each scene (100; 8 in the small size). The
scenes come from a distribution, so that policies train on fresh ones (``problem.scenarios.draw``).

Metrics: ``effort_ratio``, mean E over the scenes, divided by that of the ground truth force (which is *not* optimal);
``force_ratio``, the same for sum |F|; ``force``, sum |F| itself (E itself is the loss). Judge by the effort: the sum
|F| alone can be gamed (do nothing and close the gap at the end: 0.74 in force, 22 in effort). ``target_error``: largest
difference from the target at the end; zero by construction.

Baselines: ``straight line``, F = (u_target - u)/time left, closes the gap as if nothing else moved;
``look ahead``, F = (u_target - u^free_N)/time left, where u^free_N is where the state would end without force.

Reference: P. Holl, V. Koltun, N. Thuerey, "Learning to control PDEs with differentiable physics", ICLR 2020, and
N. Thuerey et al., "Physics-based Deep Learning", chapter "Controlling Burgers' equation with reinforcement learning".

Published there, 100 test scenes, force ratio: PPO 1.31 (4,000 rollouts, about 18 h), network trained through the
physics 1.27 (about 2.4 h), both read off a bar chart. Measured here: ``tests/benchmarks/results/burgers.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    Scenarios,
    closing,
    control_problem,
    effort,
    scene_generator,
)
from dpcontrol.sim import SemiLagrangianBurgers

CELLS, HORIZON, DT, VISCOSITY = 32, 32, 0.03, 0.003
SCENES = {"full": 100, "small": 8}
STRATEGIES = ["baseline", "adjoint", "lbfgs", "newton_krylov", "cem", "cmaes"]
DEFAULTS = {
    "full": {"strategies": STRATEGIES, "simulated_steps": 6_400_000},  # 1,000 gradients of every scene
    "small": {"strategies": STRATEGIES, "simulated_steps": 128_000},  # 250 gradients of every scene
}

SIMULATOR = SemiLagrangianBurgers(dt=DT, viscosity=VISCOSITY, boundary="zero")


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Forced Burgers control.

    Args:
        size: ``"full"`` (100 scenes) or ``"small"`` (8).
        seed: draws the scenes.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("burgers", size, seed)
    scenes = draw(generator, SCENES[size])
    data = {name: value for name, value in scenes.items() if name != "initial_state"}
    return control_problem(
        SIMULATOR,
        initial_state=scenes["initial_state"],
        horizon=HORIZON,
        objective=closing("target") + 0.5 * effort(),
        control=ControlSequence(CELLS),
        scenarios=Scenarios(data, sampler=draw),
        baselines={"straight line": straight_line, "look ahead": look_ahead},
        references={"ground truth": ground_truth},
        metrics={
            "effort_ratio": effort_ratio,
            "force_ratio": force_ratio,
            "force": force,
            "target_error": target_error,
        },
        plots={"states and forces": Comparison(scenes)},
        name="burgers",
    )


def draw(generator: torch.Generator, count: int) -> dict[str, Tensor]:
    """``count`` scenes: ``initial_state``, ``target`` and the ground truth ``force``, each ``(count, 32)``."""
    x = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=generator, dtype=torch.float64)

    def hump(centre: Tensor, height: Tensor, width: Tensor) -> Tensor:
        return height * torch.exp(-((x - centre) ** 2) / (2 * width**2))

    left = hump(uniform(0.2, 0.4), uniform(0, 3), uniform(0.05, 0.15))
    right = hump(uniform(0.6, 0.8), uniform(-3, 0), uniform(0.05, 0.15))
    force = hump(uniform(0.4, 0.6), 32 * uniform(-0.05, 0.05), uniform(0.1, 0.4))
    end = rollout(SIMULATOR, left + right, _constant(force)).states[-1]
    return {"initial_state": left + right, "target": end, "force": force}


def straight_line(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """``(target - u)/time left``: one line, and blind to the physics."""
    return (scenario["target"] - state) / (HORIZON * DT - t)


def look_ahead(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """Simulate what would happen without force, and spread the gap that remains over the time left."""
    left = HORIZON - round(t / DT)
    end = rollout(SIMULATOR, state, length=left).states[-1]
    return (scenario["target"] - end) / (left * DT)


def ground_truth(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """The constant force that made the target."""
    return scenario["force"]


def effort_ratio(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Effort, and that of the ground truth force; each ``(scenes,)``."""
    return 0.5 * trajectory.controls.square().sum((0, 2)), 0.5 * HORIZON * scenario["force"].square().sum(1)


def force_ratio(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """``sum |F|``, and that of the ground truth force; each ``(scenes,)``."""
    return trajectory.controls.abs().sum((0, 2)), HORIZON * scenario["force"].abs().sum(1)


def force(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """``sum |F|`` of each scene, ``(scenes,)``; the effort itself is the loss."""
    return trajectory.controls.abs().sum((0, 2))


def target_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    """Largest ``|u_N - target|`` over the cells, the last step simulated with the closing force, ``(scenes,)``."""
    last = rollout(SIMULATOR, trajectory.states[-2], trajectory.controls[-1:]).states[-1]
    return (last - scenario["target"]).abs().amax(1)


class Comparison:
    """The report's figure: one scene, uncontrolled, under the ground truth force, and as each strategy solved it.

    Called with a matplotlib figure and a dict, label -> solution. Top row: the state at five times; bottom row: the
    force of every step over space and time.
    """

    def __init__(self, scenes: Mapping[str, Tensor], scene: int = 0) -> None:
        self.scenes = {name: value[scene : scene + 1].clone() for name, value in scenes.items()}
        self.scene = scene

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        panels = self.panels(solutions)
        axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        limit = max(float(forces.abs().max()) for _, forces in panels.values())
        x = (torch.arange(CELLS) + 0.5) / CELLS
        image = None
        for column, (label, (states, forces)) in enumerate(panels.items()):
            top, bottom = axes[:, column]
            for share, k in enumerate(range(0, HORIZON + 1, HORIZON // 4)):
                top.plot(
                    x,
                    states[k],
                    color=(0.1, 0.2 + 0.15 * share, 0.8 - 0.15 * share),
                    label=f"t = {k * DT:.2f}",
                )
            top.plot(x, self.scenes["target"][0], "k:", label="target")
            top.set_title(label)
            image = bottom.imshow(
                forces.numpy(), origin="lower", aspect="auto", extent=(0, 1, 0, HORIZON * DT),
                cmap="RdBu_r", vmin=-limit, vmax=limit,
            )  # fmt: skip
            bottom.set_xlabel("x")
        axes[0, 0].set_ylabel("u")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        axes[1, 0].set_ylabel("t")
        figure.colorbar(image, ax=axes[1, :].tolist(), label="F")

    def panels(self, solutions: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Label -> states ``(33, 32)`` and forces ``(32, 32)``."""
        start, force = self.scenes["initial_state"], _constant(self.scenes["force"])
        given = {"uncontrolled": torch.zeros_like(force), "ground truth": force}
        result = {}
        for label, controls in given.items():
            result[label] = (rollout(SIMULATOR, start, controls).states[:, 0], controls[:, 0])
        for label, solution in solutions.items():
            found = solution.trajectory()
            result[label] = (found.states[:, self.scene], found.controls[:, self.scene])
        return result


def _constant(force: Tensor) -> Tensor:
    return force.expand(HORIZON, *force.shape)
