"""nuts, mala, metropolis, pcn on problems: against the closed form, over processes, interrupted, killed, refused.

Statistical comparisons have a false-alarm rate of 1e-4 each; seeds are fixed.
"""

import dataclasses
import math

import arviz
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from dpcontrol import folder as folders
from dpcontrol.folder import RunFolder
from dpcontrol.meter import Budget, Meter
from dpcontrol.problem import Gaussian, inference_problem, observe
from dpcontrol.results import UsageError
from dpcontrol.run import mismatch, run
from dpcontrol.strategies.posteriors.samplers import MALA, NUTS, PCN, Metropolis

F64 = torch.float64
ALARM = 1e-4
A = torch.tensor([[1.0, 0.3], [-0.2, 0.9]], dtype=F64)
SHORT = {
    "nuts": NUTS(chains=2, draws=12, warmup=25),
    "mala": MALA(chains=2, draws=12, warmup=25, thin=2),
    "metropolis": Metropolis(chains=2, draws=12, warmup=25, thin=2),
    "pcn": PCN(chains=2, draws=12, warmup=25, thin=2),
}


def linear(horizon=2, step=None):
    """``x+ = A x`` from an unknown state with prior N(0, 4), seen in noise of scale 1; and its exact posterior."""
    data = torch.tensor([[1.0, -0.5], [0.3, 0.8], [2.0, 0.1]], dtype=F64)[: horizon + 1, None]
    problem = inference_problem(
        step or (lambda state, control: state @ A.T),
        data=data,
        observation=observe(noise=Gaussian(1.0)),
        initial_state=torch.zeros(1, 2, dtype=F64),
        horizon=horizon,
        prior={"initial_state": torch.distributions.Normal(torch.zeros(2, dtype=F64), 2.0)},
        name="linear",
    )
    precision, pull, power = torch.eye(2, dtype=F64) / 4, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)
    for row in data:
        precision, pull = precision + power.T @ power, pull + power.T @ row[0]
        power = A @ power
    covariance = torch.linalg.inv(precision)
    # free numbers are white: the state is twice as large
    return problem, (covariance @ pull / 2).numpy(), (covariance / 4).numpy()


def drawn(problem, strategy, seed=0, budget=None):
    """The outcome of a strategy, asked directly."""
    meter = Meter(strategy.pose(problem), budget)
    return strategy.run(meter, torch.Generator().manual_seed(seed)), meter


@pytest.mark.parametrize(
    "strategy",
    [
        NUTS(chains=8, draws=60, warmup=40),
        NUTS(chains=8, draws=50, warmup=50, start="prior", metric="diagonal"),
        MALA(chains=16, draws=60, warmup=40, thin=2),
        Metropolis(chains=32, draws=30, warmup=20, thin=8),
        Metropolis(chains=32, draws=30, warmup=20, thin=8, start="map"),
        PCN(chains=32, draws=30, warmup=20, thin=8),
    ],
    ids=["nuts", "nuts from the prior", "mala", "metropolis", "metropolis from the mode", "pcn"],
)
def test_the_posterior_of_a_linear_problem(strategy):
    problem, mean, covariance = linear()
    outcome, meter = drawn(problem, strategy, seed=1)
    x = outcome.draws.free.numpy()
    assert outcome.status.kind == "converged"
    bound = stats.norm.isf(ALARM / 2 / 5)
    pairs = [(0, 0), (0, 1), (1, 1)]
    way = x - mean
    for i in (0, 1):
        error = math.sqrt(covariance[i, i] / arviz.ess(x[:, :, i], method="mean"))
        assert abs(way[:, :, i].mean()) < bound * error
    for i, j in pairs:
        product = way[:, :, i] * way[:, :, j]
        error = product.std() / math.sqrt(arviz.ess(product, method="mean"))
        assert abs(product.mean() - covariance[i, j]) < bound * error
    # log-densities are those of the problem, with the prior also where only likelihoods are asked
    points = torch.from_numpy(x[0, -3:])
    torch.testing.assert_close(outcome.draws.log_density[0, -3:], meter.log_densities(points))
    gradient_free = isinstance(strategy, (PCN, Metropolis)) and strategy.start == "prior"
    assert (meter.counts.gradients == 0) == gradient_free


def test_chains_start_dispersed_with_the_metric_of_the_hessian():
    problem, mean, covariance = linear()
    strategy = NUTS(chains=400, draws=1, warmup=0, spread=2.0)
    meter = Meter(strategy.pose(problem))
    course = strategy._begun(meter, torch.Generator().manual_seed(0))
    metric = course.walk.metric
    root = metric.push(np.eye(2)).T
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-10)
    x = course.walk.chains.points.x
    np.testing.assert_allclose(np.cov(x.T), 4 * covariance, atol=0.25 * 4 * covariance.max())
    np.testing.assert_allclose(x.mean(0), mean, atol=0.3)


# -- storing ---------------------------------------------------------------------------------------------------------


def same(first, second):
    for entry in dataclasses.fields(first.draws):
        one, other = getattr(first.draws, entry.name), getattr(second.draws, entry.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, entry.name
    assert first.status == second.status


class Kept(Exception):
    """Enough has been kept."""


def interrupted_at(problem, strategy, count, budget=None):
    """The state that a run had kept when the chains had met ``count`` times."""
    states = []

    def keep(make):
        states.append(make())
        if len(states) == count:
            raise Kept

    meter = Meter(strategy.pose(problem), budget, keep_state=keep)
    with pytest.raises(Kept):
        strategy.run(meter, torch.Generator().manual_seed(3))
    return states[-1]


@pytest.mark.parametrize("count", [1, 9, 27])
@pytest.mark.parametrize("strategy", SHORT.values(), ids=SHORT)
def test_a_run_goes_on_from_what_it_kept_to_the_bit(strategy, count, monkeypatch):
    monkeypatch.setattr("dpcontrol.strategies.posteriors.markov.KEEPING", 1e9)
    problem, _, _ = linear()
    whole = Meter(strategy.pose(problem))
    first = strategy.run(whole, torch.Generator().manual_seed(3))
    resumed = Meter(strategy.pose(problem), kept=interrupted_at(problem, strategy, count))
    second = strategy.run(resumed, torch.Generator().manual_seed(3))
    same(first, second)
    assert whole.counts == resumed.counts
    assert torch.equal(whole.best_x, resumed.best_x)


def test_ctrl_c_returns_the_draws_so_far_and_the_folder_has_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "KEEP_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("dpcontrol.strategies.posteriors.markov.KEEPING", 1e9)
    problem, _, _ = linear()
    strategy = SHORT["nuts"]
    asked, seen = [], []
    whole = run(problem, strategy, seed=5, callback=lambda progress: asked.append(progress.fraction))
    assert asked == sorted(asked) and asked[-1] > 0.9  # what a progress line shows

    def interrupt(progress):
        seen.append(progress)
        if len(seen) == len(asked) - 4:
            raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "run", {"seed": 5})
    half = run(problem, strategy, seed=5, callback=interrupt, folder=folder)
    assert half.status.kind == "interrupted"
    assert "of 12 draws of each chain, which are returned; the run can be resumed" in half.status.sentence
    again = run(problem, strategy, seed=5, folder=RunFolder(tmp_path / "run", {"seed": 5}, resume=True))
    assert again.counts == whole.counts and again.status.kind == whole.status.kind
    assert torch.equal(again.draws.free, whole.draws.free)
    assert torch.equal(half.draws.free, whole.draws.free[:, : half.draws.count])


# -- processes -------------------------------------------------------------------------------------------------------


def test_two_processes_draw_from_the_same_posterior():
    problem, mean, covariance = linear()
    outcome, meter = drawn(problem, NUTS(chains=16, draws=40, warmup=30, workers=2), seed=3)
    x = outcome.draws.free.numpy()
    assert outcome.status.kind == "converged" and x.shape == (16, 40, 2)
    bound = stats.norm.isf(ALARM / 4)
    for i in (0, 1):
        error = math.sqrt(covariance[i, i] / arviz.ess(x[:, :, i], method="mean"))
        assert abs(x[:, :, i].mean() - mean[i]) < bound * error
    # what the processes have spent is on the bill, and the best point that they saw is known
    asked = int(outcome.draws.steps.sum()) + outcome.draws.notes["warmup_steps"]
    assert meter.counts.gradients >= asked
    best = torch.from_numpy(x.reshape(-1, 2)[outcome.draws.log_density.argmax()])
    assert meter.best <= Meter(meter.problem).values(best[None]) + 1e-9


@pytest.mark.slow
def test_two_processes_resume_to_the_bit(monkeypatch):
    monkeypatch.setattr("dpcontrol.strategies.posteriors.markov.KEEPING", 1e9)
    problem, _, _ = linear()
    strategy = NUTS(chains=4, draws=40, warmup=30, workers=2)
    outcome, meter = drawn(problem, strategy, seed=3)
    kept = interrupted_at(problem, strategy, 4)
    resumed = Meter(strategy.pose(problem), kept=kept)
    again = strategy.run(resumed, torch.Generator().manual_seed(3))
    same(outcome, again)
    assert resumed.counts == meter.counts


@pytest.mark.slow
def test_a_budget_is_shared_by_the_processes():
    problem, _, _ = linear()
    strategy = NUTS(chains=3, draws=5000, warmup=20, workers=2)
    budget = Budget(gradients=900)
    outcome, meter = drawn(problem, strategy, budget=budget)
    assert outcome.status.kind == "budget spent"
    assert outcome.draws.count > 10
    assert 600 < meter.counts.gradients <= 900


def test_what_cannot_travel_is_said():
    def step(state, control):
        return state @ A.T + 0 * len(lock.__doc__)

    import threading

    lock = threading.Lock()
    problem, _, _ = linear(step=step)
    with pytest.raises(UsageError, match="cannot be pickled .* use workers=1"):
        drawn(problem, NUTS(chains=2, draws=5, warmup=0, workers=2))


# -- ends and refusals -----------------------------------------------------------------------------------------------


def test_a_spent_budget_returns_the_draws_so_far():
    problem, _, _ = linear()
    outcome, meter = drawn(problem, NUTS(draws=10_000, warmup=20), budget=Budget(gradients=600))
    assert outcome.status.kind == "budget spent"
    assert f"after {outcome.draws.count:,} of 10,000 draws" in outcome.status.sentence
    assert 550 < meter.counts.gradients <= 600
    outcome, _ = drawn(problem, Metropolis(start="prior"), budget=Budget(simulated_steps=20))
    assert outcome.draws is None and "there are none to return" in outcome.status.sentence


@pytest.mark.parametrize("strategy", [NUTS(), MALA(), Metropolis(), PCN()], ids=lambda s: type(s).__name__)
def test_a_warm_up_longer_than_half_of_the_budget_is_cut(strategy):
    problem, mean, covariance = linear()
    budget = Budget(simulated_steps=30_000)
    outcome, _ = drawn(problem, strategy, budget=budget)
    cut = outcome.draws.notes["warmup"]
    assert cut < strategy.warmup
    assert f"The warm-up was cut at {cut:,} of {strategy.warmup:,} draws" in outcome.status.sentence
    assert outcome.draws.count > 20
    away = (outcome.draws.flat().mean(0).numpy() - mean) / np.sqrt(covariance.diagonal())
    assert np.abs(away).max() < 1.0


def test_a_cut_warm_up_resumes_to_the_bit(monkeypatch):
    monkeypatch.setattr("dpcontrol.strategies.posteriors.markov.KEEPING", 1e9)
    problem, _, _ = linear()
    strategy, budget = NUTS(chains=2), Budget(gradients=400)
    first, _ = drawn(problem, strategy, budget=budget, seed=3)
    cut, every = first.draws.notes["warmup"], first.draws.count
    for count in (cut - 2, cut, cut + 3, cut + every - 1):
        resumed = Meter(strategy.pose(problem), budget, kept=interrupted_at(problem, strategy, count, budget))
        same(first, strategy.run(resumed, torch.Generator().manual_seed(3)))


def test_trajectories_that_are_cut_off_are_told():
    problem, _, _ = linear()
    outcome, _ = drawn(problem, NUTS(chains=2, draws=20, warmup=10, depth=1, target_acceptance=0.99))
    assert "of the trajectories were cut off at 1 steps" in outcome.status.sentence
    assert "warm-up." in outcome.status.sentence


def failing(state, control):
    """Fails where the first number is negative."""
    return torch.where(state[:, :1] < 0, torch.nan, 1.0) * (state @ A.T)


@pytest.mark.parametrize(
    "strategy",
    [NUTS(chains=8, draws=40, warmup=30), Metropolis(draws=25, warmup=20), PCN(draws=25, warmup=20)],
    ids=["nuts", "metropolis", "pcn"],
)
def test_where_the_simulator_fails_the_density_is_zero_and_the_chains_live(strategy):
    problem, _, _ = linear(1, step=failing)
    outcome, meter = drawn(problem, strategy)
    assert outcome.status.kind == "converged"
    assert meter.counts.failures > 10
    x = outcome.draws.free
    assert (x[:, :, 0] > 0).all() and torch.isfinite(outcome.draws.log_density).all()
    assert (x[:, 1:] != x[:, :-1]).any(2).any(1).all()
    if isinstance(strategy, NUTS):
        assert outcome.draws.divergences > 0


def test_a_density_that_is_nowhere_finite_is_said(monkeypatch):
    problem, _, _ = linear(1)
    nowhere = lambda self, x: torch.full((len(x),), -torch.inf, dtype=F64)  # noqa: E731
    monkeypatch.setattr(Meter, "log_densities", nowhere)
    monkeypatch.setattr(
        Meter, "log_densities_and_gradients", lambda self, x: (nowhere(self, x), torch.zeros_like(x))
    )
    for strategy in (NUTS(), Metropolis()):
        status, _ = drawn(problem, strategy)
        assert status.kind == "failed" and "no starting point" in status.sentence


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: NUTS(chains=0), "chains=...) must be a whole number"),
        (lambda: NUTS(warmup=-1), "warmup=...) must be a whole number"),
        (lambda: NUTS(workers=5), "more workers than chains"),
        (lambda: NUTS(target_acceptance=1.0), "target_acceptance"),
        (lambda: NUTS(metric="full"), "one of auto, dense, diagonal"),
        (lambda: PCN(start="mode"), "one of map, prior"),
        (lambda: MALA(thin=0), "thin=...) must be a whole number"),
        (lambda: Metropolis(spread=0.0), "spread=...) must be a positive number"),
    ],
)
def test_fields_are_refused_at_the_door(make, words):
    with pytest.raises(UsageError) as error:
        make()
    assert words in str(error.value)


def test_a_sampler_needs_a_prior_and_an_exact_gradient_where_it_uses_one():
    problem, _, _ = linear()
    without = dataclasses.replace(problem, prior=None)
    assert "a log-density" in (mismatch(without, Metropolis()) or "")
    black = dataclasses.replace(problem, differentiable=False)
    assert mismatch(black, Metropolis()) is None and mismatch(black, PCN()) is None
    for strategy in (NUTS(), MALA(), NUTS(start="prior"), Metropolis(start="map")):
        assert "an exact gradient" in (mismatch(black, strategy) or "")


def test_a_prior_that_is_not_white_is_sampled_but_not_by_pcn():
    """An F density has no known white map; the mean of its posterior by a sum over a grid of logarithms."""
    prior = torch.distributions.FisherSnedecor(
        torch.tensor([8.0], dtype=F64), torch.tensor([10.0], dtype=F64)
    )
    problem = inference_problem(
        lambda state, control: 0.5 * state,
        data=torch.tensor([[[1.0]], [[0.6]]], dtype=F64),
        observation=observe(noise=Gaussian(1.0)),
        initial_state=torch.zeros(1, 1, dtype=F64),
        horizon=1,
        prior={"initial_state": prior},
        name="positive",
    )
    assert "Gaussian" in (mismatch(problem, PCN()) or "")
    free = torch.linspace(-8, 4, 6001, dtype=F64)  # the logarithm, whose density has one factor more
    grid = free.exp()
    weight = (prior.log_prob(grid) + free - 0.5 * ((grid - 1) ** 2 + (0.5 * grid - 0.6) ** 2)).exp()
    weight = weight / weight.sum()
    mean = (weight * free).sum()
    sd = (weight * (free - mean) ** 2).sum().sqrt()
    for strategy in (
        NUTS(chains=16, draws=40, warmup=40),
        Metropolis(chains=32, draws=30, warmup=20, thin=8),
    ):
        outcome, _ = drawn(problem, strategy)
        x = outcome.draws.free.numpy()[:, :, 0]
        error = float(sd) / math.sqrt(arviz.ess(x, method="mean"))
        assert abs(x.mean() - float(mean)) < stats.norm.isf(ALARM / 2) * error


def test_the_highest_of_several_modes_is_searched_for():
    # a clock whose rate is seen through its phase: every whole turn more is another hill
    speeds = torch.tensor([3.0, 7.3, 8.1], dtype=F64)

    def step(state, control, *, parameters):
        return state + (speeds * parameters["rate"]).sin()

    seen = (speeds * 4.3).sin()[None]
    problem = inference_problem(
        step,
        data=seen[None],
        observation=observe(noise=Gaussian(0.02), steps=[1]),
        initial_state=torch.zeros(1, 3, dtype=F64),
        horizon=1,
        prior={"rate": Normal(0.0, 3.0)},
        start={"rate": torch.tensor(0.9, dtype=F64)},
    )
    one = run(problem, NUTS(chains=2, draws=50, warmup=50))
    best = run(problem, NUTS(chains=2, draws=50, warmup=50, searches=8))
    found = [float(each.posterior.values["rate"].mean()) for each in (one, best)]
    assert abs(found[0] - 4.3) > 0.5 and abs(found[1] - 4.3) < 0.05
    assert "highest mode that 8 searches found" in best.status.sentence
