"""The source behind the wall: the plate by Fourier series, a sane estimate, two hills where sensors are symmetric."""

import math

import numpy as np
import pytest
import torch
from dpcontrol.problems import heat_source_posterior as fire
from scipy.special import erf
from taylor import convergence_order, taylor_rates

import dpcontrol as dp
from dpcontrol.engine import rollout
from dpcontrol.problem import Points, UsageError, from_sites


def placed(problem, **values):
    given = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}
    return from_sites(given, problem.start())


def series(p, strength, times, spots, waves=60):
    """Temperatures ``(times, spots)`` of the source in the infinite sum of sines, to rounding."""
    n = np.arange(1, waves + 1) * math.pi
    x = np.linspace(0, 1, 4001)
    rule = np.full(4001, 1 / 4000)
    rule[[0, -1]] /= 2
    rows = []
    for centre in p:
        hump = np.exp(-((x - centre) ** 2) / (2 * fire.WIDTH**2))
        rows.append(2 * np.sin(np.outer(n, x)) @ (hump * rule))
    amplitude = strength / (2 * math.pi * fire.WIDTH**2) * np.outer(*rows)
    decay = fire.DIFFUSIVITY * (n[:, None] ** 2 + n**2)
    across, along = (np.sin(np.outer(n, spots[:, axis])) for axis in (0, 1))
    return np.stack(
        [np.einsum("ij,is,js->s", amplitude * -np.expm1(-decay * t) / decay, across, along) for t in times]
    )


def test_predictions_converge_to_the_series_at_second_order():
    spots, times = np.array(fire.SENSORS), fire.DT * np.arange(1, 7)
    exact = series((0.4, 0.65), 1.3, times, spots)
    seen = Points(fire.SENSORS, (1.0, 1.0), wall="zero", of="temperature")
    source = {"place_x": 0.4, "place_y": 0.65, "strength": 1.3}
    cells, errors = [16, 32, 64, 128], []
    for n in cells:
        states = rollout(fire.room(n), fire.start(source, n), length=6).states
        found = np.stack([seen({"temperature": states["temperature"][k]})[0] for k in range(1, 7)])
        errors.append(float(np.sqrt(np.mean((found - exact) ** 2))))
    assert convergence_order([1 / n for n in cells], errors) == pytest.approx(2, abs=0.4)
    assert errors[1] < 0.2 * fire.SCALE


def test_the_estimate_is_near_the_truth():
    problem = fire.problem(size="small")
    solution = dp.solve(problem, "lbfgs")
    assert solution.status.kind == "converged"
    assert solution.metrics["distance"] < 0.05
    assert solution.metrics["relative_strength"] == pytest.approx(1, abs=0.2)
    assert 0.05 < float(solution.value["observation"]["scale"]) < 0.2
    truth = placed(problem, **problem.truth)
    assert problem.metrics(truth)["distance"] == pytest.approx(0, abs=1e-12)
    # 30 residuals of one standard deviation or so
    expected = -30 * (math.log(fire.SCALE) + 0.5 * math.log(2 * math.pi) + 0.5)
    assert abs(float(problem.log_likelihood(truth)) - expected) < 4 * math.sqrt(15)


def test_the_gradient_is_exact_in_place_strength_and_scale():
    problem = fire.problem(size="small")
    free = problem.unknown.free(placed(problem, place_x=0.4, place_y=0.65, strength=1.3, scale=0.2))
    assert min(taylor_rates(problem.log_density, free, largest=1e-3)) > 1.98


def test_sensors_on_a_line_cannot_tell_a_source_from_its_mirror_image():
    problem = fire.problem(size="small", symmetric=True)
    one = placed(problem, place_x=0.4, place_y=0.7, strength=1.3, scale=0.1)
    other = placed(problem, place_x=0.4, place_y=0.3, strength=1.3, scale=0.1)
    densities = [float(problem.log_density(problem.unknown.free(z))) for z in (one, other)]
    assert densities[0] == pytest.approx(densities[1], abs=1e-8)
    between = placed(problem, place_x=0.4, place_y=0.5, strength=1.3, scale=0.1)
    assert float(problem.log_density(problem.unknown.free(between))) != pytest.approx(densities[0], abs=1)
    standing = fire.problem(size="small")
    apart = [float(standing.log_density(standing.unknown.free(z))) for z in (one, other)]
    assert abs(apart[0] - apart[1]) > 10


def test_the_source_has_the_strength_it_is_said_to_have():
    state = fire.start({"place_x": 0.5, "place_y": 0.45, "strength": 1.7}, 64)
    inside = erf(0.5 / fire.WIDTH / math.sqrt(2)) ** 2
    assert float(state["source"].mean()) == pytest.approx(1.7 * inside, rel=1e-4)


def test_seeds_draw_the_source_and_bad_arguments_are_one_sentence():
    assert fire.problem(size="small", seed=1).truth["place_x"] != fire.problem(size="small").truth["place_x"]
    with pytest.raises(UsageError, match="comes in the sizes"):
        fire.problem(size="huge")
