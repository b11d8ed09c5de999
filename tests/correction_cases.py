"""A correction problem that is solved in no time: a smearing upwind step against the exact translation."""

from functools import partial

import torch
from dpcontrol.problems.advection_diffusion_correction import Upwind, waves

from dpcontrol.engine import rollout
from dpcontrol.nets import ConvNet
from dpcontrol.problem import Reference, correction_problem, simulated_reference
from dpcontrol.sim import AdvectionDiffusion

F64 = torch.float64
CELLS, DT = 16, 0.03
NETWORK = partial(ConvNet, width=4, depth=1, kernel=3, padding="circular")


def trajectories(count=10, steps=12, seed=0):
    """``(steps + 1, count, 16)`` and their speeds."""
    generator = torch.Generator().manual_seed(seed)
    speeds = 0.5 + 0.5 * torch.rand(count, generator=generator, dtype=F64)
    exact = AdvectionDiffusion(DT, (CELLS,), 2e-4, velocity=(1.0,))
    states = rollout(
        exact, waves(generator, count, CELLS), length=steps, parameters={"velocity_0": speeds}
    ).states
    return states, speeds


SPLIT = {"train": range(6), "validation": (6, 7), "test": (8, 9)}


def reference(**fields):
    states, speeds = trajectories()
    return Reference(states, {"velocity_0": speeds}, fields.get("split", SPLIT))


def posed(**fields):
    """The problem; fields of :func:`correction_problem` replace its own."""
    given = {
        "reference": reference(),
        "network": NETWORK,
        "unroll": 3,
        "horizon": 4,
        "inputs": ("velocity_0",),
    }
    return correction_problem(Upwind(DT), **{**given, **fields})


FINE = AdvectionDiffusion(DT / 2, (4 * CELLS,), 2e-4, velocity=(1.0,))


def means(state, factor):
    """Means of so many neighbours."""
    return state.reshape(len(state), -1, factor).mean(-1)


def fine_reference(**fields):
    """Six trajectories of five steps, from four times smaller cells and half the step."""
    given = {
        "initial_state": waves(torch.Generator().manual_seed(0), 6, 4 * CELLS),
        "steps": 5,
        "every": 2,
        "downsample": partial(means, factor=4),
        "parameters": {"velocity_0": torch.linspace(0.5, 1.0, 6, dtype=torch.float64)},
        "batch": 4,
    }
    return simulated_reference(FINE, **{**given, **fields})
