"""Networks of one's own as controllers: bounds hold, what they cannot do is said before they are trained."""

import pytest
import torch
from strategy_cases import F64

import dpcontrol as dp
from dpcontrol.problem import Policy, play
from dpcontrol.problem.acting import from_law, from_solution
from dpcontrol.problem.policy_slot import MemoryNetwork
from dpcontrol.results import UsageError
from dpcontrol.strategies.learning.policy import LearnedPolicy

LIMIT = 0.5


def carts(**options):
    """Three carts in a plane, pushed to the origin."""

    def step(state, control):
        v = state["v"] + 0.1 * control
        return {"p": state["p"] + 0.1 * v, "v": v}

    starts = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    return dp.control_problem(
        step,
        initial_state={"p": starts, "v": torch.zeros(3, 2, dtype=F64)},
        horizon=12,
        objective=dp.reach({"p": torch.zeros(2, dtype=F64), "v": torch.zeros(2, dtype=F64)}),
        control=dp.ControlSequence(2, low=-LIMIT, high=LIMIT),
        baselines={"eager": eager},
        name="carts",
        **options,
    )


def eager(state, t, scenario):
    return -9.0 * state["p"] - state["v"]


class Gains(torch.nn.Module):
    """Two gains; it asks for far more than the bounds."""

    def __init__(self, gain=9.0):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.tensor([gain, 1.0], dtype=F64))

    def forward(self, state, t, scenario):
        return -self.gains[0] * state["p"] - self.gains[1] * state["v"]


class Remembering(MemoryNetwork):
    """The same with a memory."""

    def __init__(self):
        super().__init__()
        self.inner = Gains()

    def begin(self, state, scenario):
        return torch.zeros(len(state["p"]), 1, dtype=F64)

    def forward(self, memory, state, t, scenario):
        return self.inner(state, t, scenario), memory + 1


@pytest.mark.parametrize("network", [Gains(), Remembering()], ids=["module", "with memory"])
@pytest.mark.parametrize("strategy", ["policy", "evolved_policy"])
def test_the_bounds_of_a_control_hold_for_any_network(network, strategy):
    options = {"population": 4, "iterations": 1} if strategy == "evolved_policy" else {"iterations": 3}
    solution = dp.solve(carts(), strategy, network=network, **options)
    controls = solution.trajectory().controls
    assert float(controls.abs().max()) == LIMIT
    played = play(carts(), from_solution(solution))
    assert played.loss == pytest.approx(solution.loss) and torch.allclose(
        played.trajectory.controls, controls
    )


def test_a_policy_plays_the_control_that_it_replaces_and_so_do_the_laws_beside_it():
    problem = carts()
    asked = problem.with_unknown(Policy(Gains()))
    path = asked.simulate(asked.start())
    assert float(path.controls.abs().max()) == LIMIT
    for found in (asked.run_law(eager), play(asked, from_law(eager)).trajectory):
        assert torch.equal(found.controls, problem.run_law(eager).controls)
    # a policy that replaces a policy plays the same control
    again = asked.with_unknown(Policy(Gains(3.0)))
    assert float(again.simulate(again.start()).controls.abs().max()) == LIMIT
    assert again.unknown.slots[0].played == problem.unknown.slots[0]


class Cut(Gains):
    def forward(self, state, t, scenario):
        return super().forward(state, t, scenario).detach()


class Wide(Gains):
    def forward(self, state, t, scenario):
        return torch.cat([state["p"], state["v"]], 1) * self.gains[0]


def made(*layers):
    return lambda inputs, outputs: torch.nn.Sequential(
        torch.nn.Linear(inputs, outputs), *(layer(outputs) for layer in layers)
    )


@pytest.mark.parametrize(
    "network, words",
    [
        (torch.nn.Sequential(torch.nn.Linear(4, 2)), r"module\(state, t, scenario\); for one from an observation"),
        (torch.nn.Identity(), "has no weights to train"),
        (Cut(), "does not depend on its weights"),
        (Wide(), r"a control of shape \(3, 2\); found"),
        (lambda inputs: torch.nn.Linear(inputs, 2), r"called with \(inputs, outputs\) = \(9, 2\), raised TypeError"),
        (lambda inputs, outputs: torch.nn.Linear(3, outputs), "raised RuntimeError: mat1 and mat2"),
        (made(lambda _: torch.nn.Dropout(0.5)), r"dropout\?"),
        (made(torch.nn.BatchNorm1d), "running_mean.*LayerNorm"),
    ],
    ids=["called", "weights", "cut", "shape", "maker", "inputs", "dropout", "normalised"],
)  # fmt: skip
def test_what_a_network_cannot_do_is_said_before_it_is_trained(network, words):
    with pytest.raises(UsageError, match=words):
        dp.solve(carts(), "policy", network=network, iterations=1)


def test_dropout_and_normalisation_may_be_there_if_they_are_off():
    def quiet(inputs, outputs):
        body = made(torch.nn.BatchNorm1d, lambda _: torch.nn.Dropout(0.5))(inputs, outputs)
        return body.eval()

    solution = dp.solve(carts(), "policy", network=quiet, iterations=2)
    assert torch.equal(solution.losses, solution.problem.judge(solution.value))


def test_asking_a_module_does_not_change_it():
    module = Gains()
    module.register_buffer("asked", torch.zeros(()))

    def count(this, arguments):
        this.asked.add_(1)

    module.register_forward_pre_hook(count)
    with pytest.raises(UsageError, match="changes its own asked"):
        dp.solve(carts(), "policy", network=module, iterations=1)
    assert float(module.asked) == 0


def test_a_stored_policy_goes_on_working(tmp_path):
    problem = carts()
    solution = dp.solve(problem, "policy", iterations=2, width=8, folder=tmp_path)
    again = dp.load(tmp_path, problem)
    assert torch.equal(again.problem.judge(again.value), solution.losses)
    assert play(problem, from_solution(again)).loss == pytest.approx(solution.loss)
    with pytest.raises(
        UsageError, match=r"holds policy, but carts seeks control: dpcontrol\.load\(folder, problem\)"
    ):
        dp.Solution.load(tmp_path, problem)
    with pytest.raises(UsageError, match="have policy, but the problem seeks control"):
        problem.loss(solution.value)


def test_a_stored_network_of_ones_own_needs_its_strategy_again(tmp_path):
    problem = carts()
    solution = dp.solve(problem, "policy", network=Gains(), iterations=2, folder=tmp_path)
    with pytest.raises(UsageError, match="give load"):
        dp.load(tmp_path, problem)
    again = dp.load(tmp_path, problem, LearnedPolicy(network=Gains(1.0)))
    assert torch.equal(again.problem.judge(again.value), solution.losses)
    with pytest.raises(UsageError, match="holds no run"):
        dp.load(tmp_path / "elsewhere", problem)
