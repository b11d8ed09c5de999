"""Thin probes that the nouns carry very different problems; each is the core of a problem file to come."""

import json
import math
from pathlib import Path

import pytest
import torch
from dpcontrol.problems import burgers
from torch.distributions.transforms import ExpTransform

from dpcontrol.engine import rollout
from dpcontrol.problem import (
    Gaussian,
    InitialState,
    LogNormal,
    ObservationScale,
    Parameters,
    Policy,
    Unknown,
    control_problem,
    misfit,
    penalty,
    track,
)
from dpcontrol.run import run
from dpcontrol.sim import ODE, FiniteVolumeBurgers, LotkaVolterra, Steady, Substeps
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

HARE_LYNX = json.loads((Path(__file__).parents[1] / "data" / "hare_lynx.json").read_text())


# -- Lotka-Volterra on the Hudson's Bay data: shared rates, an initial state and two noise scales, all positive


def test_hare_and_lynx_maximum_likelihood_lies_inside_the_published_posterior():
    counts = torch.tensor([HARE_LYNX["y_init_hare_lynx"], *HARE_LYNX["y_hare_lynx"]], dtype=torch.float64)
    rates = ("prey_growth", "predation", "predator_death", "predator_growth")
    problem = control_problem(
        Substeps(ODE(LotkaVolterra(), dt=0.1), 10),
        initial_state=counts[:1],
        horizon=20,
        objective=misfit(counts[:, None], LogNormal("sigma"), steps=range(21)),
        unknown=Unknown(
            (Parameters(*rates), InitialState(), ObservationScale({"sigma": [0.3, 0.3]})),
            {name: ExpTransform() for name in ("parameters", "initial_state", "observation")},
        ),
    )
    solution = run(problem, LBFGS(iterations=100))
    draws = HARE_LYNX["reference"]
    found = [float(solution.value["parameters"][name]) for name in rates]
    for index, value in enumerate(found, start=1):
        published = draws[f"theta[{index}]"]
        assert abs(value - published["mean"]) < 1.5 * published["sd"], (index, value)
    assert solution.loss < float(problem.loss(problem.start())) - 10
    sigma = solution.value["observation"]["sigma"]
    assert 0.1 < float(sigma.min()) and float(sigma.max()) < 0.5


# -- an elliptic coefficient from point measurements: no time at all -----------------------------------------


CELLS = 16


def differences():
    """Differences across the faces of a row of cells between two walls, ``(CELLS + 1, CELLS)``, over the cell size."""
    matrix = torch.zeros(CELLS + 1, CELLS, dtype=torch.float64)
    inner = torch.arange(1, CELLS)
    matrix[inner, inner], matrix[inner, inner - 1] = 1.0, -1.0
    # walls are half a cell away: twice the slope, over half of the distance between centres
    matrix[0, 0], matrix[-1, -1] = math.sqrt(2), -math.sqrt(2)
    return matrix * CELLS


def diffuse(parameters):
    """-div(exp(s) grad u) = 10 on the unit square, u = 0 at the walls, s constant on 8 x 8 blocks; u in all cells."""
    a = parameters["log_coefficient"].reshape(8, 8).exp()
    a = a.repeat_interleave(CELLS // 8, 0).repeat_interleave(CELLS // 8, 1)
    across, same = differences(), torch.eye(CELLS, dtype=a.dtype)
    vertical = torch.cat((a[:1], (a[1:] + a[:-1]) / 2, a[-1:])).reshape(-1)
    sideways = torch.cat((a[:, :1], (a[:, 1:] + a[:, :-1]) / 2, a[:, -1:]), 1).reshape(-1)
    up, right = torch.kron(across, same), torch.kron(same, across)
    matrix = up.T @ (vertical[:, None] * up) + right.T @ (sideways[:, None] * right)
    return torch.linalg.solve(matrix, torch.full((CELLS**2,), 10.0, dtype=a.dtype))[None]


def test_the_steady_solver_knows_its_closed_form():
    found = diffuse({"log_coefficient": torch.zeros(64, dtype=torch.float64)}).reshape(CELLS, CELLS)
    # the torsion function of the square, 10 * 0.0736713532 at its centre
    assert float(found[7:9, 7:9].mean()) == pytest.approx(0.736713532, rel=0.01)


def test_a_coefficient_is_found_from_a_steady_state():
    truth = torch.zeros(64, dtype=torch.float64)
    truth[[9, 10, 17, 18]], truth[[45, 46, 53, 54]] = math.log(0.1), math.log(10.0)
    noise = 1e-4 * torch.randn(1, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = diffuse({"log_coefficient": truth}) + noise
    problem = control_problem(
        Steady(diffuse, {"log_coefficient": torch.zeros(64, dtype=torch.float64)}),
        initial_state=torch.zeros(1, 256, dtype=torch.float64),
        horizon=0,
        objective=misfit(data[None], Gaussian(1e-4)),
        unknown=Parameters("log_coefficient"),
    )
    solution = run(problem, LBFGS(iterations=150))
    found = solution.value["parameters"]["log_coefficient"]
    wanted = -256 * (math.log(1 / 1e-4) - 0.5 * math.log(2 * math.pi) - 0.5)
    assert solution.loss < wanted + 30
    assert float((found - truth)[[9, 10, 17, 18, 27, 0]].abs().max()) < 0.1
    assert solution.trajectory().horizon == 0


# -- a learned correction of a coarse solver: the weights are a tree among the parameters --------------------


def test_a_correction_inside_the_loop_is_trained_through_it():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv1d(1, 8, 5, padding=2, padding_mode="circular"),
        torch.nn.Tanh(),
        torch.nn.Conv1d(8, 1, 5, padding=2, padding_mode="circular"),
    ).double()
    with torch.no_grad():
        network[2].weight.zero_()
        network[2].bias.zero_()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    solver = FiniteVolumeBurgers(dt=0.02, viscosity=0.002)
    values = {"viscosity": torch.tensor(0.002, dtype=torch.float64)}

    def corrected(state, control, *, parameters):
        plain = solver.step(state, control, solver.prepare(values, {}), None, 0.0)
        learned = torch.func.functional_call(network, parameters["correction"], (plain[:, None],))[:, 0]
        return plain + 0.05 * learned

    cells, finer = 32, 4
    x = (torch.arange(cells * finer, dtype=torch.float64) + 0.5) / (cells * finer)
    phases = torch.rand(4, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.sin(2 * math.pi * (x + phases))
    fine = rollout(FiniteVolumeBurgers(dt=0.02 / 8, viscosity=0.002), start, length=10 * 8).states
    reference = fine[::8].reshape(11, 4, cells, finer).mean(-1)
    problem = control_problem(
        corrected,
        initial_state=reference[0],
        horizon=10,
        objective=track(reference),
        parameters={"correction": weights},
        unknown=Parameters("correction"),
    )
    assert problem.start()["parameters"]["correction"].keys() == weights.keys()
    before = float(problem.loss(problem.start()).mean())
    solution = run(problem, Adjoint(learning_rate=0.01, iterations=60))
    assert solution.loss < 0.75 * before


# -- the same question, answered by a feedback policy --------------------------------------------------------


class Law(torch.nn.Module):
    """Spread the gap over the time left, times a factor that a small network learns."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(2 * burgers.CELLS + 1, 32),
            torch.nn.Tanh(),
            torch.nn.Linear(32, burgers.CELLS),
        ).double()

    def forward(self, state, t, scenario):
        left = burgers.HORIZON * burgers.DT - t
        gap = (scenario["target"] - state) / left
        time = torch.full_like(state[:, :1], t)
        return gap + self.body(torch.cat((state, gap, time), 1))


def test_a_policy_answers_a_problem_that_was_posed_for_an_open_loop_control():
    torch.manual_seed(0)
    open_loop = burgers.problem(size="small")
    problem = open_loop.with_unknown(Policy(Law()))
    before = problem.metrics(problem.start())["effort_ratio"]
    solution = run(problem, Adjoint(learning_rate=0.01, iterations=30))
    assert solution.metrics["effort_ratio"] < 0.8 * before
    assert solution.metrics["target_error"] < 1e-12
    # on scenes that it has never seen it still reaches the target
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(9), 5))
    assert fresh.metrics(solution.value)["target_error"] < 1e-12


# -- a penalty on a parameter is one more term ---------------------------------------------------------------


def test_a_penalty_on_shared_parameters_counts_once_in_each_scenario():
    def decay(state, control, *, parameters):
        return state * (1 - parameters["rate"])

    start = torch.ones(3, 1, dtype=torch.float64)
    problem = control_problem(
        decay,
        initial_state=start,
        horizon=2,
        objective=track(torch.zeros(3, 3, 1, dtype=torch.float64)) + 2.0 * penalty("parameters"),
        parameters={"rate": 0.5},
        unknown=Parameters("rate"),
    )
    wanted = torch.full((3,), 1 + 0.25 + 0.0625 + 2 * 0.25, dtype=torch.float64)
    torch.testing.assert_close(problem.loss(problem.start()), wanted)
