"""Coefficients of plain numbers are made once; of anything else, anew."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from dpcontrol.engine import rollout
from dpcontrol.sim import KuramotoSivashinsky, VorticityFlow

F64 = torch.float64


def number(value, **more):
    return torch.tensor(value, dtype=F64, **more)


@pytest.fixture
def simulator():
    return KuramotoSivashinsky(0.1, 16, 12.0)


def test_the_same_numbers_have_the_same_coefficients(simulator):
    first = simulator.prepare({"viscosity": number(1.0)}, {})
    assert simulator.prepare({"viscosity": number(1.0)}, {}) is first
    assert simulator.prepare({"viscosity": number(0.9)}, {}) is not first
    single = simulator.prepare({"viscosity": torch.tensor(1.0)}, {})
    assert single["scheme"]["outer"][0].dtype == torch.complex64
    state = torch.zeros(2, 16)
    kernels = [
        simulator.kernel(state, None, None, simulator.prepare({"viscosity": torch.tensor(1.0)}, {}))
        for _ in "ab"
    ]
    assert kernels[0] is kernels[1]


def test_numbers_that_somebody_differentiates_or_that_differ_between_scenarios_are_made_anew(simulator):
    for value in (number(1.0, requires_grad=True), number([1.0, 0.9])):
        assert simulator.prepare({"viscosity": value}, {}) is not simulator.prepare({"viscosity": value}, {})

    state = torch.randn(2, 16, dtype=F64, generator=torch.Generator().manual_seed(0))

    def loss(viscosity):
        return rollout(simulator, state, length=3, parameters={"viscosity": viscosity}).states.square().sum()

    plain = loss(number(1.0))  # its coefficients are kept
    viscosity = number(1.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(viscosity), viscosity)
    h = 1e-6
    slope = (loss(number(1.0 + h)) - loss(number(1.0 - h))) / (2 * h)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.func.grad(loss)(number(1.0)), gradient)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(number(1.0), number(1.0))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent, gradient)
    several = torch.func.vmap(loss)(number([1.0, 1.1]))
    torch.testing.assert_close(several[0], plain)
    torch.testing.assert_close(loss(number(1.0)), plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [lambda: KuramotoSivashinsky(0.1, 16, 12.0), lambda: VorticityFlow(0.02, (12, 12), viscosity=0.01)],
)
def test_a_run_without_gradients_leaves_nothing_that_one_with_them_cannot_use(make):
    simulator = make()
    state = torch.randn(2, *simulator.box.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = rollout(simulator, state, length=3).states.clone()
    leaf = state.clone().requires_grad_()
    states = rollout(simulator, leaf, length=3).states
    states.square().sum().backward()
    torch.testing.assert_close(states.detach(), before.detach().clone(), rtol=0, atol=0)
    assert float(leaf.grad.abs().max()) > 0


def test_copies_and_pickles_are_equal_and_make_their_own(simulator):
    first = simulator.prepare({"viscosity": number(1.0)}, {})
    for other in (copy.deepcopy(simulator), pickle.loads(pickle.dumps(simulator))):
        assert other == simulator
        again = other.prepare({"viscosity": number(1.0)}, {})
        assert again is not first
        torch.testing.assert_close(again, first, rtol=0, atol=0)
