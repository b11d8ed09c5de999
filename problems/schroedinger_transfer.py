r"""A particle in a quartic trap, shaken from its ground state into its first excited state.

The equation (hbar = 1; E is a uniform field that couples to the dipole x):

    i psi_t = -psi_xx / 2 + (s x^4 / 4 + E(t) x) psi

The question: which bounded field takes the ground state to the first excited state in time T, and does one field do so
for many slightly different traps?

============  ========================================================  ==============================
symbol        value                                                     unit (nondimensional)
============  ========================================================  ==============================
``psi``       state, 32 points on (-4, 4)                               length^(-1/2)
``E``         control, |E| <= 1, held for 0.1 (0.2 in the small size)   energy over length
``s``         1, strength of the trap; 0.95 .. 1.05 in an ensemble      energy over length^4
``dt``        0.05 (0.1), split step of order 2                         time
``T``         12, 120 held fields (60)                                  time
``psi(0)``    ground state of its trap, energy 0.42081 s^(1/3)
``target``    first excited state of its trap, energy 1.50790 s^(1/3)
============  ========================================================  ==============================

The levels of a quartic trap are not evenly spaced (gaps 1.087, 1.451, 1.662), so that a field can stop at the first
one; in a harmonic trap a uniform field makes coherent states only. A slow resonant pulse would not leave the two
levels; T = 12 is only two periods of the transition, so that the pulse has to bring the others back.

Unknown: the field, from the baseline. With ``detunings=m`` there are m traps with strengths evenly from 0.95 to 1.05,
and *one* field for all of them, ``ControlSequence(shared=True)``. Observation: the whole state.

Objective: infidelity 1 - |<target|psi(T)>|^2 plus 1e-4 sum E^2, of each trap.

Metrics: ``fidelity``, |<target|psi(T)>|^2, mean over the traps; ``worst_infidelity`` (the same number for all traps);
``effort``, sum E^2; ``norm_error``, largest |norm - 1| on the way, zero to rounding.

Baseline ``resonant pulse``: E = pi / (x_01 T) cos(omega_01 t), the pi pulse of the two levels alone.

Reference: S. van Frank et al., "Interferometry with non-classical motional states of a Bose-Einstein condensate",
Nature Communications 5 (2014) (ground to first excited state of an anharmonic trap by optimised shaking); the energies
are those of F. T. Hioe, E. W. Montroll, J. Math. Phys. 16 (1975), in these units. No published number for this field.

The seed changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dpcontrol.engine import Trajectory
from dpcontrol.problem import (
    ControlSequence,
    Problem,
    UsageError,
    control_problem,
    cost,
    effort,
    scene_generator,
)
from dpcontrol.sim import Schroedinger, Substeps
from dpcontrol.sim.schroedinger import as_complex, as_real, eigenstates, grid

CELLS, LENGTH, DURATION, STRONGEST, SPREAD, PRICE = 32, 8.0, 12.0, 1.0, 0.05, 1e-4
STEPS = {"full": 120, "small": 60}
DEFAULTS = {
    "full": {"strategies": ["baseline", "adjoint", "lbfgs", "cmaes"], "simulated_steps": 120_000},
    "small": {"strategies": ["baseline", "adjoint", "lbfgs"], "simulated_steps": 12_000, "seconds": 40.0},
}


def problem(*, size: str = "full", seed: int = 0, detunings: int = 1) -> Problem:
    """State transfer by a dipole field.

    Args:
        size: ``"full"`` (120 held fields) or ``"small"`` (60).
        seed: a whole number; there is nothing to draw.
        detunings: number of traps that one field has to serve; 1 is the nominal trap.

    Raises:
        UsageError: for another size, seed or number of traps.
    """
    scene_generator("schroedinger_transfer", size, seed)
    if not isinstance(detunings, int) or isinstance(detunings, bool) or detunings < 1:
        raise UsageError(f"detunings is the number of traps, 1 or more; found {detunings!r}.")
    x = grid(CELLS, LENGTH)
    trap = x**4 / 4
    steps = STEPS[size]
    held = DURATION / steps
    simulator = Substeps(Schroedinger(held / 2, CELLS, LENGTH, potential=trap, dipoles=x[None]), 2)
    strengths = torch.ones(1, dtype=torch.float64)
    if detunings > 1:
        strengths = torch.linspace(1 - SPREAD, 1 + SPREAD, detunings, dtype=torch.float64)
    pairs = torch.stack([eigenstates(s * trap, LENGTH, 2)[1] for s in strengths])
    pulse = resonant_pulse(x, trap)
    times = held * (torch.arange(steps, dtype=torch.float64) + 0.5)
    start = torch.stack([pulse(float(t)) for t in times])[:, None]
    return control_problem(
        simulator,
        initial_state=as_real(pairs[:, 0]),
        horizon=steps,
        objective=cost(terminal=infidelity) + PRICE * effort(),
        control=ControlSequence(1, low=-STRONGEST, high=STRONGEST, start=start, shared=detunings > 1),
        scenarios={"target": pairs[:, 1], "potential_strength": strengths},
        baselines={
            "resonant pulse": lambda state, t, scenario: pulse(t + held / 2).expand(len(state), 1),
        },
        metrics={
            "fidelity": lambda trajectory, scenario: 1 - _end(trajectory, scenario),
            "worst_infidelity": lambda trajectory, scenario: _worst(_end(trajectory, scenario)),
            "effort": lambda trajectory, scenario: trajectory.controls.square().sum((0, 2)),
            "norm_error": lambda trajectory, scenario: norm_error(trajectory.states),
        },
        name="schroedinger_transfer",
    )


def infidelity(state: Tensor, *, scenario: Mapping[str, Any]) -> Tensor:
    """``1 - |<target|psi>|^2``, ``(traps,)``."""
    overlap = (as_complex(state) * scenario["target"]).sum(-1) * (LENGTH / CELLS)
    return 1 - overlap.real.square() - overlap.imag.square()


def resonant_pulse(x: Tensor, trap: Tensor) -> Callable[[float], Tensor]:
    """The pi pulse of the two lowest levels, as a function of time."""
    energies, states = eigenstates(trap, LENGTH, 2)
    dipole = float((states[0] * x * states[1]).sum()) * LENGTH / CELLS
    frequency = float(energies[1] - energies[0])
    height = math.pi / (dipole * DURATION)

    def pulse(t: float) -> Tensor:
        return torch.tensor(height * math.cos(frequency * t), dtype=torch.float64)

    return pulse


def norm_error(states: Tensor) -> Tensor:
    """Largest ``| |psi|^2 - 1 |`` of each trap, ``(traps,)``."""
    return (states.square().sum((-2, -1)) * (LENGTH / CELLS) - 1).abs().amax(0)


def _end(trajectory: Trajectory, scenario: Mapping[str, Any]) -> Tensor:
    return infidelity(trajectory.states[-1], scenario=scenario)


def _worst(values: Tensor) -> Tensor:
    return values.max().expand(len(values))
