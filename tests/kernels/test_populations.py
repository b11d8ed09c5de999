"""A population (what ``vmap`` adds) runs through the kernel as more scenarios, and equals the row-by-row result."""

import pytest
import torch
from test_base import Logistic, data

from dpcontrol import tree
from dpcontrol.engine import rollout, runs
from dpcontrol.sim import (
    ETDRK2,
    FiniteVolumeBurgers,
    GrayScott,
    Grid,
    KuramotoSivashinsky,
    Schroedinger,
    SemiLagrangianBurgers,
    Smoke,
    SpectralBurgers,
    Stirring,
    Substeps,
    VorticityFlow,
)

F64 = torch.float64
ROWS, STEPS = 3, 4


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def row_of(*shape):
    return lambda s, seed=0: 0.5 * random(s, *shape, seed=seed)


SMOKE = Grid((6, 8))
STIRRED = Stirring(SMOKE, dt=0.5)


def smoke(s, seed=0):
    return {
        name: random(s, *shape, seed=seed + i)
        for i, (name, shape) in enumerate(Smoke(SMOKE, 1.0).shapes.items())
    }


# the simulator, its states, its controls, and parameters around which candidates differ
CASES = {
    "finite volumes": (
        FiniteVolumeBurgers(0.004, 0.01, boundary=(0.2, -0.3)),
        row_of(12),
        row_of(12),
        {"viscosity": 0.01, "left_value": 0.2},
    ),
    "semi-Lagrangian": (SemiLagrangianBurgers(0.03, 0.003), row_of(12), row_of(12), {"viscosity": 0.003}),
    "substeps": (
        Substeps(FiniteVolumeBurgers(0.002, 0.01), 3),
        row_of(12),
        row_of(12),
        {"viscosity": 0.01},
    ),
    "Burgers in loops": (SpectralBurgers(0.01, 16, 1.0, 0.02), row_of(16), row_of(16), {"viscosity": 0.02}),
    "Burgers by transforms": (
        SpectralBurgers(0.01, 14, 1.0, 0.02, scheme=ETDRK2),
        row_of(14),
        row_of(14),
        {"viscosity": 0.02},
    ),
    "Kuramoto-Sivashinsky": (KuramotoSivashinsky(0.05, 16, 10.0), row_of(16), row_of(16), {"viscosity": 1.0}),
    "vorticity in loops": (
        VorticityFlow(0.02, (8, 8), stirring_mode=2),
        row_of(8, 8),
        row_of(8, 8),
        {"viscosity": 1e-3, "stirring": 0.1},
    ),
    "vorticity by transforms": (
        VorticityFlow(0.02, (7, 14), stirring_mode=2),
        row_of(7, 14),
        row_of(7, 14),
        {"drag": 0.1},
    ),
    "Gray-Scott": (GrayScott(0.5, (8,)), row_of(2, 8), row_of(2, 8), {"feed": 0.04, "diffusivity_a": 2e-5}),
    "Schroedinger": (
        Schroedinger(
            0.02, 8, 10.0, potential=random(8, seed=7), dipoles=random(2, 8, seed=8), interaction=0.5
        ),
        row_of(8, 2),
        row_of(2),
        {"mass": 1.0, "potential_strength": 1.0, "interaction": 0.5},
    ),
    "smoke": (Smoke(SMOKE, 0.5), smoke, row_of(2, 6, 8), {"buoyancy": 1.0, "inflow": 0.1}),
    "stirring": (
        STIRRED,
        lambda s, seed=0: STIRRED.start({"marker": random(s, 6, 8, seed=seed)}, {}),
        row_of(*STIRRED.corners),
        {},
    ),
}


@pytest.fixture
def sizes(monkeypatch):
    """The numbers of scenarios of the runs of kernels, forward and back."""
    seen = []

    def watch(name):
        inner = getattr(runs.Run, name)

        def watched(self, tensors, *rest):
            seen.append((name, len(tensors[0])))
            return inner(self, tensors, *rest)

        monkeypatch.setattr(runs.Run, name, watched)

    for name in ("raw", "pull", "eager"):
        watch(name)
    return seen


def losses(simulator, batched, shared, one_by_one):
    """Losses of all rows, and their gradients in everything."""
    wanted = tree.map(lambda leaf: leaf.clone().requires_grad_(), (batched, shared))
    weights = {}

    def loss(own):
        x = {**wanted[1], **own}
        states = rollout(simulator, x["state"], x["controls"], parameters=x["parameters"]).states
        ends = tree.leaves(states)
        for i, leaf in enumerate(ends):
            weights.setdefault(i, torch.linspace(-1, 1, leaf.numel(), dtype=F64).view(leaf.shape))
        return sum((leaf * (leaf + weights[i])).sum() for i, leaf in enumerate(ends))

    if one_by_one:
        rows = tree.unbind(wanted[0])
        found = torch.stack([loss(row) for row in rows])
    else:
        found = torch.func.vmap(loss)(wanted[0])
    found, along = found.flatten(), torch.linspace(1, 2, found.numel(), dtype=F64)
    leaves = [leaf for leaf in tree.leaves(wanted) if leaf.numel()]
    gradients = torch.autograd.grad(found @ along, leaves, materialize_grads=True)
    return [found.detach(), *gradients]


@pytest.mark.parametrize("differing", ["state", "controls", "parameters", "all"])
@pytest.mark.parametrize("scenarios", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_population_is_one_run_of_more_scenarios(case, scenarios, differing, sizes):
    simulator, states, controls, parameters = CASES[case]
    if differing == "parameters" and not parameters:
        pytest.skip("no parameters")
    one = {
        "state": states(scenarios),
        "controls": torch.stack([controls(scenarios, seed=30 + k) for k in range(STEPS)]),
        "parameters": {name: torch.tensor(value, dtype=F64) for name, value in parameters.items()},
    }
    factors = torch.linspace(0.8, 1.3, ROWS, dtype=F64)
    names = list(one) if differing == "all" else [differing]
    batched = {
        name: tree.map(lambda leaf: factors.reshape(-1, *[1] * leaf.ndim) * leaf, one[name]) for name in names
    }
    shared = {name: value for name, value in one.items() if name not in names}
    found = losses(simulator, batched, shared, False)
    assert sizes == [("raw", ROWS * scenarios), ("pull", ROWS * scenarios)]
    expected = losses(simulator, batched, shared, True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12 * float(other.abs().max()))


def burgers(scenarios=2):
    state, controls = 0.5 * random(scenarios, 12), random(STEPS, scenarios, 12, seed=1)
    return FiniteVolumeBurgers(0.004, 0.01), state, controls


def test_parameters_of_candidates_and_of_scenarios(sizes):
    simulator, state, controls = burgers()
    nu = torch.tensor([[0.01, 0.02], [0.03, 0.01], [0.0, 0.04]], dtype=F64)
    found, expected = (
        losses(simulator, {"parameters": {"viscosity": nu}}, {"state": state, "controls": controls}, by_row)
        for by_row in (False, True)
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    # one value for each scenario, the same for all candidates, which differ in their controls
    force = torch.stack([controls, -controls, 2 * controls])
    shared = {"state": state, "parameters": {"viscosity": nu[0]}}
    found, expected = (losses(simulator, {"controls": force}, shared, by_row) for by_row in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    assert sizes.count(("raw", 6)) == sizes.count(("pull", 6)) == 2


def test_any_place_of_the_candidates_axis_and_a_state_without_gradient(sizes):
    simulator, state, controls = burgers()
    nu = torch.tensor([0.01, 0.02, 0.03], dtype=F64)

    def ends(start, force, viscosity):
        return rollout(simulator, start, force, parameters={"viscosity": viscosity}).states[-1]

    force = torch.stack([controls, -controls, 2 * controls])
    expected = torch.stack([ends(state, *pair) for pair in zip(force, nu, strict=True)])
    del sizes[:]
    found = torch.func.vmap(ends, (None, 3, 0), 1)(state, force.movedim(0, 3), nu)
    torch.testing.assert_close(found.movedim(1, 0), expected, rtol=1e-12, atol=1e-13)
    assert sizes == [("raw", 6)]


def test_second_derivatives_of_a_population_come_from_the_eager_definition():
    simulator, state, controls = burgers(1)
    found = []
    for fast in (True, False):
        nu = torch.tensor([0.01, 0.02], dtype=F64, requires_grad=True)

        def loss(value):
            return rollout(simulator, state, controls, parameters={"viscosity": value}).states.square().sum()

        values = torch.func.vmap(loss)(nu) if fast else torch.stack([loss(one) for one in nu])
        first = torch.autograd.grad(values.sum(), nu, create_graph=True)[0]
        found.append(torch.stack([first.detach(), *torch.autograd.grad(first.square().sum(), nu)]))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("nested", ["vmap", "grad", "jvp", "jacrev"])
def test_nested_transforms_go_through_the_eager_definition(nested, sizes):
    simulator, state, controls = burgers(1)

    def loss(nu, scale):
        states = rollout(simulator, state, scale * controls, parameters={"viscosity": nu}).states
        return states.square().sum()

    nu, scales = torch.tensor([0.01, 0.02], dtype=F64), torch.tensor([0.5, 1.0, 2.0], dtype=F64)
    one = torch.ones((), dtype=F64)
    if nested == "vmap":
        found = torch.func.vmap(lambda a: torch.func.vmap(lambda b: loss(a, b))(scales))(nu)
        expected = torch.stack([torch.stack([loss(a, b) for b in scales]) for a in nu])
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        return
    of = {
        "grad": lambda a: torch.func.grad(loss)(a, one),
        "jvp": lambda a: torch.func.jvp(lambda b: loss(b, one), (a,), (one,))[1],
        "jacrev": lambda a: torch.func.jacrev(loss)(a, one),
    }[nested]
    expected = torch.stack([of(a) for a in nu])
    torch.testing.assert_close(torch.func.vmap(of)(nu), expected, rtol=1e-10, atol=1e-11)
    assert "raw" not in dict(sizes)


def test_a_kernel_that_says_nothing_of_its_coefficients_is_not_asked(sizes):
    state, controls = data()
    rates = torch.tensor([2.5, 2.9], dtype=F64)
    found, expected = (
        losses(Logistic(), {"parameters": {"rate": rates}}, {"state": state, "controls": controls}, by_row)
        for by_row in (False, True)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert sizes[0] == ("eager", 3)
