"""The meter: exact counts, exact budgets, the best so far, and answers that can be given again."""

import pytest
import torch

import dpcontrol as dp
from dpcontrol.meter import BudgetSpent, Meter, TargetReached
from dpcontrol.results import Counts
from dpcontrol.store import Journal

F64 = torch.float64


def step(state, control):
    return state + 0.1 * (control - state.sin())


def posed(n=3, horizon=5, shared=False, objective=None):
    generator = torch.Generator().manual_seed(0)
    return dp.control_problem(
        step,
        initial_state=torch.randn(n, 2, generator=generator, dtype=F64),
        horizon=horizon,
        objective=objective or dp.reach(torch.ones(2)) + 0.1 * dp.effort(),
        control=dp.ControlSequence(2, shared=shared),
    )


def points(meter, rows=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows or meter.instances, meter.dimension, generator=generator, dtype=F64)


@pytest.mark.parametrize("shared, instances, dimension", [(False, 3, 10), (True, 1, 10)])
def test_scenarios_are_instances_unless_something_is_shared(shared, instances, dimension):
    meter = Meter(posed(shared=shared))
    assert (meter.instances, meter.dimension) == (instances, dimension)


@pytest.mark.parametrize("shared", [False, True])
def test_counts_are_scenario_steps(shared):
    meter = Meter(posed(shared=shared))
    x = points(meter)
    meter.values(x)
    assert meter.counts == Counts(15, 0)
    meter.values_and_gradients(x)
    assert meter.counts == Counts(15 + 30, 3)
    meter.hessian_products(x, x)
    assert meter.counts == Counts(45 + 60, 9)


def test_rows_name_their_instances():
    meter = Meter(posed())
    x = points(meter, 4)
    which = torch.tensor([2, 0, 0, 2])
    values = meter.values(x, which)
    for row, i in enumerate(which):
        alone = meter.problem.loss({"control": x[row].reshape(1, 5, 2)}, i[None])
        torch.testing.assert_close(values[row : row + 1], alone)
    assert meter.counts == Counts(20, 0)
    assert meter.best.isinf().tolist() == [False, True, False]
    better = 1 if values[1] < values[2] else 2
    assert torch.equal(meter.best_x[0], x[better])


def test_a_joint_problem_is_the_mean_over_scenarios():
    meter = Meter(posed(shared=True))
    x = points(meter, 4)
    values, gradients = meter.values_and_gradients(x, torch.zeros(4, dtype=torch.long))
    for row in range(4):
        u = x[row].reshape(5, 2).requires_grad_()
        loss = meter.problem.loss({"control": u}).mean()
        torch.testing.assert_close(values[row], loss.detach())
        torch.testing.assert_close(gradients[row], torch.autograd.grad(loss, u)[0].reshape(-1))


@pytest.mark.parametrize("looks", [False, True])
def test_candidates_of_a_joint_problem_are_one_batch_where_the_step_allows_it(looks):
    calls = []

    def counted(state, control):
        calls.append(1)
        if looks and float(state.detach().sum()) > 1e9:
            return state
        return step(state, control)

    problem = dp.control_problem(
        counted,
        initial_state=torch.ones(3, 2, dtype=F64),
        horizon=5,
        objective=dp.reach(torch.zeros(2)) + 0.1 * dp.effort(),
        control=dp.ControlSequence(2, shared=True),
    )
    meter = Meter(problem)
    x = points(meter, 7)
    which = torch.zeros(7, dtype=torch.long)
    expected = torch.stack([problem.loss({"control": row.reshape(5, 2)}).mean() for row in x])
    torch.testing.assert_close(meter.values(x, which), expected)
    calls.clear()
    torch.testing.assert_close(meter.values(x, which), expected)
    assert len(calls) == (35 if looks else 5)


def test_hessian_products_are_differences_of_gradients():
    meter = Meter(posed())
    x, v, h = points(meter), points(meter, seed=2), 1e-6
    ahead, behind = (meter.values_and_gradients(x + side * h * v)[1] for side in (1, -1))
    product = meter.hessian_products(x, v)
    torch.testing.assert_close(product, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("budget, allowed", [({"simulated_steps": 45}, 3), ({"simulated_steps": 44}, 2)])
def test_a_budget_is_never_exceeded_and_spent_to_the_last_evaluation(budget, allowed):
    meter = Meter(posed(), dp.Budget(**budget))
    for _ in range(allowed):
        meter.values(meter.start())
    with pytest.raises(BudgetSpent):
        meter.values(meter.start())
    assert meter.counts.simulated_steps == 15 * allowed


@pytest.mark.parametrize("budget", [dp.Budget(simulated_steps=150), dp.Budget(seconds=0.3)])
def test_a_last_question_is_held_back_and_asked_when_the_rest_is_spent(budget):
    meter, said = Meter(posed(), budget), []

    def say():
        meter.values(points(meter))
        said.append(meter.counts)

    with pytest.raises(BudgetSpent), meter.last_word(15, say):
        while not said:
            meter.values(meter.start())
    assert said == [meter.counts]
    if budget.simulated_steps:
        assert meter.counts == Counts(150, 0)


def test_no_last_question_where_somebody_interrupts():
    meter, said = Meter(posed(), dp.Budget(simulated_steps=150)), []
    with pytest.raises(KeyboardInterrupt), meter.last_word(15, lambda: said.append(1)):
        raise KeyboardInterrupt
    with pytest.raises(BudgetSpent):  # and nothing is held back any more
        for _ in range(11):
            meter.values(meter.start())
    assert not said and meter.counts == Counts(150, 0)


def test_a_target_loss_ends_the_run():
    meter = Meter(posed(), dp.Budget(target_loss=1e9))
    meter.values(meter.start())
    with pytest.raises(TargetReached):
        meter.values(meter.start())


def test_what_is_not_finite_is_the_worst_loss_and_is_counted():
    objective = dp.cost(terminal=lambda x: x[:, 0].sqrt())
    meter = Meter(posed(objective=objective))
    x = torch.zeros(3, 10, dtype=F64)
    x[1], x[0], x[2] = -1e3, 1e3, 1e3
    values, _ = meter.values_and_gradients(x)
    assert values.isinf().tolist() == [False, True, False]
    assert meter.counts.failures == 1
    assert bool(meter.best[1].isinf()) and torch.equal(meter.best_x[1], meter.start()[1])


def test_history_has_one_row_per_evaluation_and_a_falling_best():
    meter = Meter(posed())
    for seed in range(5):
        meter.values(points(meter, seed=seed))
    history = meter.ledger.history
    assert history.simulated_steps == [15, 30, 45, 60, 75]
    assert history.loss == sorted(history.loss, reverse=True)
    assert history.loss[-1] == pytest.approx(float(meter.best.mean()))


def test_journalled_answers_are_given_again_without_computing(tmp_path):
    def ask(meter):
        found = [
            *meter.values_and_gradients(points(meter)),
            meter.values(points(meter, 4), torch.tensor([0, 1, 1, 2])),
        ]
        return [*found, meter.hessian_products(points(meter), points(meter, seed=5))]

    with Journal(tmp_path / "journal.bin") as journal:
        first = Meter(posed(), log=journal)
        expected = ask(first)
    with Journal(tmp_path / "journal.bin") as journal:
        answers = list(journal.replay())
        again = Meter(posed(), log=journal, answers=answers)
        again._losses = None  # nothing may be computed
        for one, other in zip(expected, ask(again), strict=True):
            assert torch.equal(one, other)
        assert again.counts == first.counts and torch.equal(again.best_x, first.best_x)
        assert journal.count == 3


def test_a_journal_of_another_run_is_refused(tmp_path):
    with Journal(tmp_path / "journal.bin") as journal:
        Meter(posed(), log=journal).values(torch.zeros(3, 10, dtype=F64))
        other = Meter(posed(), log=journal, answers=list(journal.replay()))
        with pytest.raises(dp.UsageError, match="does not belong to this run"):
            other.values(torch.ones(3, 10, dtype=F64))


def test_a_nested_meter_starts_elsewhere_and_shares_the_rest():
    meter = Meter(posed())
    nested = meter.starting_at(torch.ones(3, 10, dtype=F64))
    nested.values(nested.start())
    assert meter.counts == Counts(15, 0) == nested.counts
    assert torch.equal(meter.best_x, torch.ones(3, 10, dtype=F64))
    assert torch.equal(meter.start(), torch.zeros(3, 10, dtype=F64))


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"simulated_steps": -1}, {"gradients": True}, {"target_loss": "low"}]
)
def test_a_wrong_budget_is_refused(wrong):
    with pytest.raises(dp.UsageError, match="must be a"):
        dp.Budget(**wrong)
