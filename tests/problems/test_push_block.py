"""The block: it sticks, it slips, it is moved only by touch, and slopes see that only once there is touch."""

import pytest
import torch
from dpcontrol.problems import push_block
from taylor import taylor_rates

from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.minimising.first_order import Adjoint

F64 = torch.float64


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_law_places_every_block(size):
    problem = push_block.problem(size=size)
    samples = problem.metric_samples(problem.run_law(push_block.push_and_stop))
    assert float(samples["placed"][0].mean()) == 1


def test_a_slipping_block_stops_after_the_distance_of_dry_friction():
    """s^2 / (2 mu g), to the first order of the scheme."""
    distances = []
    for speed in (0.5, 1.0, 1.5):
        state = torch.tensor([[-9.0, 0.0, 0.0, speed]], dtype=F64)
        for _ in range(60):
            state = push_block.step(state, torch.zeros(1, 1, dtype=F64))
        assert float(state[0, 3]) == 0
        distances.append(float(state[0, 2]))
    assert distances == pytest.approx([s * s / 4 for s in (0.5, 1.0, 1.5)], abs=0.05)


def test_touch_keeps_momentum_but_for_friction_and_never_overlaps():
    state = torch.tensor([[0.0, 1.2, 0.01, 0.0]], dtype=F64)
    after = push_block.step(state, torch.zeros(1, 1, dtype=F64))
    before = push_block.FINGER * 1.2 * (1 - push_block.DT * push_block.DRAG / push_block.FINGER)
    momentum = push_block.FINGER * after[0, 1] + push_block.BLOCK * after[0, 3]
    assert float(after[0, 1]) == pytest.approx(float(after[0, 3]))
    assert float(momentum) == pytest.approx(before - push_block.DT * push_block.ROUGH * push_block.BLOCK)
    problem = push_block.problem(size="small")
    path = problem.run_law(lambda state, t, scenario: torch.full((6, 1), 5.0, dtype=F64))
    assert bool((path.states[..., 0] <= path.states[..., 2] + 1e-12).all())
    assert float(path.states[-1, :, 2].min()) > 1  # pushed far


def test_a_force_below_friction_does_not_move_a_block_that_is_touched():
    state = torch.tensor([[0.5, 0.0, 0.5, 0.0]], dtype=F64)
    for _ in range(20):
        state = push_block.step(state, torch.tensor([[1.9]], dtype=F64))
    assert float(state[0, 2]) == pytest.approx(0.5, abs=1e-12)


def test_slopes_are_blind_without_touch_and_right_with_it():
    problem = push_block.problem(size="small")
    none = problem.start()["control"].clone().requires_grad_()
    problem.loss({"control": none}).sum().backward()
    assert float(none.grad.abs().max()) == 0
    generator = torch.Generator().manual_seed(1)
    pushed = 2.0 + 0.2 * torch.rand(6, 40, 1, generator=generator, dtype=F64)
    rates = taylor_rates(lambda z: problem.loss(z).sum(), {"control": pushed}, largest=1e-3)
    assert min(rates) > 1.9


def test_slopes_solve_it_from_a_start_that_touches_only():
    budget = Budget(simulated_steps=30_000)
    assert run(push_block.problem(size="small"), Adjoint(), budget=budget).metrics["placed"] == 0
    assert run(push_block.problem(size="small", start=3.0), Adjoint(), budget=budget).metrics["placed"] == 1
