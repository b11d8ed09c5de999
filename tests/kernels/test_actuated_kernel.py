"""A few actuators through the kernel of the field that they move."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import compare_with_eager
from rolled import roll

from dpcontrol.kernels.actuated import ActuatedKernel
from dpcontrol.sim import Actuated, FiniteVolumeBurgers, KuramotoSivashinsky, Substeps, VorticityFlow

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("inner", "shape"),
    [
        (KuramotoSivashinsky(0.1, 16, 12.0), (16,)),
        (FiniteVolumeBurgers(0.001, 0.01), (16,)),
        (VorticityFlow(0.02, (12, 12), viscosity=0.01), (12, 12)),
    ],
    ids=["Kuramoto-Sivashinsky", "finite volumes", "vorticity"],
)
def test_values_and_derivatives_are_those_of_the_eager_step(inner, shape, count):
    simulator = Substeps(Actuated(inner, random(3, *shape)), count)
    state = simulator.start(random(2, *shape, seed=1), {"viscosity": torch.tensor(0.01, dtype=F64)})
    compare_with_eager(simulator, state, random(5, 2, 3, seed=2), steps=5, tolerance=1e-9)


def test_without_a_control_it_is_the_kernel_inside():
    inner = KuramotoSivashinsky(0.1, 16, 12.0)
    simulator, state = Actuated(inner, random(3, 16)), inner.start(random(2, 16), {})
    coefficients = simulator.prepare({"viscosity": torch.tensor(1.0, dtype=F64)}, {})
    assert type(simulator.kernel(state, None, None, coefficients)) is type(
        inner.kernel(state, None, None, coefficients)
    )
    assert isinstance(simulator.kernel(state, random(2, 3), None, coefficients), ActuatedKernel)


def test_shapes_that_are_sought_are_differentiated():
    inner, state, control = KuramotoSivashinsky(0.1, 16, 12.0), random(2, 16, seed=1), random(5, 2, 3, seed=2)

    def loss(shapes):
        return roll(Actuated(inner, shapes), state, 5, control).square().sum()

    shapes, along = random(3, 16), random(3, 16, seed=4)
    (found,) = torch.autograd.grad(loss(shapes.requires_grad_()), shapes)
    mapped = torch.func.grad(loss)(shapes.detach())
    with torch.no_grad():
        h = 1e-5
        slope = (loss(shapes + h * along) - loss(shapes - h * along)) / (2 * h)
    torch.testing.assert_close((found * along).sum(), slope, rtol=1e-7, atol=0)
    torch.testing.assert_close(mapped, found)
