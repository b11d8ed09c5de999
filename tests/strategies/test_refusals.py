"""Baselines, names, and calls that cannot work: each gets one sentence."""

import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch
from strategy_cases import F64, BoxQuadratic, double_integrator, static, wells

from dpcontrol.engine.gradients import GradientMode
from dpcontrol.problem import ControlSequence, InitialState, closing, control_problem, cost, effort
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch, run
from dpcontrol.sim import DiscreteLinear
from dpcontrol.strategies import names
from dpcontrol.strategies.baselines import Baseline
from dpcontrol.strategies.evolving.cross_entropy import CEM
from dpcontrol.strategies.evolving.evolution import CMAES
from dpcontrol.strategies.minimising.first_order import Adjoint
from dpcontrol.strategies.minimising.multistart import MultiStart
from dpcontrol.strategies.minimising.newton import NewtonKrylov
from dpcontrol.strategies.minimising.quasi_newton import LBFGS
from dpcontrol.strategies.names import name_of, named, resolve


@dataclasses.dataclass(frozen=True)
class Biased(GradientMode):
    """Says that it is not exact."""

    exact = False


def regulated(**fields):
    """A double integrator with two laws and bounds that one of them runs into."""
    keywords = {
        "objective": cost(
            stage=lambda x, u, t: x.square().sum(1) + 0.1 * u.square().sum(1),
            terminal=lambda x: x.square().sum(1),
        ),
        "control": ControlSequence((1,), low=-1.5, high=1.5),
        "baselines": {
            "spring and damper": lambda x, t, scenario: -2.0 * x[:, :1] - 2.0 * x[:, 1:],
            "nothing": lambda x, t, scenario: torch.zeros_like(x[:, :1]),
        },
    }
    return control_problem(
        DiscreteLinear(A=[[1.0, 0.1], [0.0, 1.0]], B=[[0.005], [0.1]]),
        initial_state=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.5]], dtype=F64),
        horizon=50,
        name="regulated",
        **{**keywords, **fields},
    )


def by_hand(gains):
    """Losses of the clipped law, with a loop of its own."""
    losses = []
    for x, v in [(1.0, 0.0), (0.0, 1.0), (-2.0, 0.5)]:
        total = 0.0
        for _ in range(50):
            u = max(-1.5, min(1.5, -gains[0] * x - gains[1] * v))
            total += x * x + v * v + 0.1 * u * u
            x, v = x + 0.1 * v + 0.005 * u, v + 0.1 * u
        losses.append(total + x * x + v * v)
    return torch.tensor(losses, dtype=F64)


def test_a_baseline_is_the_loss_of_its_law():
    problem = regulated()
    best = run(problem, Baseline())
    torch.testing.assert_close(best.losses, by_hand((2.0, 2.0)), rtol=1e-12, atol=0)
    torch.testing.assert_close(best.history["loss"][-1], best.loss)
    assert best.status.kind == "scored" and "spring and damper" in best.status.sentence
    assert best.counts.simulated_steps == 2 * 3 * 50
    idle = run(problem, Baseline("nothing"))
    torch.testing.assert_close(idle.losses, by_hand((0.0, 0.0)), rtol=1e-12, atol=0)
    assert idle.counts.simulated_steps == 3 * 50


def test_a_baseline_leaves_the_closing_control_to_the_objective():
    shape = ControlSequence((2,))
    target = torch.zeros(3, 2, dtype=F64)
    system = DiscreteLinear(A=[[1.0, 0.1], [0.0, 1.0]], B=[[1.0, 0.0], [0.0, 1.0]])
    laws = {"shrink": lambda x, t, scenario: -0.2 * x}
    problem = control_problem(
        system,
        initial_state=torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.5]], dtype=F64),
        horizon=10,
        objective=closing(target, gain=1.0) + effort(),
        control=shape,
        baselines=laws,
    )
    solution = run(problem, Baseline())
    assert solution.value["control"].shape == (3, 9, 2)
    trajectory = problem.run_law(laws["shrink"])
    torch.testing.assert_close(solution.losses, trajectory.controls.square().sum((0, 2)))
    torch.testing.assert_close(solution.trajectory().states[-1], target)


def test_baselines_of_something_else_than_a_control_are_refused():
    with pytest.raises(UsageError, match="needs simple laws"):
        run(double_integrator(), Baseline())
    with pytest.raises(UsageError, match=r"no law called 'spring and dampr'; did you mean spring"):
        run(regulated(), Baseline("spring and dampr"))
    with pytest.raises(UsageError, match="one open-loop control per scenario"):
        run(regulated(control=ControlSequence((1,), shared=True)), Baseline())


def test_bounds_and_biased_gradients_are_refused_by_those_who_cannot_take_them():
    bounded = BoxQuadratic().problem()
    with pytest.raises(UsageError, match=r"NewtonKrylov cannot honour the bounds of static"):
        run(bounded, NewtonKrylov())
    with pytest.raises(UsageError, match="MultiStart cannot honour the bounds"):
        run(bounded, MultiStart(NewtonKrylov()))
    biased = dataclasses.replace(double_integrator(), gradient=Biased())
    for strategy in (LBFGS(), NewtonKrylov()):
        assert "needs an exact gradient" in mismatch(biased, strategy)
    for strategy in (Adjoint(), CMAES(), CEM()):
        assert mismatch(biased, strategy) is None
        assert mismatch(bounded, strategy) is None


def test_shared_unknowns_are_one_joint_search():
    problem = control_problem(
        lambda x, u: x + u,
        initial_state=torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=F64),
        horizon=2,
        objective=cost(terminal=lambda x: x.square().sum(1)),
        control=ControlSequence((2,), shared=True),
    )
    wanted = 2.5  # both are moved by minus their mean, (0.5, 1.5), so each is left with 0.25 + 2.25
    for strategy in (Adjoint(optimizer="sgd"), LBFGS(), NewtonKrylov(), CMAES(restarts=0)):
        assert run(problem, strategy).loss == pytest.approx(wanted, abs=1e-7)


def test_names_find_strategies_and_options_their_fields():
    assert set(named()) >= {"adjoint", "lbfgs", "newton_krylov", "cmaes", "cem", "baseline"}
    assert resolve("lbfgs", {"iterations": 7}) == LBFGS(iterations=7)
    assert resolve(LBFGS(memory=5), {"iterations": 7}) == LBFGS(memory=5, iterations=7)
    assert resolve(LBFGS(memory=5)) == LBFGS(memory=5)
    assert name_of(LBFGS()) == "lbfgs" and name_of(MultiStart()) == "MultiStart"
    with pytest.raises(UsageError, match="there is no strategy called 'lbgfs'; did you mean lbfgs"):
        resolve("lbgfs")
    with pytest.raises(UsageError, match="known are adjoint, baseline, cem"):
        resolve("simplex")
    with pytest.raises(UsageError, match="there is no strategy called 3"):
        resolve(3)
    with pytest.raises(
        UsageError, match="strategy adjoint has no option 'learning_rte'; did you mean learning_rate"
    ):
        resolve("adjoint", {"learning_rte": 0.1})
    with pytest.raises(UsageError, match="LBFGS has no option 'step'"):
        resolve(LBFGS(), {"step": 1})


def test_installed_packages_add_names(monkeypatch):
    added = EntryPoint("my_search", "dpcontrol.strategies.minimising.multistart:MultiStart", names.GROUP)
    broken = EntryPoint("broken", "dpcontrol.tree:ravel", names.GROUP)
    monkeypatch.setattr(names, "entry_points", lambda group: [added, broken])
    assert resolve("my_search", {"starts": 2}) == MultiStart(starts=2)
    with pytest.raises(UsageError, match="broken = dpcontrol.tree:ravel must be a Strategy class"):
        resolve("broken")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adjoint(optimizer="adagrad"), "must be one of adam, sgd; found 'adagrad'"),
        (lambda: Adjoint(learning_rate=0), "positive number; found 0"),
        (lambda: Adjoint(iterations=2.5), "whole number, at least 1; found 2.5"),
        (lambda: Adjoint(momentum=0.9), "belongs to optimizer='sgd'"),
        (lambda: Adjoint(optimizer="sgd", momentum=1.0), "below 1; found 1.0"),
        (lambda: Adjoint(schedule="step"), "must be 'cosine', a function"),
        (lambda: LBFGS(memory=0), "at least 1; found 0"),
        (lambda: NewtonKrylov(inner="cg"), "must be one of trust-ncg, trust-krylov"),
        (lambda: CMAES(population=3), "at least 4; found 3"),
        (lambda: CMAES(basis="fourier"), 'must be None, "auto" or a number of modes'),
        (lambda: CMAES(restarts=-1), "at least 0; found -1"),
        (lambda: CEM(elites=1.5), "below 1; found 1.5"),
        (lambda: CEM(population=4, elites=0.2), "it needs 2 or more"),
        (lambda: MultiStart("lbfgs"), "must be a strategy such as LBFGS"),
        (lambda: MultiStart(starts=0), "at least 1; found 0"),
        (lambda: Baseline(law=3), "must be the name of a law"),
    ],
)
def test_impossible_fields_are_refused(make, words):
    with pytest.raises(UsageError) as caught:
        make()
    assert words in str(caught.value)


def test_a_schedule_that_is_none_is_refused():
    with pytest.raises(UsageError, match="made a int; it must return a scheduler"):
        run(static(wells, 2), Adjoint(schedule=lambda optimizer: 3))


def test_the_initial_state_can_be_sought_in_smooth_modes():
    problem = control_problem(
        lambda x, u: x,
        initial_state=torch.zeros(2, 100, dtype=F64),
        horizon=1,
        objective=cost(terminal=lambda x: (x - 1).square().mean(1)),
        unknown=InitialState(),
    )
    assert run(problem, CMAES(basis=3, restarts=0)).loss < 1e-9
