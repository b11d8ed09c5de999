"""Calibration by simulation: a right posterior passes, wrong ones are found and said in words."""

import json

import pytest
import torch
from gaussian_line import Exact, line
from torch.distributions import Normal

from dpcontrol import Gaussian, UsageError, inference_problem, observe, sbc
from dpcontrol.criticism import Calibration, load_calibration, simulations
from dpcontrol.criticism.calibration import SHORT
from dpcontrol.criticism.simulations import place_of
from dpcontrol.run import Strategy

F64 = torch.float64


def calibrated(strategy, **options):
    return sbc(line(), strategy, **{"simulations": 60, "workers": 0, "progress": False, **options})


@pytest.fixture(scope="module")
def right():
    return calibrated(Exact())


def test_the_exact_posterior_is_calibrated(right):
    assert right.passed and right.complete and not right.rejected
    assert [each.name for each in right.quantities] == ["push", "initial_state", "log likelihood"]
    assert all(each.adjusted > 0.01 for each in right.quantities)
    assert "calibrated" in right.verdict and "NOT" not in right.verdict


def test_a_noise_scale_off_by_two_is_found():
    found = calibrated(Exact(noise=2.0), simulations=100)
    assert not found.passed and "NOT calibrated" in str(found)
    words = {each.name: each.words for each in found.rejected}
    assert words["initial_state"] == "is too wide" and words["log likelihood"] == "lies too low"


def test_a_biased_sampler_is_found():
    words = {each.name: each.words for each in calibrated(Exact(shift=-0.8), simulations=50).rejected}
    assert words["push"] == "lies too low" and words["initial_state"] == "lies too low"


def test_a_posterior_that_ignores_the_data_is_found_by_the_likelihood_alone():
    """The prior is calibrated for every quantity of the unknown alone (Modrák et al.)."""
    found = calibrated(Exact(prior=True), simulations=40)
    assert [each.name for each in found.rejected] == ["log likelihood"]


def test_failed_runs_are_counted_and_shown():
    found = calibrated(Exact(failing=0.3), simulations=30)
    assert len(found.failures) + len(found.succeeded) == 30 and found.failures
    assert not found.passed, "more than one in twenty failed"
    assert f"{len(found.failures)} simulations failed" in found.verdict and "the coin fell" in found.verdict


def test_too_few_draws_are_a_failure_with_a_remedy():
    found = calibrated(Exact(draws=20), simulations=2)
    assert "fewer than the 63 that are to be ranked" in found.verdict and not found.succeeded


def test_the_same_seed_gives_the_same_ranks_in_other_processes(tmp_path):
    here = calibrated(Exact(), simulations=3)
    there = calibrated(Exact(), simulations=3, workers=1, folder=tmp_path / "kept")
    assert [each.ranks for each in here.simulations] == [each.ranks for each in there.simulations]
    assert load_calibration(tmp_path / "kept").simulations[2].ranks == here.simulations[2].ranks


class Interrupting(Exact):
    """Ctrl-C in the middle."""

    def run(self, meter, generator):
        if Interrupting.left == 0:
            raise KeyboardInterrupt
        Interrupting.left -= 1
        return super().run(meter, generator)


def test_an_interrupt_keeps_what_there_is_and_the_rest_is_resumed(tmp_path):
    Interrupting.left = 2
    first = calibrated(Interrupting(), simulations=5, folder=tmp_path)
    assert len(first.simulations) == 2 and not first.complete and "resume" in first.verdict
    before = place_of(tmp_path, 0).read_bytes()
    Interrupting.left = 100
    second = calibrated(Interrupting(), simulations=5, folder=tmp_path, resume=True)
    assert second.complete and place_of(tmp_path, 0).read_bytes() == before
    assert second.simulations == load_calibration(tmp_path).simulations
    whole = calibrated(Interrupting(), simulations=5)
    assert [each.ranks for each in second.simulations] == [each.ranks for each in whole.simulations]
    more = calibrated(Interrupting(), simulations=6, folder=tmp_path, resume=True)
    assert len(more.simulations) == 6


def test_a_folder_of_another_calibration_is_refused(tmp_path):
    calibrated(Exact(), simulations=1, folder=tmp_path)
    with pytest.raises(UsageError, match="holds a calibration already"):
        calibrated(Exact(), simulations=1, folder=tmp_path)
    with pytest.raises(UsageError, match="with seed 0, not 1"):
        calibrated(Exact(), simulations=1, folder=tmp_path, resume=True, seed=1)
    with pytest.raises(UsageError, match="no calibration to resume"):
        calibrated(Exact(), simulations=1, folder=tmp_path / "other", resume=True)
    with pytest.raises(UsageError, match="needs folder"):
        calibrated(Exact(), simulations=1, resume=True)


def test_draws_of_the_prior_that_fail_are_drawn_again():
    def rooted(x, u, *, parameters):
        return x + parameters["push"].sqrt()

    problem = inference_problem(
        rooted,
        data=torch.ones(3, 1, 1, dtype=F64),
        observation=observe(noise=Gaussian(0.5)),
        initial_state=torch.ones(1, 1, dtype=F64),
        horizon=2,
        prior={"push": Normal(*torch.tensor([0.0, 1.0], dtype=F64))},
    )
    generator = torch.Generator().manual_seed(0)
    drawn = [simulations._drawn(problem, generator) for _ in range(20)]
    assert all(z["parameters"]["push"] > 0 for z, _, _ in drawn)
    assert sum(again for _, _, again in drawn) > 5


def test_what_was_not_measured_is_not_measured_in_a_simulation():
    generator = torch.Generator().manual_seed(0)
    _, (data,), _ = simulations._drawn(line(), generator)
    assert torch.isnan(data).flatten().tolist() == [False, False, True, False, True, False]


def test_pictures_and_records(right, tmp_path):
    right.plot(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 10_000
    assert set(right.figures()) == {"rank differences", "rank histograms"}
    assert json.loads(json.dumps(right.record()))["passed"] is True
    assert isinstance(right, Calibration) and "<table>" in right._repr_html_()


def test_wrong_calls_are_refused():
    with pytest.raises(UsageError, match="simulations must be"):
        calibrated(Exact(), simulations=0)
    with pytest.raises(UsageError, match="workers must be"):
        calibrated(Exact(), workers=-1)
    with pytest.raises(UsageError, match="needs a Problem"):
        sbc("line")


def test_named_chains_are_short_unless_options_are_given(monkeypatch):
    asked: list[Strategy] = []

    def stop(jobs, *_):
        asked.extend(job.kwargs["strategy"] for job in jobs)
        return {}

    monkeypatch.setattr("dpcontrol.criticism.calibration._run", stop)
    calibrated("nuts", simulations=1)
    calibrated("nuts", simulations=1, chains=3)
    assert {name: getattr(asked[0], name) for name in SHORT} == SHORT
    assert asked[1].chains == 3 and asked[1].draws > SHORT["draws"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["nuts", "laplace"])
def test_strategies_are_calibrated(strategy):
    """Laplace's approximation is exact where everything is linear and normal."""
    found = sbc(line(), strategy, simulations=100, progress=False)
    print(found)
    assert found.passed
