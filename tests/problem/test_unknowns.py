"""What is sought: layouts, bounds, start guesses, and gradients by Taylor test in every slot."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.meter import Meter
from dpcontrol.sim import ODE, LotkaVolterra

F64 = torch.float64


def step(state, control, *, parameters):
    return state + 0.1 * (control - parameters["decay"] * state.sin())


def posed(*slots, n=3, horizon=4, **rest):
    start = torch.linspace(0.2, 1.0, 2 * n, dtype=F64).reshape(n, 2)
    return dp.control_problem(
        step,
        initial_state=start,
        horizon=horizon,
        objective=dp.reach(torch.zeros(2)) + 0.1 * dp.track(torch.ones(horizon + 1, 2)),
        unknown=slots,
        parameters={"decay": 0.7},
        **rest,
    )


SLOTS = {
    "control": dp.ControlSequence(2),
    "shared control": dp.ControlSequence(2, shared=True),
    "initial_state": dp.InitialState(),
    "shared initial_state": dp.InitialState(shared=True),
    "parameters": dp.Parameters("decay"),
    "separate parameters": dp.Parameters("decay", shared=False),
}
SHAPES = {
    "control": (3, 4, 2),
    "shared control": (4, 2),
    "initial_state": (3, 2),
    "shared initial_state": (2,),
    "parameters": (),
    "separate parameters": (3, 1),
}


def with_control(slot):
    """The step needs a control: where something else is sought, it is sought beside one."""
    return (slot,) if slot.name == "control" else (slot, dp.ControlSequence(2, shared=slot.shared))


@pytest.mark.parametrize("name", SLOTS)
def test_layout_and_gradient(name):
    slot = SLOTS[name]
    start = {"decay": torch.full((3, 1), 0.7, dtype=F64)} if name == "separate parameters" else None
    if start:
        slot = dp.Parameters("decay", shared=False, start=start)
    problem = posed(*with_control(slot))
    z = problem.start()
    leaf = z[slot.name]["decay"] if slot.name == "parameters" else z[slot.name]
    assert tuple(leaf.shape) == SHAPES[name]
    assert problem.separate is not slot.shared
    check = dp.check_gradient(problem)
    assert check.passed and all(row.rate > 1.95 for row in check.rows), str(check)


def test_shared_and_repeated_controls_cost_the_same_and_their_gradients_add():
    shared, own = posed(dp.ControlSequence(2, shared=True)), posed(dp.ControlSequence(2))
    u = torch.randn(4, 2, dtype=F64)
    one = u.clone().requires_grad_()
    many = u.expand(3, 4, 2).clone().requires_grad_()
    first, second = shared.loss({"control": one}), own.loss({"control": many})
    torch.testing.assert_close(first, second)
    (g_one,) = torch.autograd.grad(first.sum(), one)
    (g_many,) = torch.autograd.grad(second.sum(), many)
    torch.testing.assert_close(g_one, g_many.sum(0))


def test_bounds_clip_the_start_and_reach_the_meter():
    problem = posed(dp.ControlSequence(2, low=[-1.0, 0.5], high=2.0))
    low, high = Meter(problem).limits()
    assert low.shape == (3, 8) and low[0].tolist() == [-1.0, 0.5] * 4 and bool((high == 2.0).all())
    assert problem.start()["control"][0, 0].tolist() == [0.0, 0.5]
    assert Meter(problem).magnitudes()[0, :2].tolist() == [0.75, 0.375]


def test_unbounded_slots_beside_bounded_ones_are_infinite():
    problem = posed(dp.ControlSequence(2, low=-1.0), dp.InitialState())
    low, high = Meter(problem).limits()
    assert low[0].tolist() == [-1.0] * 8 + [float("-inf")] * 2 and bool((high == float("inf")).all())


def test_scenario_data_replace_parameters_one_by_one():
    system = ODE(LotkaVolterra(), dt=0.1)
    start = torch.tensor([[30.0, 4.0]] * 2, dtype=F64)
    name = next(iter(system.parameters))
    values = torch.tensor([0.4, 0.6], dtype=F64)
    pose = {"horizon": 5, "objective": dp.reach(torch.zeros(2)), "unknown": dp.InitialState()}
    both = dp.control_problem(system, initial_state=start, scenarios={name: values}, **pose)
    for i, value in enumerate(values):
        one = dp.control_problem(system, initial_state=start[:1], parameters={name: value}, **pose)
        torch.testing.assert_close(both.loss(both.start())[i : i + 1], one.loss(one.start()))


def test_the_same_question_asked_for_a_policy():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, state, t, scenario):
            return self.layer(state)

    torch.manual_seed(0)
    problem = posed(dp.ControlSequence(2)).with_unknown(dp.Policy(Net()))
    assert set(problem.start()["policy"]) == {"layer.weight", "layer.bias"}
    solution = dp.solve(problem, "lbfgs")
    assert solution.loss < float(problem.loss(problem.start()).mean())
    path = solution.trajectory()
    weights = solution.value["policy"]
    expected = path.states[2] @ weights["layer.weight"].T + weights["layer.bias"]
    torch.testing.assert_close(path.controls[2], expected)


def sampled(generator, n):
    start = torch.rand(n, 2, generator=generator, dtype=F64)
    return {"initial_state": start, "goal": -start}


def test_fresh_scenarios_are_drawn_with_what_is_shared():
    drawn = sampled(torch.Generator().manual_seed(0), 3)
    scenarios = dp.Scenarios({"goal": drawn["goal"]}, sampler=sampled)
    asked = {"initial_state": drawn["initial_state"], "horizon": 3, "control": dp.ControlSequence(2)}
    step = lambda x, u: x + 0.1 * u  # noqa: E731
    problem = dp.control_problem(
        step, objective=dp.reach("goal") + dp.track(torch.ones(4, 2)), scenarios=scenarios, **asked
    )
    fresh = problem.with_scenarios(problem.scenarios.draw(torch.Generator().manual_seed(1), 5))
    z = fresh.start()
    assert z["control"].shape == (5, 3, 2)
    start, goal = fresh.scenarios.data["initial_state"], fresh.scenarios.data["goal"]
    expected = (start - goal).square().sum(1) + 4 * (start - 1).square().sum(1)
    torch.testing.assert_close(fresh.loss(z), expected)
    with pytest.raises(dp.UsageError, match="which the sampler cannot draw"):
        dp.control_problem(step, objective=dp.reach(torch.zeros(3, 2)), scenarios=scenarios, **asked)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: dp.ControlSequence((0,)), "positive whole numbers"),
        (lambda: dp.ControlSequence(2, low=1.0, high=-1.0), "lies above high"),
        (lambda: dp.ControlSequence(2, low=[0.0, 0.0, 0.0]), "does not broadcast"),
        (lambda: dp.ControlSequence(2, low=float("nan")), "not a number"),
        (lambda: dp.Parameters(), "needs names of parameters"),
        (lambda: dp.Parameters("decay", lower=0.0), "found \\['lower'\\]"),
        (lambda: posed(dp.Parameters("viscosity")), "no parameter is called viscosity"),
        (lambda: posed(dp.ControlSequence(2), dp.ControlSequence(2)), "different unknown slots"),
        (lambda: posed("control"), "made of slots"),
        (lambda: posed(), "nothing is sought"),
        (lambda: posed(dp.ControlSequence(2, start=torch.zeros(7))), "does not broadcast"),
    ],
)
def test_what_cannot_be_sought_is_refused(make, sentence):
    with pytest.raises(dp.UsageError, match=sentence):
        make()
