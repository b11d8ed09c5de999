"""What answers of correction problems are asked: the nouns, and where resolutions start from."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from correction_cases import CELLS, DT, FINE, fine_reference, means, posed, reference, trajectories
from dpcontrol.problems.advection_diffusion_correction import Upwind

from dpcontrol.engine import rollout
from dpcontrol.problem import Examination, Reference, Resolution, evaluate
from dpcontrol.problem.hybrids import training_windows
from dpcontrol.results import UsageError
from dpcontrol.sim import FunctionSimulator


@pytest.mark.parametrize("spin_up", [0, 3])
def test_trajectories_begin_at_their_origin(tmp_path, monkeypatch, spin_up):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))
    found = fine_reference(spin_up=spin_up)
    assert tuple(found.origin.shape) == (6, 4 * CELLS)
    torch.testing.assert_close(means(found.origin, 4), found.states[0], rtol=0, atol=0)
    again = rollout(FINE, found.origin, length=10, parameters=found.parameters).states[::2]
    torch.testing.assert_close(means(again.flatten(0, 1), 4).reshape(found.states.shape), found.states)


def test_an_origin_has_a_state_for_each_trajectory():
    states, speeds = trajectories()
    own = Reference(states, {"velocity_0": speeds}, origin={"u": states[0]})
    assert torch.equal(own.origin["u"], states[0])
    with pytest.raises(UsageError, match="a leading axis of its 10 trajectories; found"):
        Reference(states, {"velocity_0": speeds}, origin=states[0, :7])


def test_a_problem_knows_its_examination():
    assert training_windows(posed()).examination == Examination()
    assert Examination((50, 10, 10)).lengths == (10, 50)
    asked = Examination((4,), unseen={"other waves": reference}, stable=20)
    cut = training_windows(posed(examination=asked))
    assert cut.examination is asked and cut.of("test", 2).examination is asked
    finer = Resolution(Upwind(DT / 2), 2, partial(means, factor=2), partial(means, factor=2))
    with pytest.raises(UsageError, match="which are not known: give Reference"):
        posed(examination=Examination(resolutions={"2 x finer": finer}))
    known = replace(reference(), origin=reference().states[0])
    posed(reference=known, examination=Examination(resolutions={"2 x finer": finer}))


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="at least one length"):
        Examination(())
    with pytest.raises(UsageError, match="every length .* whole number, at least 1; found 0"):
        Examination((0, 10))
    with pytest.raises(UsageError, match="stable must be a whole number, at least 1; found 1.5"):
        Examination(stable=1.5)
    with pytest.raises(UsageError, match="a function without arguments; found Reference under 'more'"):
        Examination(unseen={"more": reference()})
    with pytest.raises(UsageError, match=r"found Upwind under '2 x finer'"):
        Examination(resolutions={"2 x finer": Upwind(DT)})
    with pytest.raises(UsageError, match="examined with a Simulator; found function"):
        Resolution(lambda x: x, 1, means, means)
    with pytest.raises(UsageError, match="every must be a whole number, at least 1; found 0"):
        Resolution(Upwind(DT), 0, means, means)
    with pytest.raises(UsageError, match="start of a resolution is a function of states; found 3"):
        Resolution(FunctionSimulator(lambda x, u: x), 1, 3, means)
    with pytest.raises(UsageError, match=r"examination is an Examination\(...\); found dict"):
        posed(examination={})


def test_all_trajectories_may_be_asked_about():
    problem = posed()
    every, tested = evaluate(problem, part="all"), evaluate(problem)
    assert tuple(every.errors.shape) == (13, 10)
    torch.testing.assert_close(every.errors[:, 8:], tested.errors)
    with pytest.raises(UsageError, match="train, validation, test, or all; found 'tests'"):
        evaluate(problem, part="tests")


def test_other_resolutions_start_from_the_fine_states(tmp_path, monkeypatch):
    monkeypatch.setenv("DPCONTROL_CACHE", str(tmp_path))
    known = fine_reference()
    problem = posed(reference=known, unroll=2)
    itself = evaluate(problem, solver=known.solver, part="all")
    assert float(itself.errors.max()) < 1e-12 and tuple(itself.errors.shape) == (6, 6)
    coarse = evaluate(problem, part="all")
    finer = Resolution(Upwind(DT / 2), 2, partial(means, factor=2), partial(means, factor=2))
    halved = evaluate(problem, solver=finer, part="all", steps=30)
    assert float(halved.error(5)) == pytest.approx(0.5 * coarse.error(5), rel=0.3)  # it is of first order
    assert tuple(halved.stable.shape) == (31, 6) and bool(halved.stable.all())
    with pytest.raises(UsageError, match="an answer or a solver; found both"):
        evaluate(problem, problem.start(), solver=finer)
    with pytest.raises(UsageError, match="which are not known"):
        evaluate(posed(), solver=finer)
