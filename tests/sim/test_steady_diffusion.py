"""Diffusion at rest: closed forms, layers, sides, derivatives, and an inverse problem that is solved."""

import math

import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.problem import Gaussian, Parameters, control_problem, misfit
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.sim import FixedFlux, FixedValue, steady_diffusion
from dpcontrol.strategies.minimising.quasi_newton import LBFGS

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def values(system, **given):
    """The parameters of a system as tensors."""
    return {name: torch.as_tensor(given.get(name, v), dtype=F64) for name, v in system.parameters.items()}


def test_the_torsion_of_a_square():
    """-lap u = 1: 0.0736713532 at the centre, and the order with which that is met."""
    sizes, errors = [], []
    for n in (9, 17, 33, 65):
        system = steady_diffusion((n, n))
        sizes.append(1 / n)
        errors.append(abs(float(system.solve(values(system))[0, n // 2, n // 2]) - 0.07367135328))
    assert errors[-1] < 2e-5 and convergence_order(sizes, errors) == pytest.approx(2.0, abs=0.1)


def test_sides_with_values_and_fluxes_are_exact_for_what_is_linear():
    """u = 1 + 2 x in one dimension; in three the slopes of u = 2 x - 3 y + z / 2 where all fluxes are given."""
    sides = tuple((FixedFlux(-s), FixedFlux(s)) for s in (2.0, -3.0, 0.5))
    system = steady_diffusion((6, 5, 4), lengths=(1.0, 2.0, 1.5), sides=sides, source=0.0)
    sizes = zip((6, 5, 4), (1.0, 2.0, 1.5), strict=True)
    x, y, z = ((torch.arange(n, dtype=F64) + 0.5) * (length / n) for n, length in sizes)
    exact = 2 * x[:, None, None] - 3 * y[:, None] + 0.5 * z
    torch.testing.assert_close(system.solve(values(system))[0], exact - exact.mean(), rtol=0, atol=1e-9)
    flat = steady_diffusion((8,), sides=((FixedValue(1.0), FixedValue(3.0)),), source=0.0)
    grid = (torch.arange(8, dtype=F64) + 0.5) / 8
    torch.testing.assert_close(flat.solve(values(flat))[0], 1 + 2 * grid, rtol=0, atol=1e-9)
    flux = steady_diffusion((8,), sides=((FixedValue(1.0), FixedFlux(2.0)),), source=0.0)
    torch.testing.assert_close(flux.solve(values(flux))[0], 1 + 2 * grid, rtol=0, atol=1e-9)


def test_layers_in_series_carry_the_same_flux():
    a = torch.tensor([1.0, 100.0, 0.01, 3.0], dtype=F64)
    system = steady_diffusion(
        (16,), sides=((FixedValue(0.0), FixedValue(1.0)),), log_coefficient=a.log(), source=0.0
    )
    u = system.solve(values(system))[0]
    flux = 1 / (0.25 / a).sum()
    slopes = u.diff() * 16
    inside = torch.tensor([i for i in range(15) if (i + 1) % 4], dtype=torch.long)
    layers = a.repeat_interleave(4)
    torch.testing.assert_close((slopes * layers[:15])[inside], flux.expand(12), rtol=1e-7, atol=0)


def test_periodic_and_insulated_boxes_take_sources_of_mean_zero():
    (x,) = ((torch.arange(32, dtype=F64) + 0.5) / 32,)
    for sides, wave in (("periodic", 2 * math.pi), ((FixedFlux(), FixedFlux()), math.pi)):
        system = steady_diffusion((32,), sides=(sides,), source=torch.cos(wave * x) + 5.0)
        symbol = (2 * 32 * math.sin(wave / 64)) ** 2
        torch.testing.assert_close(
            system.solve(values(system))[0], torch.cos(wave * x) / symbol, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize(
    "sides", [None, ((FixedValue(0.3), FixedFlux(0.5)), "periodic")], ids=["zero", "mixed"]
)
def test_taylor_in_both_parameters_in_blocks_and_cells(sides):
    system = steady_diffusion((12, 8), sides=sides)
    weights = random(2, 12, 8, seed=3)
    point = {"log_coefficient": random(2, 3, 4), "source": random(12, 8, seed=1)}
    for name in point:

        def loss(value, name=name):
            return (system.solve({**point, name: value}) * weights).sum().square()

        rates = taylor_rates(loss, point[name], largest=0.02)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_a_bad_candidate_is_nan_alone():
    system = steady_diffusion((8, 8))
    answer = system.solve(
        {"log_coefficient": torch.tensor([0.0, torch.nan, 1.0]), "source": torch.tensor(1.0)}
    )
    assert answer.isnan().flatten(1).any(1).tolist() == [False, True, False]


def test_a_conductivity_in_blocks_is_found_from_temperatures():
    system = steady_diffusion((8, 8), log_coefficient=torch.zeros(4, 4, dtype=F64), source=10.0)
    truth = torch.zeros(4, 4, dtype=F64)
    truth[1, 1], truth[2, 3] = math.log(0.1), math.log(10.0)
    data = system.solve(values(system, log_coefficient=truth)) + 1e-4 * random(1, 8, 8)
    problem = control_problem(
        system,
        initial_state=torch.zeros(1, 8, 8, dtype=F64),
        horizon=0,
        objective=misfit(data[None], Gaussian(1e-4)),
        unknown=Parameters("log_coefficient"),
    )
    solution = run(problem, LBFGS(iterations=60))
    found = solution.value["parameters"]["log_coefficient"]
    assert float((found - truth).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        ("one entry for each of the 2 axes", lambda: steady_diffusion((8, 8), lengths=(1.0,))),
        ("a pair of FixedValue", lambda: steady_diffusion((8,), sides=(("no_slip", "no_slip"),))),
        (
            r"divide it evenly.*found the shape \(3, 3\)",
            lambda: steady_diffusion((8, 8), source=torch.zeros(3, 3)),
        ),
    ],
)
def test_wrong_use_is_refused_in_one_sentence(pattern, call):
    with pytest.raises(UsageError, match=pattern):
        call()
