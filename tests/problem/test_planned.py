"""Plans by halving: spans, closed forms, who is asked how often, and the memory in the loop."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from taylor import taylor_rates

from dpcontrol import tree
from dpcontrol.engine.gradients import Checkpointed, Full
from dpcontrol.meter import Meter
from dpcontrol.nets import MLP, ConvNet
from dpcontrol.problem import (
    ControlSequence,
    Policy,
    Scenarios,
    closing,
    control_problem,
    effort,
    reach,
)
from dpcontrol.problem.acting import from_value
from dpcontrol.problem.packed import Layout
from dpcontrol.problem.planned import enclosing, levels, middle, planned_controller
from dpcontrol.problem.playing import play
from dpcontrol.problem.windowing import window
from dpcontrol.results import UsageError

F64 = torch.float64


def drift(horizon, *, size=3, count=4, low=None, high=None, objective=None, state=None):
    """``x+ = x + u / 2`` between random states: the least effort is the same control at every step."""
    generator = torch.Generator().manual_seed(1)
    start, end = torch.randn(2, count, size, generator=generator, dtype=F64)
    return control_problem(
        state or (lambda x, u: x + 0.5 * u),
        initial_state=start,
        horizon=horizon,
        objective=objective or closing("target", gain=0.5) + effort(),
        control=ControlSequence((size,), low=low, high=high),
        scenarios={"target": end},
        name="drift",
    )


class Exactly(torch.nn.Module):
    """The CFE of ``drift``: the way to go, times two; it reads no more than that."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.size = outputs
        self.gain = torch.nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, seen):
        return self.gain * seen[:, self.size : 2 * self.size]


class Straight(torch.nn.Module):
    """An OP that bends no line, and counts how often it is asked, and for which spans."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs, self.asked = outputs, []
        self.bend = torch.nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, seen):
        self.asked.append(float(seen[0, -1]))
        return self.bend * seen[:, : self.outputs]


def executed(problem, scheme, **options):
    """A planner that knows the dynamics of ``drift`` and plans straight lines."""
    made = iter([Exactly, Straight, *[Straight] * 9])
    controller = planned_controller(problem, scheme, lambda i, o: next(made)(i, o), **options)
    # the way comes in units of the state's size and of the horizon
    scale = controller.task.layout.scales[0]
    controller.estimator.gain.data.fill_(scale / (0.5 * problem.horizon))
    return controller


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 8, 11, 32])
def test_halving_ends_at_single_steps_that_cover_the_horizon(horizon):
    for k in range(horizon):
        spans = enclosing(k, horizon)
        assert spans[0] == (0, horizon) and spans[-1] == (k, k + 1)
        for (first, last), inner in itertools.pairwise(spans):
            assert inner in ((first, middle(first, last)), (middle(first, last), last))
        assert len(spans) - 1 <= math.ceil(math.log2(max(horizon, 1))) <= levels(horizon)
    assert [levels(span) for span in (1, 2, 3, 4, 5, 8, 9, 32)] == [1, 1, 2, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("horizon", [2, 5, 8, 11])
@pytest.mark.parametrize("scheme", ["chain", "staggered", "refined"])
def test_straight_plans_that_are_executed_exactly_are_optimal_for_an_integrator(scheme, horizon):
    problem = drift(horizon)
    posed = problem.with_unknown(Policy(executed(problem, scheme)))
    data = problem.scenarios.data
    way = data["target"] - data["initial_state"]
    optimal = (way / (0.5 * horizon)).square().sum(1) * horizon
    assert torch.allclose(posed.loss(posed.start()), optimal, rtol=1e-10)
    states = posed.simulate(posed.start()).states
    assert torch.allclose(states[horizon // 2], data["initial_state"] + horizon // 2 / horizon * way)


@pytest.mark.parametrize("horizon", [8, 11, 32])
def test_staggered_halves_every_span_once_and_refined_all_that_remains_at_every_step(horizon):
    problem = drift(horizon, objective=reach("target") + effort())
    asked = {}
    for scheme in ("staggered", "refined"):
        controller = executed(problem, scheme)
        posed = problem.with_unknown(Policy(controller))
        z = posed.start()
        controller.predictors[0].asked.clear()
        posed.loss(z)
        asked[scheme] = [round(share * horizon) for share in controller.predictors[0].asked]
    assert len(asked["staggered"]) == horizon - 1 and asked["staggered"][0] == horizon
    halvings = [levels(horizon - k) if k < horizon - 1 else 0 for k in range(horizon)]
    assert len(asked["refined"]) == sum(halvings)
    assert sorted(set(asked["refined"]), reverse=True)[:3] == [horizon, horizon - 1, horizon - 2]


def test_one_predictor_for_each_power_of_two_is_asked_for_its_own_spans():
    problem = drift(11)
    controller = executed(problem, "refined", shared=False)
    posed = problem.with_unknown(Policy(controller))
    posed.loss(posed.start())
    assert len(controller.predictors) == 4
    for level, predictor in enumerate(controller.predictors, 1):
        spans = {round(share * 11) for share in predictor.asked}
        assert spans and all(levels(span) == level for span in spans), (level, spans)


def bent(scheme, horizon=7, **options):
    """A planner with drawn weights of a system that is not linear, with unequal parts."""

    def step(x, u):
        place, speed = x["place"], x["speed"]
        return {
            "place": place + 0.3 * speed,
            "speed": speed + 0.3 * (u - torch.sin(place.sum(1, keepdim=True))),
        }

    generator = torch.Generator().manual_seed(2)

    def state():
        place, speed = (
            torch.randn(3, 2, generator=generator, dtype=F64),
            torch.randn(3, 1, generator=generator),
        )
        return {"place": place, "speed": speed.double()}

    problem = control_problem(
        step,
        initial_state=state(),
        horizon=horizon,
        objective=reach("target") + 0.1 * effort(),
        control=ControlSequence((1,), **options),
        scenarios={"target": state()},
        name="bent",
    )
    torch.manual_seed(5)
    controller = planned_controller(problem, scheme, lambda i, o: MLP(i, o, width=8, depth=1, gain=1.0))
    return problem.with_unknown(Policy(controller))


@pytest.mark.parametrize("scheme", ["chain", "staggered", "refined"])
def test_the_gradient_through_plan_control_and_physics_passes_a_taylor_test(scheme):
    problem = bent(scheme)
    meter = Meter(problem)
    x = meter.start()
    rates = taylor_rates(lambda y: problem.loss(meter.trees(y)).mean(), x, torch.randn_like(x) * 0.3)
    assert min(rates) > 1.9, rates


def test_the_plan_rides_in_the_carry_so_stored_states_give_the_same_gradient():
    problem = bent("staggered")
    found = []
    for mode in (Full(), Checkpointed(snapshots=2)):
        posed = replace(problem, gradient=mode)
        meter = Meter(posed)
        found.append(meter.values_and_gradients(meter.start()))
    for first, second in zip(*found, strict=True):
        assert torch.allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("scheme", ["staggered", "refined"])
def test_a_planner_acts_in_closed_loop_as_it_was_scored(scheme):
    problem = bent(scheme, low=-0.5, high=0.5)
    z = problem.start()
    played = play(problem, from_value(problem, z))
    assert torch.allclose(played.losses, problem.loss(z), rtol=1e-12)
    assert played.trajectory.controls.abs().max() <= 0.5
    some = torch.tensor([2, 0])
    assert torch.allclose(problem.loss(z, some), problem.loss(z)[some])


def test_the_plan_in_pictures_begins_here_ends_at_the_target_and_is_what_staggered_follows_first():
    problem = bent("staggered")
    (slot,) = problem.unknown.slots
    data = problem.scenarios.data
    whole = slot.network.plan(data["initial_state"], data)
    for k, state in ((0, data["initial_state"]), (7, data["target"])):
        for row, wanted in zip(tree.leaves(whole), tree.leaves(state), strict=True):
            assert row.shape == (8, *wanted.shape) and torch.allclose(row[k], wanted)
    begun = slot.network.begin(data["initial_state"], data)
    _, memory = slot.network(begun, data["initial_state"], 0.0, data)
    layout = slot.network.task.layout
    for goal, (_, last) in zip(memory, enclosing(0, 7)[1:], strict=True):
        assert torch.allclose(goal, layout.pack(tree.map(lambda leaf, k=last: leaf[k], whole)))


def test_complex_states_are_planned_as_pairs_of_numbers():
    phase = torch.rand(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    state = torch.polar(torch.ones_like(phase), phase)
    layout = Layout((2.0,), False)
    packed = layout.pack(state)
    assert packed.shape == (2, 6) and packed.dtype == F64
    assert torch.allclose(layout.unpack(packed, state), state)


def field(horizon=5, *, grid=(8,), control=None):
    """Periodic diffusion of a field, driven everywhere."""

    def step(x, u):
        axes = range(1, 1 + len(grid))
        return x + 0.1 * sum(x.roll(1, a) - 2 * x + x.roll(-1, a) for a in axes) + u.reshape(x.shape)

    start, end = torch.randn(2, 3, *grid, dtype=F64, generator=torch.Generator().manual_seed(4))
    return control_problem(
        step,
        initial_state=start,
        horizon=horizon,
        objective=reach("target") + 0.1 * effort(),
        control=ControlSequence(control or grid),
        scenarios={"target": end},
        name="field",
    )


@pytest.mark.parametrize("grid", [(8,), (6, 5)])
@pytest.mark.parametrize("scheme", ["staggered", "refined"])
def test_convolutions_with_periodic_padding_commute_with_shifts(grid, scheme):
    problem = field(grid=grid)
    body = partial(ConvNet, dimensions=len(grid), width=4, depth=1, padding="circular", gain=1.0)
    torch.manual_seed(0)
    posed = problem.with_unknown(Policy(planned_controller(problem, scheme, body, fields=True)))
    z = posed.start()
    data = {name: value.roll(2, 1) for name, value in problem.scenarios.data.items()}
    shifted = posed.with_scenarios(Scenarios(data))
    assert torch.allclose(posed.loss(z), shifted.loss(z), rtol=1e-10)
    assert torch.allclose(posed.simulate(z).controls.roll(2, 2), shifted.simulate(z).controls, atol=1e-10)


def test_parameters_that_differ_between_scenarios_are_seen():
    base = field()
    scenes = {**base.scenarios.data, "speed": torch.tensor([0.0, 1.0, 2.0], dtype=F64)}
    problem = control_problem(
        lambda x, u, *, parameters: x + parameters["speed"].reshape(-1, 1) * 0.1 * x + u,
        initial_state=scenes.pop("initial_state"),
        horizon=5,
        objective=reach("target") + effort(),
        control=ControlSequence((8,)),
        parameters={"speed": torch.tensor(1.0, dtype=F64)},
        scenarios=scenes,
    )
    for fields, body in ((False, partial(MLP, width=4)), (True, partial(ConvNet, width=4, depth=1))):
        controller = planned_controller(problem, "refined", body, fields=fields)
        data = problem.scenarios.data
        same = {
            **data,
            "initial_state": data["initial_state"][:1].expand(3, -1),
            "target": data["target"][:1].expand(3, -1),
        }
        control, _ = controller((), same["initial_state"], 0.0, same)
        assert not torch.allclose(control[0], control[1])


def test_what_cannot_be_planned_is_refused_in_one_sentence():
    body = partial(MLP, width=4)
    effortless = drift(4, objective=effort())
    with pytest.raises(UsageError, match="no target that is a state.*reach.target. of the whole state"):
        planned_controller(effortless, "refined", body)
    part = drift(4, objective=reach(torch.zeros(1, dtype=F64), of=lambda x: x[:, :1]) + effort())
    with pytest.raises(UsageError, match="no target that is a state"):
        planned_controller(part, "refined", body)
    with pytest.raises(UsageError, match="shows a controller only an observation"):
        planned_controller(replace(drift(4), observation=lambda x: x[:, :1]), "refined", body)
    with pytest.raises(UsageError, match="control on the same grid.*network='mlp'"):
        planned_controller(field(control=(4, 2)), "refined", partial(ConvNet, width=4), fields=True)
    with pytest.raises(UsageError, match="plays a control step by step"):
        planned_controller(drift(4).with_unknown(Policy(MLP(3, 3))), "refined", body)


def test_a_planner_begins_in_a_window_but_is_not_moved_into_one():
    problem = drift(8)
    data = problem.scenarios.data
    midway = (data["initial_state"] + data["target"]) / 2
    later = window(problem, midway, 4)
    posed = later.with_unknown(Policy(executed(later, "staggered")))
    way = data["target"] - midway
    assert torch.allclose(posed.loss(posed.start()), 4 * (way / 2).square().sum(1), rtol=1e-10)
    whole = problem.with_unknown(Policy(executed(problem, "staggered")))
    with pytest.raises(UsageError, match="a controller with a memory, which is not known at step 4"):
        window(whole, midway, 4)
