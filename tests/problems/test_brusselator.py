"""The Brusselator: JAX's step against the same equations in torch, and quieted by gradients."""

import pytest
import torch
from taylor import taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.run import run
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

pytest.importorskip("jax")

from dpcontrol.problems import brusselator


def rate(state, control):
    """The equations once more, in torch, the control on the cells."""
    x, y = state.unbind(1)

    def bend(field):
        return (field.roll(1, -1) - 2 * field + field.roll(-1, -1)) * field.shape[-1] ** 2

    dx = 1.0 + control + x * x * y - 4.0 * x + 4e-3 * bend(x)
    return torch.stack([dx, 3.0 * x - x * x * y + 2e-3 * bend(y)], 1)


def test_a_step_is_that_of_the_equations():
    from dpcontrol.sim import ODE, Substeps

    problem = brusselator.problem(size="small")
    start, controls = problem.scenarios.data["initial_state"], torch.full((3, 2, 4), 0.3, dtype=torch.float64)
    controls[1, 0, 2] = -0.8
    found = rollout(problem.simulator, start, controls).states
    wanted = rollout(Substeps(ODE(rate, 0.025), 10), start, controls.repeat_interleave(4, -1)).states
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_rest_is_rest():
    problem = brusselator.problem(size="small")
    rest = torch.tensor([1.0, 3.0], dtype=torch.float64)[None, :, None].expand(2, 2, 16)
    end = rollout(problem.simulator, rest, torch.zeros(10, 2, 4, dtype=torch.float64)).states[-1]
    torch.testing.assert_close(end, rest, rtol=0, atol=1e-11)


def test_taylor_in_state_control_and_parameters():
    simulator = brusselator.problem(size="small").simulator
    generator = torch.Generator().manual_seed(0)
    point = {
        "state": brusselator.draw(generator, 2, 8),
        "control": 0.1 * torch.randn(4, 2, 4, generator=generator, dtype=torch.float64),
        "feed": torch.tensor(1.0, dtype=torch.float64),
        "ratio": torch.tensor([3.0, 2.8], dtype=torch.float64),
    }

    def loss(z):
        parameters = {"feed": z["feed"], "ratio": z["ratio"]}
        return rollout(simulator, z["state"], z["control"], parameters=parameters).states[-1].pow(3).sum()

    rates = taylor_rates(loss, point, largest=1e-3)
    assert min(rates) > 1.9 and max(rates) < 2.1


def test_lbfgs_quiets_it_better_than_feeding_what_is_missing():
    problem = brusselator.problem(size="small")
    law = problem.run_law(problem.baselines["proportional"])
    solution = run(problem, LBFGS(), budget=Budget(gradients=120))
    assert solution.metrics["deviation"] < 0.3 * float(brusselator.deviation(law, {}).mean())
    assert solution.loss < 4.4  # 5.71 by the law
