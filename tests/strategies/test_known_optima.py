"""Every strategy on problems whose optimum is known in closed form."""

import json
import math
from pathlib import Path

import pytest
import torch
from strategy_cases import F64, BoxQuadratic, double_integrator, rosenbrock, scalar_lqr, static, wells

from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import ControlSequence, InitialState, control_problem, cost, reach
from dpcontrol.run import run
from dpcontrol.sim import SemiLagrangianBurgers
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import RETRIES, Adjoint
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "burgers_reconstruction.json").read_text())
LQR = {2: 1.6, 5: 1.6179775280898876, 50: 1.618033988749895}
GRADIENT_BASED = [
    Adjoint(optimizer="sgd", learning_rate=0.1, momentum=0.5, iterations=2000, gradient_tolerance=1e-7),
    LBFGS(),
    NewtonKrylov(),
]


@pytest.mark.parametrize("strategy", GRADIENT_BASED, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("horizon", LQR)
def test_scalar_lqr(strategy, horizon):
    if horizon == 50 and isinstance(strategy, Adjoint):
        pytest.skip("a condition number of thousands: not for descent in directions of the plain gradient")
    solution = run(scalar_lqr(horizon), strategy)
    assert solution.loss == pytest.approx(LQR[horizon], abs=1e-8)
    assert solution.status.kind == "converged"


@pytest.mark.parametrize("strategy", [LBFGS(), NewtonKrylov()], ids=lambda s: type(s).__name__)
def test_double_integrators_together(strategy):
    solution = run(double_integrator(3), strategy)
    wanted = 13.316266332761682 * torch.tensor([1.0, 4.0, 9.0], dtype=F64)
    torch.testing.assert_close(solution.losses, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("strategy", [CMAES(sigma=1.0, restarts=0), CEM(population=60)], ids=["cmaes", "cem"])
def test_searches_without_gradients_reach_the_lqr_optimum(strategy):
    solution = run(scalar_lqr(5), strategy, seed=1)
    assert solution.loss == pytest.approx(LQR[5], abs=1e-8)
    assert solution.status.kind == "converged"
    assert solution.counts.gradients == 0


@pytest.mark.parametrize(
    ("strategy", "accuracy"),
    [
        (LBFGS(), 1e-10),
        (Adjoint(optimizer="sgd", learning_rate=0.3), 1e-10),
        (Adjoint(learning_rate=0.2, schedule="cosine"), 1e-8),
        (CMAES(restarts=0), 1e-8),
        (CEM(population=60), 1e-8),
    ],
    ids=["lbfgs", "sgd", "adam", "cmaes", "cem"],
)
def test_box_with_a_known_active_set(strategy, accuracy):
    case = BoxQuadratic()
    problem = case.problem()
    case.seen.clear()  # what the probe at the door asked
    solution = run(problem, strategy, seed=2)
    assert solution.loss == pytest.approx(case.loss, abs=accuracy)
    found = solution.value["control"][0, 0]
    torch.testing.assert_close(found, case.solution, rtol=0, atol=30 * math.sqrt(accuracy))
    assert found[0] == 1.0 and found[1] == -1.0
    assert max(float(u.abs().max()) for u in case.seen) <= 1.0


def test_newton_on_rosenbrock_and_its_hessian_products():
    problem = static(rosenbrock, 4, count=2, start=-1.2)
    meter = Meter(problem)
    x = meter.start() + torch.tensor([[0.1, -0.2, 0.3, 0.4], [0.0, 0.5, 0.2, -0.1]], dtype=F64)
    v = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.3, -0.7, 0.2, 1.0]], dtype=F64)
    h = 1e-5
    above, below = (meter.values_and_gradients(x + s * h * v)[1] for s in (1, -1))
    torch.testing.assert_close(meter.hessian_products(x, v), (above - below) / (2 * h), rtol=1e-7, atol=1e-6)
    solution = run(problem, NewtonKrylov())
    assert solution.loss < 1e-12
    torch.testing.assert_close(solution.value["control"], torch.ones(2, 1, 4, dtype=F64), rtol=0, atol=1e-6)


def test_multistart_finds_the_global_minimum_of_each_instance():
    problem = static(wells, 2, count=3, low=-2.0, high=2.0, start=1.0)
    grid = torch.linspace(-1.2, -0.9, 300_001, dtype=F64)
    lowest = [2 * float(((grid.square() - 1).square() + (0.3 + 0.05 * i) * grid).min()) for i in range(3)]
    single = run(problem, LBFGS())
    assert (single.losses > torch.tensor(lowest) + 0.1).all()
    several = run(problem, MultiStart(LBFGS(), starts=16))
    torch.testing.assert_close(several.losses, torch.tensor(lowest, dtype=F64), rtol=0, atol=1e-8)
    assert several.status.kind == "converged"
    assert "3 of 3 searches a random start found a lower loss" in several.status.sentence


def test_plain_gradient_descent_gives_the_published_loss_sequence():
    u_half = torch.tensor(PUBLISHED["u_half"], dtype=torch.float32)
    problem = control_problem(
        SemiLagrangianBurgers(1 / 32, 0.01 / (128 * math.pi), (-1.0, 1.0), "periodic"),
        initial_state=torch.zeros(1, 128),
        horizon=16,
        objective=(1 / 128) * reach(u_half),
        unknown=InitialState(),
        name="reconstruction",
    )
    solution = run(problem, Adjoint(optimizer="sgd", learning_rate=5.0, iterations=50))
    published = PUBLISHED["published_loss"]
    for update, loss in published.items():
        if int(update) < 50:
            assert solution.history["latest"][int(update)] == pytest.approx(loss, abs=6e-7)
    assert len(published) > 3


def test_an_instance_that_stays_not_finite_is_frozen_and_the_others_go_on():
    def function(u, number):
        # scenario 1 is finite at the start guess only
        nowhere = torch.where(u[:, 0] == 0.5, u[:, 0], torch.nan)
        return torch.where(number == 1, nowhere, (u - 1).square().sum(1))

    problem = static(function, 1, count=3, start=0.5)
    solution = run(problem, Adjoint(learning_rate=0.3, iterations=300))
    assert solution.status.kind == "diverged"
    assert "2 iterations spent, 1 diverged of 3 searches" in solution.status.sentence
    assert solution.losses[0] < 1e-6 and solution.losses[2] < 1e-6
    assert solution.counts.failures == RETRIES + 1


def test_a_step_out_of_the_finite_world_is_rejected_by_the_trust_region():
    problem = static(lambda u, number: -torch.log(1 - u.square().sum(1)) + (u[:, 0] - 3).square(), 1)
    solution = run(problem, NewtonKrylov(radius=5.0))
    u = float(solution.value["control"])
    assert solution.counts.failures > 0
    assert 2 * u / (1 - u * u) + 2 * (u - 3) == pytest.approx(0, abs=1e-5)


def test_target_loss_ends_a_run():
    solution = run(scalar_lqr(5), LBFGS(), budget=Budget(target_loss=1.7))
    assert solution.status.kind == "target reached" and solution.loss <= 1.7


def test_lbfgs_keeps_bounds_to_the_bit_whatever_the_scale():
    # 20 / 0.3 * 0.3 rounds to a number above 20
    for scale in (0.3, 0.7, 1.1e-3):
        problem = control_problem(
            lambda x, u: x + u,
            initial_state=torch.zeros(1, 3, dtype=F64),
            horizon=1,
            objective=cost(terminal=lambda x: (x - 100.0).square().sum(1)),
            control=ControlSequence((3,), low=-20.0, high=20.0, scale=scale),
        )
        solution = run(problem, LBFGS())
        assert float(solution.value["control"].max()) == 20.0
