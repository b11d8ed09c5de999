"""The contract of kernels, shown on the scalar logistic map with a hand-written adjoint."""

from dataclasses import dataclass

import pytest
import torch
from kernel_cases import compare_with_eager

from dpcontrol import tree
from dpcontrol.engine import Checkpointed, TruncatedBPTT, rollout
from dpcontrol.kernels import Pulled, StepKernel
from dpcontrol.sim import Simulator

F64 = torch.float64


class LogisticKernel(StepKernel):
    def step(self, state, row, coefficients, k):
        return coefficients["rate"] * state * (1 - state) + row[0]

    def vjp(self, state, row, coefficients, k, cotangent, wanted):
        rate = coefficients["rate"]
        of_rate = (cotangent * state * (1 - state)).sum() if wanted.coefficients else None
        return Pulled(cotangent * rate * (1 - 2 * state), (cotangent, None), {"rate": of_rate})


@dataclass(frozen=True)
class Logistic(Simulator):
    fused: bool = True
    dt: float = 1.0

    @property
    def parameters(self):
        return {"rate": 2.9}

    def step(self, state, control, coefficients, noise, t):
        return coefficients["rate"] * state * (1 - state) + control

    def kernel(self, state, control, noise, coefficients):
        return LogisticKernel() if self.fused and control is not None else None


def data(steps=7):
    generator = torch.Generator().manual_seed(0)
    state = torch.rand(3, 2, dtype=F64, generator=generator)
    return state, 0.01 * torch.randn(steps, 3, 2, dtype=F64, generator=generator)


def test_a_kernel_equals_the_eager_step_to_second_order():
    state, controls = data()
    compare_with_eager(Logistic(), state, controls, steps=7, tolerance=1e-12)


@pytest.mark.parametrize("transform", ["grad", "jvp", "hessian", "vmap"])
def test_transforms_go_through_the_eager_definition(transform):
    state, controls = data()
    results = []
    for fused in (False, True):

        def loss(u, fused=fused):
            return rollout(Logistic(fused), state, u).states.square().sum()

        if transform == "grad":
            results.append(torch.func.grad(loss)(controls))
        elif transform == "jvp":
            results.append(torch.func.jvp(loss, (controls,), (torch.ones_like(controls),))[1])
        elif transform == "hessian":
            results.append(torch.func.hessian(loss)(controls[:3]))
        else:
            results.append(torch.func.vmap(torch.func.grad(loss))(torch.stack([controls, 2 * controls])))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", [Checkpointed(snapshots=2), TruncatedBPTT(2)])
def test_modes_that_do_not_keep_all_states_are_obeyed(mode):
    state, controls = data()
    found = []
    for fused in (False, True):
        u = controls.clone().requires_grad_()
        loss = rollout(Logistic(fused), state, u, gradient=mode).states.square().sum()
        found.append(torch.autograd.grad(loss, u)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


def test_gradients_that_nobody_wants_are_not_asked_for():
    state, controls = data()
    asked = []

    class Watching(LogisticKernel):
        def vjp(self, *arguments):
            asked.append(arguments[-1])
            return super().vjp(*arguments)

    @dataclass(frozen=True)
    class Watched(Logistic):
        def kernel(self, state, control, noise, coefficients):
            return Watching()

    u = controls.clone().requires_grad_()
    torch.autograd.grad(rollout(Watched(), state, u).states.sum(), u)
    assert asked and all(wanted.inputs and not wanted.coefficients for wanted in asked)
    assert tree.leaves(rollout(Watched(), state, controls).states)[0].requires_grad is False
