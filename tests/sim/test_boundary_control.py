"""Held boundaries: the power is the stepped scheme, the schemes converge at their orders, the gradients are exact."""

import math

import pytest
import torch
from rolled import roll
from taylor import convergence_order, taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import Substeps
from dpcontrol.sim.boundary_reaction_diffusion import BoundaryReactionDiffusion
from dpcontrol.sim.boundary_transport import BoundaryTransport

SMALL = [
    BoundaryTransport(points=20, fine_dt=5e-3, held=12),
    BoundaryReactionDiffusion(points=21, fine_dt=1e-3, held=12),
]
KINDS = pytest.mark.parametrize("simulator", SMALL, ids=["transport", "reaction-diffusion"])


def inputs(simulator, scenarios=3, steps=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(scenarios, simulator.points, generator=generator, dtype=dtype)
    return state, torch.randn(steps, scenarios, 1, generator=generator, dtype=dtype)


def fields(simulator, scenarios=3):
    ((name, field),) = simulator.parameters.items()
    return {name: field * (1 + 0.1 * torch.arange(scenarios, dtype=field.dtype)[:, None])}


def fine(simulator):
    """The same system stepped through, fine step by fine step."""
    ((_, field),) = simulator.parameters.items()
    single = type(simulator)(field, simulator.points, simulator.fine_dt, 1)
    return Substeps(single, simulator.held)


def by_hand(simulator, state, control, field):
    """The fine steps as they are published, with an explicit loop."""
    for _ in range(simulator.held):
        state = simulator.fine_step(state, control, field)
    return state


@KINDS
@pytest.mark.parametrize("separate", [False, True])
def test_a_held_step_is_the_stepped_scheme(simulator, separate):
    state, controls = inputs(simulator)
    given = fields(simulator) if separate else {}
    field = next(iter((given or simulator.parameters).values()))
    found = rollout(simulator, state, controls, parameters=given).states
    stepped = rollout(fine(simulator), state, controls, parameters=given).states
    torch.testing.assert_close(found, stepped, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        found[1], by_hand(simulator, state, controls[0], field), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("simulator", [BoundaryTransport(), BoundaryReactionDiffusion()])
def test_the_published_sizes_too(simulator):
    state, controls = inputs(simulator, 2, 1)
    ((_, field),) = simulator.parameters.items()
    found = rollout(simulator, state, controls).states[1]
    torch.testing.assert_close(found, by_hand(simulator, state, controls[0], field), rtol=1e-11, atol=1e-11)
    low = rollout(simulator, state.float(), controls.float()).states[1]
    assert low.dtype == torch.float32  # the power is taken in double, so only the product is rounded
    torch.testing.assert_close(low.double(), found, rtol=1e-5, atol=1e-5)


@KINDS
def test_without_a_control_the_boundary_value_is_zero(simulator):
    state, controls = inputs(simulator)
    found = rollout(simulator, state, length=4).states
    torch.testing.assert_close(found, rollout(simulator, state, 0 * controls).states)


def test_transport_converges_at_first_order_to_a_growing_mode():
    """exp(s t) phi(x) for constant beta: phi' = s phi - beta, phi(0) = 1, phi(1) = 0 where s = beta (1 - exp(-s))."""
    beta, s = 2.0, 1.0
    for _ in range(100):
        s = beta * (1 - math.exp(-s))
    errors, sizes = [], [50, 100, 200, 400]
    for points in sizes:
        x = torch.arange(points, dtype=torch.float64) / points
        phi = torch.exp(s * x) - beta * torch.expm1(s * x) / s
        simulator = BoundaryTransport(beta, points, 0.25 / points, 2 * points)
        wanted = math.exp(s * simulator.dt) * phi
        found = roll(simulator, phi[None], 1)[0]
        errors.append(float((found - wanted).abs().max()))  # the last point is zero, one dx before x = 1
    assert errors[-1] < 0.02
    assert convergence_order([1 / n for n in sizes], errors) == pytest.approx(1, abs=0.1)


def test_what_enters_at_the_boundary_arrives_one_unit_of_time_later():
    simulator = BoundaryTransport(0.0, 400, 2.5e-3, 40)  # fine_dt = dx: upwind differences are a shift
    control = torch.randn(10, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = rollout(simulator, torch.zeros(1, 400, dtype=torch.float64), control).states[-1, 0]
    # point i carries what was written 399 - i fine steps before the last write
    wanted = torch.stack([control[i // 40, 0, 0] for i in range(400)])
    torch.testing.assert_close(states, wanted, rtol=1e-12, atol=1e-12)


def test_diffusion_converges_at_second_order_to_a_growing_mode():
    reaction, errors, sizes = 15.0, [], [21, 41, 81]
    for points in sizes:
        dx = 1 / (points - 1)
        simulator = BoundaryReactionDiffusion(reaction, points, 0.2 * dx**2, round(0.1 / (0.2 * dx**2)))
        mode = torch.sin(math.pi * torch.linspace(0, 1, points, dtype=torch.float64))[None]
        found = roll(simulator, mode, 1)
        errors.append(float((found - math.exp(0.1 * (reaction - math.pi**2)) * mode).abs().max()))
    assert convergence_order([1 / (n - 1) for n in sizes], errors) == pytest.approx(2, abs=0.1)


def test_a_held_end_makes_the_profile_straight_and_nothing_leaves_its_range():
    simulator = BoundaryReactionDiffusion(0.0, 21, 1e-3, 2000)
    start = torch.rand(2, 21, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    held = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    states = rollout(simulator, start, held[None]).states
    line = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(states[-1], held * line, rtol=0, atol=1e-8)
    for plain in (simulator, BoundaryTransport(0.0, 21, 0.04, 7)):
        states = rollout(plain, start, torch.full((5, 2, 1), 0.5, dtype=torch.float64)).states
        assert float(states.min()) >= 0 and float(states.max()) <= 1


@KINDS
@pytest.mark.parametrize("what", ["state", "control", "field", "fields"])
def test_gradients_by_taylor(simulator, what):
    state, controls = inputs(simulator)
    ((name, field),) = simulator.parameters.items()
    points = {"state": state, "control": controls, "field": field, "fields": fields(simulator)[name]}

    def loss(value):
        given = {what: value}
        path = rollout(
            simulator,
            given.get("state", state),
            given.get("control", controls),
            parameters={name: value} if what.startswith("field") else {},
        )
        return path.states[1:].square().sum() + path.states[-1].sin().sum()

    assert min(taylor_rates(loss, points[what], largest=1e-3 if what.startswith("f") else 1e-2)) > 1.9


@KINDS
def test_the_gradient_in_the_field_is_that_of_the_fine_steps(simulator):
    state, controls = inputs(simulator)
    ((name, field),) = simulator.parameters.items()
    gradients = []
    for system in (simulator, fine(simulator)):
        leaf = field.clone().requires_grad_()
        end = rollout(system, state, controls, parameters={name: leaf}).states[-1]
        gradients.append(torch.autograd.grad(end.square().sum(), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BoundaryTransport(points=100, fine_dt=0.02), "stable up to fine_dt = 0.01"),
        (lambda: BoundaryReactionDiffusion(points=201, fine_dt=2e-5), "stable up to fine_dt = 1.25e-05"),
        (lambda: BoundaryTransport(points=2), "points must be a whole number, at least 3"),
        (lambda: BoundaryReactionDiffusion(held=0), "held must be a whole number, at least 1"),
        (lambda: BoundaryTransport(torch.zeros(7)), r"recirculation must be a number, \(100,\)"),
        (lambda: BoundaryReactionDiffusion(torch.full((201,), math.nan)), "not finite"),
        (lambda: rollout(BoundaryTransport(), torch.zeros(2, 9), length=1), r"is \(scenarios, 100\)"),
        (
            lambda: rollout(BoundaryTransport(), torch.zeros(2, 100), torch.zeros(1, 2, 3)),
            r"its boundary value \(scenarios, 1\)",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
