"""The late motor: a decision is done three steps later, and only who looks ahead keeps the balance."""

import pytest
import torch
from dpcontrol.problems import late_balance
from taylor import taylor_rates

from dpcontrol.engine import rollout

F64 = torch.float64


@pytest.mark.parametrize("size", ["small", "full"])
def test_looking_ahead_balances_and_the_same_gains_without_it_do_not(size):
    problem = late_balance.problem(size=size)
    shares = {
        name: float(problem.metric_samples(problem.run_law(law))["balanced"][0].mean())
        for name, law in problem.baselines.items()
    }
    assert shares["linear feedback, looking ahead"] == 1
    assert shares["linear feedback"] < 0.6


def test_decisions_act_three_steps_later_as_on_a_prompt_cart():
    problem = late_balance.problem(size="small")
    generator = torch.Generator().manual_seed(0)
    decided = 2 * torch.rand(20, 6, 1, generator=generator, dtype=F64) - 1
    start = problem.scenarios.data["initial_state"]
    late = rollout(problem.simulator, start, decided).states["cart"]
    shifted = torch.cat([torch.zeros(late_balance.DELAY, 6, 1, dtype=F64), decided[: -late_balance.DELAY]])
    prompt = rollout(late_balance.CART, start["cart"], shifted).states
    torch.testing.assert_close(late, prompt, rtol=1e-10, atol=1e-12)


def test_the_last_decisions_are_of_no_use():
    problem = late_balance.problem(size="small")
    force = 0.1 * torch.ones(6, 60, 1, dtype=F64)
    z = {"control": force.requires_grad_()}
    problem.loss(z).sum().backward()
    # of the last ones only their effort counts: the state that they would move is not looked at any more
    torch.testing.assert_close(force.grad[:, -4:], 2e-3 * force.detach()[:, -4:])
    assert float((force.grad[:, -5] - 2e-4).abs().min()) > 1e-6


def test_the_gradient_is_right():
    problem = late_balance.problem(size="small")
    z = {"control": 0.1 * torch.ones(6, 60, 1, dtype=F64)}
    assert min(taylor_rates(lambda point: problem.loss(point).sum(), z, largest=1e-3)) > 1.9
