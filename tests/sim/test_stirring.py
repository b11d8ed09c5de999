"""Stirring: solid rotation, what it costs, derivatives, refusals."""

import math

import pytest
import torch
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import Grid, Stirring
from dpcontrol.sim.staggered import divergence

F64 = torch.float64


def corner_points(n):
    inner = torch.arange(1, n, dtype=F64) / n
    return inner[:, None], inner


def bump(n, x, y):
    a, b = Grid((n, n), (1.0, 1.0)).centres()
    return torch.exp(-((a - x) ** 2 + (b - y) ** 2) / (2 * 0.08**2))[None]


@pytest.mark.parametrize(("scheme", "order"), [("semi_lagrangian", 1.0), ("mac_cormack", 2.0)])
def test_order_of_a_quarter_turn(scheme, order):
    """In the middle of the box the potential of a solid rotation turns a bump by a quarter."""
    sizes, errors = [], []
    for n in (32, 64, 128):
        x, y = corner_points(n)
        psi = -0.5 * math.pi / 2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
        away = torch.maximum((x - 0.5).abs(), (y - 0.5).abs())
        psi = torch.where(away < 0.4, psi, torch.zeros_like(psi))  # the walls are far from the bump
        steps = n // 2
        simulator = Stirring(Grid((n, n), (1.0, 1.0)), dt=1 / steps, scheme=scheme)
        controls = psi.expand(steps, 1, n - 1, n - 1)
        end = rollout(simulator, {"marker": bump(n, 0.65, 0.5)}, controls).states["marker"][-1]
        # u = d psi/dy = -w (y - 1/2), v = w (x - 1/2): counter-clockwise, from the right to the top
        errors.append(float((end - bump(n, 0.5, 0.65)).abs().mean()))
        sizes.append(1 / n)
    assert convergence_order(sizes, errors) == pytest.approx(order, abs=0.3)


def test_a_velocity_that_goes_on_costs_what_advection_changes():
    simulator = Stirring(Grid((10, 12)), dt=0.5)
    generator = torch.Generator().manual_seed(0)
    psi = torch.randn(2, *simulator.corners, generator=generator, dtype=F64)
    rest = simulator.start({"marker": torch.rand(2, 10, 12, generator=generator, dtype=F64)}, {})
    for part, new in zip(simulator.force(rest, psi), simulator.velocity(psi), strict=True):
        torch.testing.assert_close(part, new / 0.5)  # from rest the whole velocity must be made
    moving = simulator.step(rest, psi, None, None, 0.0)
    velocity = (moving["velocity_x"], moving["velocity_y"])
    assert float(divergence(velocity, simulator.grid).abs().max()) < 1e-13
    uniform = Stirring(Grid((10, 12), sides=(("free_slip",) * 2, "periodic")), dt=0.5)
    lane = torch.linspace(0, 1, 11, dtype=F64)[1:-1, None].expand(9, 12)[None]  # shear flow along y
    start = uniform.start({"marker": torch.ones(1, 10, 12, dtype=F64)}, {})
    going = uniform.step(start, lane, None, None, 0.0)
    assert max(float(part.abs().max()) for part in uniform.force(going, lane)) < 1e-14


def test_taylor_in_state_and_control():
    simulator = Stirring(Grid((7, 8), (1.4, 2.0)), dt=0.2)
    generator = torch.Generator().manual_seed(2)
    point = {
        "state": {"marker": torch.randn(2, 7, 8, generator=generator, dtype=F64)},
        "control": torch.randn(4, 2, 6, 7, generator=generator, dtype=F64),
    }

    def loss(z):
        states = rollout(simulator, z["state"], z["control"]).states
        before = {name: part[2] for name, part in states.items()}
        work = sum(part.square().sum() for part in simulator.force(before, z["control"][2]))
        return states["marker"][-1].square().sum() + 0.1 * work

    for name in point:

        def along(value, name=name):
            return loss({**point, name: value})

        rates = taylor_rates(along, point[name], largest=2e-5)
        assert min(rates) > 1.9 and max(rates) < 2.1, (name, rates)


def test_wrong_use_is_refused_in_one_sentence():
    def refused(pattern, call):
        with pytest.raises(UsageError, match=pattern):
            call()

    grid = Grid((6, 7))
    good, marker = Stirring(grid, dt=1.0), torch.zeros(2, 6, 7, dtype=F64)
    refused("two axes", lambda: Stirring(Grid((6, 7, 8)), dt=1.0))
    refused("dt must be positive", lambda: Stirring(grid, dt=0.0))
    refused("schemes of advection", lambda: Stirring(grid, dt=1.0, scheme="upwind"))
    refused("dict with the marker", lambda: rollout(good, marker, length=1))
    refused("marker of this grid", lambda: rollout(good, {"marker": marker[:, 1:]}, length=1))
    refused("potential on the corners.*found none", lambda: rollout(good, {"marker": marker}, length=1))
    wide = torch.zeros(1, 2, 6, 7, dtype=F64)
    refused(r"\(scenarios, 5, 6\)", lambda: rollout(good, {"marker": marker}, wide))
