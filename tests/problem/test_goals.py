"""Goals: what states should be, where the objective says it in the state's own terms."""

import pytest
import torch

from dpcontrol.problem import ControlSequence, closing, control_problem, cost, effort, reach, track
from dpcontrol.problem.goals import goals

F64 = torch.float64
START = {"u": torch.zeros(2, 3, dtype=F64), "v": torch.zeros(2, 3, dtype=F64)}


def posed(objective, state=START):
    def step(state, control):
        return {**state, "u": state["u"] + control} if isinstance(state, dict) else state + control

    return control_problem(
        step, initial_state=state, horizon=4, objective=objective + effort(), control=ControlSequence(3)
    )


def found(objective, state=START):
    return {goal.path: goal for goal in goals(posed(objective, state), state)}


def test_a_target_belongs_to_the_leaf_that_it_is_compared_with():
    target = torch.arange(3, dtype=F64)
    goal = found(3.0 * reach(target, of=lambda state: state["u"]))["['u']"]
    assert goal.steps == (4,) and torch.equal(goal.values, target.expand(1, 2, 3))
    whole = found(reach({"u": target, "v": -target}))
    assert set(whole) == {"['u']", "['v']"} and torch.equal(whole["['v']"].values[0, 1], -target)


def test_the_target_of_a_closing_condition_and_rows_of_a_reference():
    target = torch.ones(2, 3, dtype=F64)
    state = torch.zeros(2, 3, dtype=F64)
    assert torch.equal(found(closing(target, gain=1.0), state)[""].values[0], target)
    reference = torch.randn(5, 2, 3, dtype=F64)
    assert torch.equal(found(track(reference), state)[""].values, reference)
    goal = found(track(reference[:2], steps=[1, 3]), state)[""]
    assert goal.steps == (1, 3) and torch.equal(goal.values, reference[:2])


@pytest.mark.parametrize(
    "objective",
    [cost(terminal=lambda x: x["u"].sum(1)), reach(torch.ones(3, dtype=F64), of=lambda x: 2 * x["u"])],
)
def test_what_is_computed_from_the_state_has_no_goal_beside_it(objective):
    assert found(objective) == {}
