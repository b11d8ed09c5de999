"""Substeps around a simulator with a kernel of its own: the loop around the loop, and its adjoint."""

import torch
from kernel_cases import compare_with_eager
from test_base import Logistic, data

from dpcontrol.kernels.base import Repeated
from dpcontrol.sim import Substeps


def test_held_inputs_collect_the_gradients_of_all_substeps():
    state, controls = data()
    simulator = Substeps(Logistic(), 3)
    kernel = simulator.kernel(state, controls[0], None, {"rate": torch.tensor(2.9)})
    assert isinstance(kernel, Repeated)
    compare_with_eager(simulator, state, controls, steps=7, tolerance=1e-11)


def test_no_kernel_inside_means_none_outside():
    state, controls = data()
    assert Substeps(Logistic(fused=False), 3).kernel(state, controls[0], None, {}) is None
