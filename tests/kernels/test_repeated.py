"""Substeps around a simulator with a kernel of its own: the loop around the loop, and its adjoint."""

import torch
from kernel_cases import compare_with_eager
from test_base import Logistic, data

from dpcontrol.engine import rollout
from dpcontrol.kernels.base import Repeated
from dpcontrol.sim import Substeps, VorticityFlow


def test_held_inputs_collect_the_gradients_of_all_substeps():
    state, controls = data()
    simulator = Substeps(Logistic(), 3)
    kernel = simulator.kernel(state, controls[0], None, {"rate": torch.tensor(2.9)})
    assert isinstance(kernel, Repeated)
    compare_with_eager(simulator, state, controls, steps=7, tolerance=1e-11)


def test_no_kernel_inside_means_none_outside():
    state, controls = data()
    assert Substeps(Logistic(fused=False), 3).kernel(state, controls[0], None, {}) is None


def test_gradients_in_parameters_where_coefficients_hold_more_than_tensors():
    """A crash: Advection, which rides along in the coefficients, was added to itself."""
    state = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = state - state.mean((1, 2), keepdim=True)
    found = []
    for fused in (True, False):
        simulator = Substeps(VorticityFlow(0.02, (12, 12), viscosity=0.01, fused=fused), 3)
        viscosity = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
        states = rollout(simulator, state, length=4, parameters={"viscosity": viscosity}).states
        found.append(torch.autograd.grad(states.square().sum(), viscosity)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=0)
