"""The environment view: the sum of an episode's rewards is minus its loss."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.problem import advance, reset

F64 = torch.float64


def step(state, control, *, noise):
    return state + 0.1 * control + 0.05 * noise


OBJECTIVES = {
    "sum": 0.5 * dp.reach(torch.ones(2)) + 1e-2 * dp.effort(),
    "closing": dp.closing(torch.ones(2), gain=0.1) + 0.5 * dp.effort(),
    "peak": dp.fold(lambda x: x.amax(1), lambda m, x, u, t: torch.maximum(m, x.amax(1)), lambda m, x: m),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("chosen", [None, [2, 0]])
def test_rewards_sum_to_minus_the_loss(name, chosen):
    generator = torch.Generator().manual_seed(0)
    problem = dp.control_problem(
        step,
        initial_state=torch.randn(3, 2, generator=generator, dtype=F64),
        horizon=5,
        objective=OBJECTIVES[name],
        control=dp.ControlSequence(2),
        scenarios={"noise": torch.randn(3, 5, 2, generator=generator, dtype=F64)},
    )
    rows = None if chosen is None else torch.tensor(chosen)
    n = 3 if chosen is None else len(chosen)
    actions = torch.randn(n, problem.free_steps, 2, generator=generator, dtype=F64)
    episode, total = reset(problem, rows), torch.zeros(n, dtype=F64)
    for k in range(problem.free_steps):
        assert not episode.done
        episode, reward = advance(episode, actions[:, k])
        total = total + reward
    assert episode.done
    torch.testing.assert_close(-total, problem.loss({"control": actions}, rows))
    with pytest.raises(dp.UsageError, match="episode is over"):
        advance(episode, actions[:, 0])


def test_a_problem_without_actions_is_no_environment():
    problem = dp.control_problem(
        lambda x, u: x * 0.9,
        initial_state=torch.ones(1, 1),
        horizon=2,
        objective=dp.reach(torch.zeros(1)),
        unknown=dp.InitialState(),
    )
    with pytest.raises(dp.UsageError, match="does not act step by step"):
        reset(problem)
