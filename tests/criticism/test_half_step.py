"""A posterior at half the time step, against quadrature of the two posteriors."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.distributions import Normal

from dpcontrol import (
    ODE,
    Gaussian,
    Steady,
    Substeps,
    UsageError,
    at_half_step,
    inference_problem,
    observe,
    posterior_at_half_step,
    solve,
)
from dpcontrol.posterior import Draws
from dpcontrol.problem import predictions
from dpcontrol.results import Status
from dpcontrol.run import Outcome, Strategy
from dpcontrol.sim import EULER, HEUN, RK4, FunctionSystem, SpectralBurgers

F64 = torch.float64
MEAN, SPREAD, SCALE, STEPS = 1.0, 0.5, 0.02, 4


def rate(x, u, *, parameters):
    return -parameters["rate"] * x


def decaying(dt, scheme=EULER, count=1, **options):
    system = ODE(FunctionSystem(rate, {"rate": 1.0}), dt=dt / count, scheme=scheme, fused=False)
    return inference_problem(
        system if count == 1 else Substeps(system, count),
        data=torch.exp(-dt * torch.arange(STEPS + 1, dtype=F64))[:, None, None],
        observation=observe(noise=Gaussian(SCALE)),
        initial_state=torch.ones(1, 1, dtype=F64),
        horizon=STEPS,
        prior={"rate": Normal(*torch.tensor([MEAN, SPREAD], dtype=F64))},
        name="decay",
        **options,
    )


def grid_density(problem):
    """The posterior of the white number of the rate on a fine grid, by quadrature."""
    white = torch.linspace(-2.0, 2.0, 20_001, dtype=F64)
    k, dt = MEAN + SPREAD * white, problem.simulator.dt
    fine = problem.simulator.inner.dt if isinstance(problem.simulator, Substeps) else dt
    factor = (1 - k * fine) ** round(dt / fine)
    data = problem.scenarios.data["data"].reshape(-1)
    away = data[:, None] - factor ** torch.arange(STEPS + 1, dtype=F64)[:, None]
    log_density = -0.5 * white**2 - 0.5 * (away / SCALE).square().sum(0)
    density = torch.exp(log_density - log_density.max())
    return k, density / density.sum()


def moments(problem):
    k, density = grid_density(problem)
    mean = (k * density).sum()
    return float(mean), float(((k - mean).square() * density).sum().sqrt())


@dataclass(frozen=True)
class OnGrid(Strategy):
    """Independent draws by the inverse distribution function of the grid."""

    draws: int = 4000

    @property
    def stochastic(self):
        return True

    def pose(self, problem):
        return replace(problem, joint=True)

    def run(self, meter, generator):
        k, density = grid_density(meter.problem)
        u = torch.rand(self.draws, generator=generator, dtype=F64)
        found = k[torch.searchsorted(density.cumsum(0), u).clamp(max=len(k) - 1)]
        free = ((found - MEAN) / SPREAD)[:, None]
        log_density = meter.log_densities(free)
        return Outcome(
            Status("converged", "drawn."), draws=Draws(free.reshape(2, -1, 1), log_density.reshape(2, -1))
        )


@pytest.mark.parametrize("scheme", [EULER, HEUN, RK4])
@pytest.mark.parametrize("count", [1, 3])
def test_it_is_the_problem_posed_with_half_the_dt(scheme, count):
    half = at_half_step(decaying(0.2, scheme, count))
    assert half.simulator.dt == pytest.approx(0.2)
    z = {"parameters": {"rate": torch.tensor(1.3, dtype=F64)}}
    fine = decaying(0.2, scheme, 2 * count)
    assert torch.allclose(predictions(half, z)[0], predictions(fine, z)[0], rtol=1e-13)


def test_the_error_falls_with_the_order_of_the_scheme():
    z = {"parameters": {"rate": torch.tensor(1.0, dtype=F64)}}
    exact = torch.exp(torch.tensor(-0.4 * STEPS, dtype=F64))
    for scheme, order in ((EULER, 1), (HEUN, 2), (RK4, 4)):
        problem = decaying(0.4, scheme)
        errors = []
        for _ in range(3):
            errors.append(float((predictions(problem, z)[0][-1] - exact).abs()))
            problem = at_half_step(problem)
        assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.25)


def test_a_problem_whose_start_depends_on_its_parameters_and_a_pde():
    grid = torch.linspace(0, 2 * torch.pi, 33, dtype=F64)[:-1]
    problem = inference_problem(
        SpectralBurgers(dt=0.05, cells=32, length=6.283185307179586, viscosity=0.1),
        data=torch.zeros(3, 1, 32, dtype=F64),
        observation=observe(noise=Gaussian(0.1)),
        initial_state=lambda parameters: parameters["size"] * torch.sin(grid)[None],
        horizon=2,
        prior={"size": Normal(*torch.tensor([1.0, 0.1], dtype=F64))},
    )
    z = {"parameters": {"size": torch.tensor(1.1, dtype=F64)}}
    whole, half = (predictions(each, z)[0] for each in (problem, at_half_step(problem)))
    again = predictions(at_half_step(at_half_step(problem)), z)[0]
    assert torch.equal(whole[0], half[0])
    assert float((half - again).norm() / (whole - half).norm()) < 0.3, "of second order or more"


def test_weights_give_the_shift_that_quadrature_gives():
    problem = decaying(0.02)
    found = posterior_at_half_step(problem, solve(problem, OnGrid(), progress=False))
    (mean, sd), (mean_half, sd_half) = moments(problem), moments(at_half_step(problem))
    (change,) = found.changes
    assert found.how == "weights" and found.pareto < 0.5
    assert abs(change.shift - (mean_half - mean) / sd) < 4 * change.shift_error + 1e-3
    assert abs(change.ratio - sd_half / sd) < 4 * change.ratio_error + 1e-3
    assert change.shift_error < 0.02, "far below the error of two independent means"


def test_a_small_step_is_called_small_and_a_large_one_too_large():
    fine = decaying(0.002)
    small = posterior_at_half_step(fine, solve(fine, OnGrid(), progress=False))
    assert small.passed and "small enough" in small.verdict and small.how == "weights"
    coarse = decaying(0.4)
    large = posterior_at_half_step(coarse, solve(coarse, OnGrid(), progress=False), strategy=OnGrid())
    assert not large.passed and "TOO LARGE" in large.verdict
    assert large.how == "OnGrid" and large.pareto > 0.5, "weights are of no use so far away"
    (mean, sd), (mean_half, sd_half) = moments(coarse), moments(at_half_step(coarse))
    (change,) = large.changes
    assert abs(change.shift - (mean_half - mean) / sd) < 4 * change.shift_error
    assert abs(change.ratio - sd_half / sd) < 4 * change.ratio_error
    assert "rate" in str(large)


def test_few_draws_leave_it_open():
    problem = decaying(0.05)
    found = posterior_at_half_step(
        problem, solve(problem, OnGrid(draws=60), progress=False), again=True, strategy=OnGrid(draws=60)
    )
    assert not found.passed and "more draws" in found.verdict


def test_errors_of_independent_posteriors_are_those_of_their_scatter():
    problem = decaying(0.002, RK4)
    solution = solve(problem, OnGrid(draws=400), progress=False)
    shifts, errors = [], []
    for seed in range(1, 25):
        found = posterior_at_half_step(
            problem, solution, draws=20, again=True, strategy=OnGrid(draws=400), seed=seed
        )
        shifts.append(found.changes[0].shift)
        errors.append(found.changes[0].shift_error)
    # half of the variance is that of the solution itself, which is the same every time
    scatter = torch.tensor(shifts).std() * 2**0.5
    assert 0.6 < float(scatter / torch.tensor(errors).mean()) < 1.6


def test_what_has_no_step_is_refused_in_a_sentence():
    def step(x, u, *, parameters):
        return parameters["rate"] * x

    options = {
        "data": torch.ones(2, 1, 1, dtype=F64),
        "observation": observe(noise=Gaussian(0.1)),
        "initial_state": torch.ones(1, 1, dtype=F64),
        "horizon": 1,
        "prior": {"rate": Normal(*torch.tensor([1.0, 0.1], dtype=F64))},
    }
    with pytest.raises(UsageError, match="FunctionSimulator, which has no dt that its step depends on"):
        at_half_step(inference_problem(step, **options))
    steady = Steady(lambda parameters: parameters["rate"].reshape(1, 1), {"rate": 1.0})
    with pytest.raises(UsageError, match="Steady, which has no time step"):
        at_half_step(
            inference_problem(steady, **{**options, "data": torch.ones(1, 1, 1, dtype=F64), "horizon": 0})
        )


def test_a_system_driven_by_noise_is_refused():
    def shaken(x, u, *, noise):
        return x + noise

    problem = inference_problem(
        shaken,
        data=torch.ones(2, 1, 1, dtype=F64),
        observation=observe(noise=Gaussian(0.1)),
        initial_state=torch.ones(1, 1, dtype=F64),
        horizon=1,
        prior={"noise": Normal(*torch.tensor([0.0, 0.1], dtype=F64))},
    )
    with pytest.raises(UsageError, match="driven by noise"):
        at_half_step(problem)


def test_a_solution_without_draws_is_refused():
    problem = decaying(0.1)
    with pytest.raises(UsageError, match="gave no draws"):
        posterior_at_half_step(problem, solve(problem, "lbfgs", progress=False))
