"""Posteriors of several strategies beside each other: columns, references, words, report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from known_posterior import exact_draws, exact_posterior, line

import dpcontrol as dp
from dpcontrol.comparison import posteriors
from dpcontrol.comparison.moments import given_reference
from dpcontrol.posterior import Draws
from dpcontrol.run import Outcome, Strategy


@dataclass(frozen=True)
class Fake(Strategy):
    """Draws of the posterior, with autocorrelation ``rho``, one chain ``shift`` away, all ``width`` times as wide."""

    rho: float = 0.0
    shift: float = 0.0
    width: float = 1.0
    kind: str = "mcmc"

    @property
    def stochastic(self):
        return True

    def pose(self, problem):
        return replace(problem, joint=True)

    def run(self, meter, generator):
        for _ in range(200):
            meter.log_densities(meter.start())
        drawn = exact_draws(
            meter.problem, count=1000, seed=int(torch.randint(2**20, (), generator=generator))
        )
        middle = drawn.free.mean((0, 1))
        chains = drawn.free - middle
        for i in range(1, drawn.count):
            chains[:, i] = self.rho * chains[:, i - 1] + (1 - self.rho**2) ** 0.5 * chains[:, i]
        free = middle + self.width * chains
        free[0] += self.shift
        status = dp.Status("converged", "All draws were made.")
        if self.kind == "mcmc":
            return Outcome(status, draws=Draws(free, drawn.log_density))
        return Outcome(status, draws=Draws(free[:1], drawn.log_density[:1], kind=self.kind))


STRATEGIES = {
    "good": Fake(),
    "slow": Fake(rho=0.6),
    "stuck": Fake(shift=3.0),
    "narrow": Fake(width=0.5, kind="independent"),
    "lbfgs": dp.LBFGS(),
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    problem = replace(line(), reference_posterior=None)
    return dp.compare(problem, STRATEGIES, seeds=2, folder=folder, workers=0, progress=False), folder


def test_samplers_are_ranked_by_effective_draws_per_step(compared):
    found = posteriors.sampled(compared[0].results)
    assert [each.label for each in found] == ["good", "slow", "stuck", "narrow"]
    good, slow, stuck, narrow = found
    assert good.is_reference and good.mean_error is None and good.rhat < 1.01
    # an autoregressive chain is worth (1 - rho) / (1 + rho) of its draws
    assert slow.rate / good.rate == pytest.approx(0.25, rel=0.25)
    assert good.per_step[0] == pytest.approx(
        1000 * good.effective / 1000, rel=0.2
    )  # 200 questions of 5 steps
    assert slow.mean_error < 0.2 and slow.sd_error < 0.1
    assert stuck.rhat > 1.1
    assert narrow.sd_error == pytest.approx(0.5, abs=0.05) and not narrow.chains


def test_table_and_words_say_it(compared):
    comparison, folder = compared
    said = comparison.table()
    assert "good samples best" in said and "stuck (R-hat" in said and "has not mixed" in said
    assert (
        "approximations are off by: narrow" in said and "lbfgs gives a single point and no posterior" in said
    )
    assert "against good (seed" in said
    assert dp.Comparison.load(folder).table() == said
    record = next(record for record in comparison.records if record["strategy"] == "good")
    assert record["posterior"]["kind"] == "mcmc"
    assert all("posterior" in record for record in comparison.records)


def test_report_shows_posteriors_with_their_warnings(compared):
    comparison, _ = compared
    text = comparison.report().read_text()
    for part in ("The posteriors", "What the budget buys", "How far off", "Over each other", 'class="alarm"'):
        assert part in text
    assert "stuck: R-hat" in text and "The most probable points" in text


def test_reference_of_the_problem_is_used(tmp_path):
    problem = line()
    exact = exact_posterior(problem)
    mean, sd = exact.mean, exact.stddev
    problem = replace(problem, reference_posterior={"slope": (mean[0], sd[0]), "kick": (mean[1:], sd[1:])})
    found = given_reference(problem)
    np.testing.assert_allclose(found["kick"][1], sd[1:])
    comparison = dp.compare(
        problem, {"good": Fake(), "stuck": Fake(shift=3.0)}, seeds=1, workers=0, progress=False
    )
    good, stuck = posteriors.sampled(comparison.results)
    assert not good.is_reference and good.mean_error < 0.1 and good.sd_error < 0.1
    assert stuck.mean_error > 0.5
    assert "the reference posterior of the problem" in comparison.table()


def test_without_any_mixed_chains_there_is_no_reference():
    problem = replace(line(), reference_posterior=None)
    stuck, narrow = Fake(shift=3.0), Fake(kind="ensemble")
    comparison = dp.compare(problem, {"stuck": stuck, "narrow": narrow}, seeds=1, workers=0, progress=False)
    said = comparison.table()
    assert "No sampler has mixed within the budget: stuck" in said and "There is no reference" in said
    only = dp.compare(problem, {"narrow": narrow}, seeds=1, workers=0, progress=False)
    assert "Only approximations of the posterior: narrow" in only.table()
