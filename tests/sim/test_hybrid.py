"""A hybrid step: the solver to the bit where the network says nothing, hand-made steps, gradients, staggered states."""

import pytest
import torch
from taylor import taylor_rates

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.nets import ConvNet
from dpcontrol.results import UsageError
from dpcontrol.sim import (
    Channels,
    FiniteVolumeBurgers,
    Grid,
    HybridSimulator,
    IncompressibleFlow,
    Inflow,
    NoSlip,
    Outflow,
    Still,
    padding,
)
from dpcontrol.sim.hybrid import PLACES

F64 = torch.float64
CELLS, DT = 12, 0.01
BURGERS = FiniteVolumeBurgers(DT, 0.02)
LAYOUT = Channels(1, sizes=(0.5,), corrections=(0.03,), inputs={"viscosity": (0.02, 0.01)})
SIDES = (Inflow(1.0), Outflow()), (NoSlip(), NoSlip())
FLOW = IncompressibleFlow(Grid((8, 6), (4.0, 3.0), SIDES), dt=0.02, viscosity=0.05)


def network(inputs, outputs, dimensions=1, zero=False):
    torch.manual_seed(0)
    made = ConvNet(
        inputs, outputs, dimensions=dimensions, width=4, depth=1, padding="circular", gain=1.0
    ).double()
    if zero:
        for weight in made.last.parameters():
            torch.nn.init.zeros_(weight)
    return made


def state(count=3, seed=0):
    return 0.5 * torch.randn(count, CELLS, generator=torch.Generator().manual_seed(seed), dtype=F64)


def stream():
    generator = torch.Generator().manual_seed(2)
    return {
        name: float(name == "velocity_x") + 0.1 * torch.randn(2, *shape, generator=generator, dtype=F64)
        for name, shape in FLOW.shapes.items()
    }


FLOWING = Channels(2, ("velocity_x", "velocity_y"))


@pytest.mark.parametrize("where", PLACES)
def test_a_network_that_says_nothing_leaves_the_solver_as_it_is_to_the_bit(where):
    hybrid = HybridSimulator(BURGERS, network(2, 1, zero=True), where, LAYOUT)
    force = 0.1 * state(seed=1).expand(4, 3, CELLS)
    for controls in (None, force):
        found = rollout(hybrid, state(), controls, length=4).states
        # a network's force of zero is a control, which loops of the solver alone may compute in another order
        wanted = rollout(FiniteVolumeBurgers(DT, 0.02, fused=False), state(), controls, length=4).states
        assert torch.equal(found, wanted)
    if where != "force":
        still = HybridSimulator(FLOW, network(2, 2, 2, zero=True), where, FLOWING)
        one, other = (rollout(simulator, stream(), length=3).states for simulator in (still, FLOW))
        assert all(torch.equal(a, b) for a, b in zip(tree.leaves(one), tree.leaves(other), strict=True))


def test_every_place_is_the_step_that_its_formula_says():
    net, x, u = network(2, 1), state(), 0.1 * state(seed=1)

    def learned(seen):
        channels = torch.stack([seen / 0.5, torch.full_like(seen, (0.05 - 0.02) / 0.01)], 1)
        return 0.03 * net(channels)[:, 0]

    def solver(x, u):
        return rollout(BURGERS, x, u[None], parameters={"viscosity": 0.05}).states[-1]

    plain = solver(x, u)
    wanted = {
        "after": plain + learned(plain),
        "before": solver(x + learned(x), u),
        "force": solver(x, u + learned(x)),
        "source": plain + DT * learned(x),
    }
    for where in PLACES:
        hybrid = HybridSimulator(BURGERS, net, where, LAYOUT)
        found = rollout(hybrid, x, u[None], parameters={"viscosity": 0.05}).states[-1]
        torch.testing.assert_close(found, wanted[where], rtol=1e-12, atol=1e-13)
        assert float((found - plain).detach().abs().max()) > 1e-6


def test_a_network_sees_the_parameters_of_its_own_scenario():
    hybrid = HybridSimulator(BURGERS, network(2, 1), "after", LAYOUT)
    values = torch.tensor([0.01, 0.02, 0.04], dtype=F64)
    together = rollout(hybrid, state(), length=2, parameters={"viscosity": values}).states[-1]
    for row in range(3):
        alone = rollout(
            hybrid, state()[row : row + 1], length=2, parameters={"viscosity": float(values[row])}
        ).states[-1]
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-12, atol=1e-14)


def test_an_input_may_come_with_the_scenarios_and_is_missed_where_it_does_not():
    layout = Channels(1, inputs={"length": (1.0, 0.5)})
    hybrid = HybridSimulator(BURGERS, network(2, 1), "after", layout)
    with pytest.raises(UsageError, match="sees length, which is neither a parameter of FiniteVolumeBurgers"):
        rollout(hybrid, state(), length=1)
    lengths = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    found = rollout(hybrid, state(), length=1, scenario={"length": lengths}).states[-1]
    swapped = rollout(hybrid, state(), length=1, scenario={"length": lengths.flip(0)}).states[-1]
    assert torch.equal(found[1], swapped[1]) and not torch.equal(found[0], swapped[0])


@pytest.mark.parametrize("where", PLACES)
def test_gradients_in_weights_state_and_control(where):
    hybrid = HybridSimulator(BURGERS, network(2, 1), where, LAYOUT)
    point = {
        "state": state(2),
        "control": 0.1 * state(6, seed=3).reshape(3, 2, CELLS),
        "weights": dict(hybrid.parameters["correction"]),
        "viscosity": torch.tensor(0.03, dtype=F64),
    }

    def score(part):
        def function(value):
            z = {**point, part: value}
            parameters = {"correction": z["weights"], "viscosity": z["viscosity"]}
            end = rollout(hybrid, z["state"], z["control"], parameters=parameters).states[-1]
            return end.square().sum() + end.pow(3).sum()

        return function

    for part, value in point.items():
        largest = 1e-3 if part == "viscosity" else 1e-2
        rates = taylor_rates(score(part), value, largest=largest)
        assert all(rate > 1.9 for rate in rates[-2:]), (part, rates)


def test_staggered_velocities_are_channels_of_one_grid_and_come_back_in_their_shapes():
    x = stream()
    assert x["velocity_x"].shape[1:] != x["velocity_y"].shape[1:]
    layout = Channels(2, ("velocity_x", "velocity_y"), (2.0, 1.0), (1.0, 3.0))
    packed = layout.pack(x, {})
    assert layout.counts(x) == (2, 2) and packed.shape == (2, 2, 8, 6)
    rows, columns = x["velocity_y"].shape[1:]
    assert torch.equal(packed[:, 0, : x["velocity_x"].shape[1]], x["velocity_x"] / 2)
    assert torch.equal(packed[:, 1, :rows, :columns], x["velocity_y"])
    assert torch.equal(packed[:, 1, :, -1], packed[:, 1, :, columns - 1])  # filled up with the last values
    back = layout.unpack(packed, x)
    torch.testing.assert_close(back["velocity_x"], x["velocity_x"] / 2)
    torch.testing.assert_close(back["velocity_y"], 3 * x["velocity_y"])
    with pytest.raises(UsageError, match="a dict with velocity_x, velocity_y"):
        layout.pack({"velocity_x": x["velocity_x"]}, {})


def test_components_lie_in_front_of_the_grid():
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    layout = Channels(2, inputs={"a": (0.0, 2.0)})
    packed = layout.pack(x, {"a": torch.tensor([1.0, 2.0, 3.0])})
    assert layout.counts(x) == (3, 2) and torch.equal(packed[:, :2], x)
    assert packed[:, 2].amax((1, 2)).tolist() == [0.5, 1.0, 1.5]
    assert torch.equal(layout.unpack(packed[:, :2], x), x)


def test_parts_that_are_not_named_stay_as_the_solver_has_them():
    only = Channels(2, ("velocity_y",))
    hybrid = HybridSimulator(FLOW, network(1, 1, 2), "after", only)
    found, plain = (rollout(simulator, stream(), length=1).states for simulator in (hybrid, FLOW))
    assert torch.equal(found["velocity_x"], plain["velocity_x"])
    assert not torch.equal(found["velocity_y"], plain["velocity_y"])


def test_a_network_alone_goes_nowhere_where_it_says_nothing():
    alone = HybridSimulator(Still(BURGERS), network(2, 1, zero=True), "after", LAYOUT)
    assert alone.dt == DT and set(alone.parameters) == {"viscosity", "correction"}
    assert torch.equal(rollout(alone, state(), length=3).states[-1], state())


def test_what_lies_outside_of_a_grid_and_what_is_refused():
    assert padding(FLOW.grid) == ("replicate", "replicate")
    assert padding(Grid((8, 6), (1.0, 1.0), ("periodic", ("no_slip", "no_slip")))) == (
        "circular",
        "replicate",
    )
    with pytest.raises(UsageError, match="one of after, before, force, source; found 'behind'"):
        HybridSimulator(BURGERS, network(1, 1), "behind")
    with pytest.raises(UsageError, match="2 positive number"):
        Channels(2, ("velocity_x", "velocity_y"), (1.0,))
    with pytest.raises(UsageError, match="grids of 1, 2 or 3 axes"):
        Channels(4)
