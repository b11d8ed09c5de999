r"""A wave focused at a point and an instant by a few transducers, through a medium that scatters.

The equation, in a closed box with hard, lossless walls:

    q_tt = c(x)^2 (q_xx + q_yy) + 50 sum_j u_j(t) exp(-|x - x_j|^2 / (2 w^2))

The question: which signals u_j, from the transducers of one wall, make the pressure q at time T a peak at a given
place, and nothing elsewhere, although the medium bends and scatters whatever they send, and the walls reflect it?

============  ================================================================  ==============================
symbol        value                                                             unit (nondimensional)
============  ================================================================  ==============================
``q``         state[0], 48 x 48 cells of the unit square (24 x 24)              pressure
``p``         state[1], its rate                                                pressure over time
``u_j``       control, 12 signals (6), held for a step                          pressure over time^2
``x_j``       evenly along the wall x = 0, (0.05, (j + 1/2) / 12)               length
``w``         0.03 (0.05), width of a transducer                                length
``c``         between 0.6 and 1.4: 1 + 0.4 tanh of 8 random Gaussian humps      length over time
``dt``        0.012 (0.024), two substeps of position Verlet                    time
``N``         200 steps (80): T = 2.4 (1.92)                                    1
``target``    (1 - r) exp(-r), r = |x - y|^2 / (2 s^2), s = 0.07 (0.1)          pressure
``y``         the focus, U(0.4, 0.85) x U(0.2, 0.8)                             length
``alpha``     2.5e-7, price of the signals                                      length^2 time^4
============  ================================================================  ==============================

Unknown: the signals, one sequence for each scene (3 media; 2 in the small size), from zero, no bounds. The problem
is linear with a convex quadratic objective: its optimum is unique and can be had from a dense least-squares solver,
which is what the tests do.

Objective: h^2 sum (q_N - target)^2 + alpha sum u^2, h the size of a cell.

Metrics: ``relative_error``, |q_N - target|^2 / |target|^2; ``peak``, q_N at the focus (1 is wanted); ``contrast``,
q_N^2 at the focus over its mean more than 3 s away; ``effort``, sum u^2.

Baseline ``time reversal``: a pulse is emitted at the focus, recorded by the transducers and played back in reverse, at
the best volume. Without losses that is the transpose of the way from signals to pressure (tests hold it to rounding)
and so the first step of steepest descent: it sends as much as it can to the focus, and leaves sidelobes and the weak
frequencies weak. The optimum inverts the way instead of transposing it.

==================================  ================  =======  ==========
measured, full size, seed 0         relative error    peak     contrast
==================================  ================  =======  ==========
time reversal                       0.907             0.106    31
``lbfgs``, 224 gradients a scene    0.099             0.752    1576
==================================  ================  =======  ==========

Reference: M. Fink, IEEE Trans. Ultrason. Ferroelectr. Freq. Control 39 (1992) 555 (time reversal); C. Draeger, M. Fink,
Phys. Rev. Lett. 79 (1997) 407 (in a closed reverberating box); M. Tanter, J.-L. Thomas, M. Fink, J. Acoust. Soc. Am.
108 (2000) 223 (time reversal against the inverse). No published number for these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory, rollout
from dpcontrol.problem import ControlSequence, Problem, control_problem, cost, effort, scene_generator
from dpcontrol.sim import Actuated, FixedFlux, Substeps, WaveInMedium

PRICE, STRENGTH, SUBSTEPS, HARD = 2.5e-7, 50.0, 2, (FixedFlux(), FixedFlux())
CELLS = {"full": 48, "small": 24}
TRANSDUCERS = {"full": 12, "small": 6}
STEP = {"full": 0.012, "small": 0.024}
STEPS = {"full": 200, "small": 80}
SCENES = {"full": 3, "small": 2}
FOCUS = {"full": 0.07, "small": 0.1}
APERTURE = {"full": 0.03, "small": 0.05}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 300_000, "seconds": 300.0},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 40_000, "seconds": 40.0},
}


def problem(*, size: str = "full", seed: int = 0) -> Problem:
    """Focusing through a scattering medium.

    Args:
        size: ``"full"`` (48 x 48 cells, 12 transducers, 3 scenes) or ``"small"`` (24 x 24, 6, 2).
        seed: draws the media and the places of the focus.

    Raises:
        UsageError: for another size or seed.
    """
    generator = scene_generator("wave_focusing", size, seed)
    cells, steps, scenes, width = CELLS[size], STEPS[size], SCENES[size], FOCUS[size]
    simulator = tank(size)
    speed = media(generator, scenes, cells)
    unit = torch.rand(scenes, 2, generator=generator, dtype=torch.float64)
    focus = torch.tensor([0.4, 0.2]) + unit * torch.tensor([0.45, 0.6])
    target = ripples(focus, width, cells)
    return control_problem(
        simulator,
        initial_state=torch.zeros(scenes, 2, cells, cells, dtype=torch.float64),
        horizon=steps,
        objective=cost(terminal=distance) + PRICE * effort(),
        control=ControlSequence(TRANSDUCERS[size]),
        scenarios={
            "speed": speed,
            "target": target,
            "focus": focus,
            "reversed": loud_enough(
                simulator, reversed_signals(simulator, speed, target, steps), speed, target
            ),
        },
        baselines={"time reversal": time_reversal},
        metrics={
            "relative_error": relative_error,
            "peak": lambda trajectory, scenario: at_focus(trajectory.states[-1], scenario),
            "contrast": Contrast(3 * width),
            "effort": lambda trajectory, scenario: trajectory.controls.square().sum((0, 2)),
        },
        plots={"focus": Picture(speed, focus)},
        name="wave_focusing",
    )


def tank(size: str) -> Substeps:
    """The box with its transducers; the speed comes with the scenes."""
    cells, count = CELLS[size], TRANSDUCERS[size]
    inner = WaveInMedium(STEP[size] / SUBSTEPS, (cells, cells), sides=(HARD, HARD))
    along = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    places = torch.stack((torch.full_like(along, 0.05), along), 1)
    width = torch.full((count,), APERTURE[size], dtype=torch.float64)
    return Substeps(Actuated(inner, STRENGTH * humps(places, width, cells)), SUBSTEPS)


def humps(centres: Tensor, widths: Tensor, cells: int) -> Tensor:
    """Gaussians of height 1 around ``centres`` ``(n, 2)`` in the unit square, ``(n, cells, cells)``."""
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    profile = torch.exp(-(x - centres[..., None]).square() / (2 * widths[:, None, None].square()))
    return profile[:, 0, :, None] * profile[:, 1, None, :]


def ripples(centres: Tensor, width: float, cells: int) -> Tensor:
    """``(1 - r^2 / 2 s^2) exp(-r^2 / 2 s^2)`` around ``centres``: peaks of height 1 and of mean zero, as sound has."""
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    away = (x - centres[..., None]).square() / (2 * width**2)
    r = away[:, 0, :, None] + away[:, 1, None, :]
    return (1 - r) * torch.exp(-r)


def media(generator: torch.Generator, count: int, cells: int) -> Tensor:
    """``count`` speeds of sound, ``(count, cells, cells)``."""
    drawn = torch.rand(8 * count, 4, generator=generator, dtype=torch.float64)
    heights = torch.where(drawn[:, 2] < 0.5, -1.5, 1.5).reshape(count, 8, 1, 1)
    lumps = humps(0.15 + 0.85 * drawn[:, :2], 0.05 + 0.05 * drawn[:, 3], cells)
    return 1 + 0.4 * torch.tanh((heights * lumps.reshape(count, 8, cells, cells)).sum(1))


# -- time reversal -------------------------------------------------------------------------------------------------


def reversed_signals(simulator: Substeps, speed: Tensor, target: Tensor, steps: int) -> Tensor:
    """What the transducers record of a pulse emitted at the focus, played backwards, ``(scenes, steps, transducers)``.

    Emitted is a push of the shape of the target. Push and record are weighted by ``c^2`` and ``1 / c^2``, the measure
    in which waves in a medium that varies are reciprocal.
    """
    actuated = simulator.inner
    assert isinstance(actuated, Actuated)
    pushed = torch.stack((torch.zeros_like(target), speed.square() * target), 1)
    course = rollout(actuated.inner, pushed, length=SUBSTEPS * steps - 1, parameters={"speed": speed}).states
    middle = course[:, :, 0] + 0.5 * actuated.dt * course[:, :, 1]  # half a substep later, where sources act
    heard = torch.einsum("kscd,jcd->skj", middle / speed.square(), actuated.shapes)
    return heard.flip(1).unflatten(1, (steps, SUBSTEPS)).sum(2)


def loud_enough(simulator: Substeps, signals: Tensor, speed: Tensor, target: Tensor) -> Tensor:
    """The signals at the volume of the least loss."""
    start = torch.zeros(len(target), 2, *target.shape[1:], dtype=target.dtype)
    reached = rollout(simulator, start, signals.transpose(0, 1), parameters={"speed": speed}).states[-1][:, 0]
    area = 1 / target[0].numel()
    gain = area * (reached * target).sum((1, 2))
    size = area * reached.square().sum((1, 2)) + PRICE * signals.square().sum((1, 2))
    return signals * (gain / size)[:, None, None]


def time_reversal(state: Tensor, t: float, scenario: Mapping[str, Any]) -> Tensor:
    """The law: the recorded signals."""
    signals: Tensor = scenario["reversed"]
    step = next(STEP[size] for size in STEPS if STEPS[size] == signals.shape[1])
    return signals[:, round(t / step)]


# -- what is looked at ---------------------------------------------------------------------------------------------


def distance(state: Tensor, *, scenario: Mapping[str, Any]) -> Tensor:
    """``h^2 sum (q - target)^2``, ``(scenes,)``."""
    away: Tensor = state[:, 0] - scenario["target"]
    return away.square().mean((1, 2))


def relative_error(trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Squared distance from the target at the end, and the target's squared size, each ``(scenes,)``."""
    return distance(trajectory.states[-1], scenario=scenario), scenario["target"].square().mean((1, 2))


def at_focus(state: Tensor, scenario: Mapping[str, Any]) -> Tensor:
    """``q`` at the focus: in the cell where the target is largest, ``(scenes,)``."""
    place = scenario["target"].flatten(1).argmax(1, keepdim=True)
    return state[:, 0].flatten(1).gather(1, place)[:, 0]


class Contrast:
    """The metric: ``q^2`` at the focus, and its mean further away than ``beyond``."""

    def __init__(self, beyond: float) -> None:
        self.beyond = beyond

    def __call__(self, trajectory: Trajectory, scenario: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        state: Tensor = trajectory.states[-1]
        x = (torch.arange(state.shape[-1], dtype=state.dtype, device=state.device) + 0.5) / state.shape[-1]
        focus = scenario["focus"].to(state)
        away = (x[:, None] - focus[:, 0, None, None]).square() + (x - focus[:, 1, None, None]).square()
        outside = (away > self.beyond**2).to(state.dtype)
        background = (state[:, 0].square() * outside).sum((1, 2)) / outside.sum((1, 2))
        return at_focus(state, scenario).square(), background


class Picture:
    """The figure: the wave of the first scene on its way, over the medium; what each strategy has at time T."""

    def __init__(self, speed: Tensor, focus: Tensor) -> None:
        self.speed, self.focus = speed, focus

    def __call__(self, figure: Any, solutions: Mapping[str, Any]) -> None:
        parts = (0.4, 0.65, 0.85, 0.95, 1.0)
        figure.set_size_inches(11.5, 0.5 + 2.35 * len(solutions))
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        rows = figure.subplots(len(solutions), len(parts), squeeze=False)
        for row, (label, solution) in zip(rows, solutions.items(), strict=True):
            trajectory = solution.trajectory()
            states = trajectory.states[:, 0, 0].cpu()
            largest = float(states[-1].abs().max())
            for panel, part in zip(row, parts, strict=True):
                k = round(part * (len(states) - 1))
                self.draw(panel, states[k], largest)
                panel.set_title(f"t = {float(trajectory.times[k]):.2f}", fontsize=9, loc="left")
            row[0].set_ylabel(label)
            row[-1].text(
                0.97, 0.04, f"largest {largest:.2f}", fontsize=9, ha="right", transform=row[-1].transAxes
            )

    def draw(self, panel: Any, field: Tensor, largest: float) -> None:
        """One moment, ``x`` to the right, in colours up to ``largest``; slow places are green, fast ones brown."""
        around = (0, 1, 0, 1)
        panel.imshow(
            field.T.numpy(),
            origin="lower",
            extent=around,
            cmap="RdBu_r",
            vmin=-largest,
            vmax=largest,
            interpolation="bicubic",
        )
        panel.contour(
            self.speed[0].T.cpu().numpy(),
            [0.8, 1.2],
            extent=around,
            colors=["#3d7d3d", "#8a5a00"],
            linewidths=0.8,
        )
        x, y = self.focus[0].tolist()
        panel.plot([x], [y], marker="o", mfc="none", mec="black", ms=12, mew=0.8)
        panel.set_xticks([])
        panel.set_yticks([])
