"""The split-step kernel equals the eager steps: orders, cubic or linear, every kind of control and parameter."""

import pytest
import torch
from kernel_cases import compare_with_eager
from taylor import taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.sim import Schroedinger

F64 = torch.float64


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def trap(**fields):
    x = torch.linspace(-3, 3, 12, dtype=F64)
    return Schroedinger(0.05, 12, 6.0, potential=0.5 * x**2, **fields)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("interaction", [None, 0.8, torch.tensor([0.5, -0.4], dtype=F64)])
@pytest.mark.parametrize("acting", ["nothing", "dipoles", "potential"])
def test_split_steps(acting, interaction, order):
    x = torch.linspace(-3, 3, 12, dtype=F64)
    dipoles = torch.stack([x, x.cos()]) if acting == "dipoles" else None
    simulator = trap(dipoles=dipoles, interaction=interaction, order=order)
    controls = {"nothing": None, "dipoles": random(5, 2, 2, seed=1), "potential": random(5, 2, 12, seed=1)}[
        acting
    ]
    compare_with_eager(simulator, random(2, 12, 2), controls, steps=5, tolerance=1e-11)


@pytest.mark.parametrize("interaction", [None, 0.8])
def test_different_particles_in_single_precision(interaction):
    pair = torch.tensor([0.8, 1.3])
    simulator = trap(mass=pair, potential_strength=pair, interaction=interaction)
    controls = random(5, 2, 12, seed=1, dtype=torch.float32)
    state = random(2, 12, 2, dtype=torch.float32)
    compare_with_eager(simulator, state, controls, steps=5, tolerance=2e-5, second=False)


def test_a_free_particle_has_a_potential_of_one_entry():
    simulator = Schroedinger(0.05, 9, 6.0, interaction=0.5)
    compare_with_eager(simulator, random(2, 9, 2), None, steps=4, tolerance=1e-11)


def test_taylor_in_parameters_through_the_kernel():
    simulator = trap(interaction=0.3)
    state = simulator.start(random(2, 12, 2), {})
    point = {
        "mass": torch.tensor([1.0, 1.4], dtype=F64),
        "potential_strength": torch.tensor(0.9, dtype=F64),
        "interaction": torch.tensor([0.3, -0.2], dtype=F64),
    }

    def loss(z):
        return rollout(simulator, state, length=6, parameters=z).states.pow(3).sum()

    rates = taylor_rates(loss, point, largest=1e-3)
    assert min(rates) > 1.85 and max(rates) < 2.15, rates
