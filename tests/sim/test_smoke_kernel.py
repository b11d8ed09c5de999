"""The raw twin of a step of smoke: equal to the eager step, value and gradient, ties and NaN included."""

import pytest
import torch

from dpcontrol import tree
from dpcontrol.engine.fused import run_fused_step
from dpcontrol.engine.trajectory import eager_step
from dpcontrol.sim import Grid, Smoke, Stirring
from dpcontrol.sim.carried import advected
from dpcontrol.sim.staggered import SCHEMES

pytest.importorskip("numba")
F64 = torch.float64
SIDES = {
    "closed": (),
    "channel": ("periodic", ("free_slip", "no_slip")),
    "torus": ("periodic", "periodic"),
    "room": (("no_slip", "no_slip"), ("free_slip", "free_slip"), "periodic"),
}


def scene(simulator, count=2, dtype=F64, speed=1.5, seed=0):
    """State, control, parameters; a third of the marker is a plateau, so that corners tie."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=F64).to(dtype)

    state = {name: speed * random(count, *shape) for name, shape in simulator.shapes.items()}
    state["marker"][:, : simulator.grid.cells[0] // 3] = 0.25
    parameters = {
        "buoyancy": random(count),
        "inflow": random(count, *simulator.grid.cells),
    }
    return state, random(count, len(simulator.grid.cells), *simulator.grid.cells), parameters


def both(simulator, state, control, parameters):
    """The step and its gradients, by the kernel and by autograd."""
    found = []
    for raw in (True, False):
        given = tree.map(lambda leaf: leaf.clone().requires_grad_(), (state, control, parameters))
        at, push, constants = given
        coefficients = simulator.prepare(constants, {})
        step, row = eager_step(simulator), (push, None)
        if raw:
            kernel = simulator.kernel(at, push, None, coefficients)
            assert kernel is not None
            after = run_fused_step(kernel, step, at, row, coefficients, 0)
        else:
            after = step(at, row, coefficients, 0)
        parts = list(after.values())
        weights = [torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view(part.shape) for part in parts]
        wanted = tree.leaves((at, push, constants if "none" not in constants else {}))
        found.append((parts, torch.autograd.grad(parts, wanted, weights, materialize_grads=True)))
    return found


@pytest.mark.parametrize(
    ("cells", "sides"), [((7, 9), "closed"), ((8, 6), "channel"), ((6, 5), "torus"), ((5, 6, 4), "room")]
)
@pytest.mark.parametrize("scheme", ["semi_lagrangian", "mac_cormack"])
@pytest.mark.parametrize("speed", [0.0, 1.5, 30.0])
def test_it_is_the_eager_step(cells, sides, scheme, speed):
    grid = Grid(cells, tuple(0.7 * n for n in cells), SIDES[sides])
    simulator = Smoke(grid, dt=0.8, marker_scheme=scheme, velocity_scheme=scheme)
    (raw, raw_slopes), (eager, slopes) = both(simulator, *scene(simulator, speed=speed))
    for a, b in zip((*raw, *raw_slopes), (*eager, *slopes), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * (1 + speed))


def test_single_precision_and_one_shared_buoyancy():
    simulator = Smoke(Grid((8, 7)), dt=0.5)
    state, control, _ = scene(simulator, dtype=torch.float32, speed=0.4)
    parameters = {"buoyancy": torch.tensor(0.7), "inflow": torch.tensor(0.1)}
    (raw, raw_slopes), (eager, slopes) = both(simulator, state, control, parameters)
    for a, b in zip((*raw, *raw_slopes), (*eager, *slopes), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("cells", "sides"), [((7, 9), "closed"), ((8, 6), "channel"), ((6, 5), "torus")])
@pytest.mark.parametrize("scheme", ["semi_lagrangian", "mac_cormack"])
def test_stirring_as_well(cells, sides, scheme):
    simulator = Stirring(Grid(cells, tuple(0.7 * n for n in cells), SIDES[sides]), dt=0.8, scheme=scheme)
    state, _, _ = scene(simulator)
    potential = torch.randn(2, *simulator.corners, generator=torch.Generator().manual_seed(3), dtype=F64)
    (raw, raw_slopes), (eager, slopes) = both(simulator, state, potential, {"none": torch.ones(1)})
    for a, b in zip((*raw, *raw_slopes), (*eager, *slopes), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_stays_inside_and_is_seen(bad):
    simulator = Smoke(Grid((6, 7)), dt=0.5)
    state, control, parameters = scene(simulator)
    state["velocity_x"][0, 2, 3] = bad
    (raw, _), _ = both(simulator, state, control, parameters)
    assert not bool(torch.isfinite(raw[1][0]).all()) or bad == 1e30
    assert bool(torch.isfinite(raw[0][1]).all())  # the other scenario does not notice


@pytest.mark.parametrize("scheme", ["semi_lagrangian", "mac_cormack"])
def test_advection_as_one_node_of_a_graph(scheme):
    """First derivatives by the loops, all others as if there were none."""
    generator = torch.Generator().manual_seed(4)
    inputs = [torch.randn(2, 3, 4, generator=generator, dtype=F64).requires_grad_() for _ in range(3)]
    factors = torch.linspace(0.5, 2.0, 3, dtype=F64).requires_grad_()
    beyond = (("edge", "zero"), ("periodic", "periodic"))

    def found(advect):
        value = advect(inputs[0], inputs[1:])
        first = torch.autograd.grad(value.square().sum(), inputs)
        again = torch.autograd.grad(advect(inputs[0], inputs[1:]).square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in again), inputs)
        tangents = torch.func.jvp(lambda *parts: advect(parts[0], parts[1:]), tuple(inputs), tuple(inputs))[1]
        each = torch.func.vmap(lambda factor: advect(factor * inputs[0], inputs[1:]))(factors)
        slope = torch.autograd.grad(each.square().sum(), [factors, *inputs])
        return [value, *first, *second, tangents, each, *slope]

    def loops(field, travelled):
        return advected(scheme, field, travelled, beyond)

    def eager(field, travelled):
        return SCHEMES[scheme](field, travelled, beyond)

    for a, b in zip(found(loops), found(eager), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_no_kernel_where_the_loops_cannot_run():
    simulator = Smoke(Grid((6, 7)), dt=0.5)
    state, control, parameters = scene(simulator)
    mixed = simulator.prepare({**parameters, "buoyancy": parameters["buoyancy"].float()}, {})
    assert simulator.kernel(state, control, None, mixed) is None
    coefficients = simulator.prepare(parameters, {})
    assert simulator.kernel(state, control, None, coefficients) is not None
    assert simulator.kernel(state, control[:1], None, coefficients) is None
    assert simulator.kernel(state, control[:, :1], None, coefficients) is None
