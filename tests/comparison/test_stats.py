"""Intervals against known answers: how often they hold the truth, and what they do at the edges."""

import numpy as np
import pytest
import scipy.stats

from dpcontrol.comparison import stats
from dpcontrol.comparison.stats import (
    NOTHING,
    OVER_BOTH,
    OVER_SCENARIOS,
    OVER_SEEDS,
    interquartile_mean,
    over_seeds,
    paired_difference,
    ratio_of_means,
)


def test_a_ratio_of_means_is_not_a_mean_of_ratios() -> None:
    top, bottom = np.array([1.0, 9.0]), np.array([1.0, 3.0])
    assert ratio_of_means(top, bottom).value == pytest.approx(10 / 4)


def test_the_interval_over_scenarios_holds_the_truth_as_often_as_it_says() -> None:
    # b is log-normal, a = b (1 + noise): the ratio of means is 1.5, and a plain mean would do worse
    generator, hits, repeats = np.random.default_rng(0), 0, 300
    for repeat in range(repeats):
        bottom = generator.lognormal(0.0, 0.6, 60)
        top = bottom * 1.5 * (1 + 0.3 * generator.standard_normal(60))
        low, high = ratio_of_means(top, bottom, seed=repeat, resamples=500).interval
        hits += low <= 1.5 <= high
    assert 0.90 <= hits / repeats <= 0.985  # 0.95 within three standard errors, and the small-sample loss


def test_the_interval_over_seeds_and_scenarios_covers_both_sources_of_chance() -> None:
    generator, hits, alone, repeats = np.random.default_rng(1), 0, 0, 200
    for repeat in range(repeats):
        seeds, scenes = generator.normal(0, 0.3, (8, 1)), generator.normal(0, 0.5, (1, 40))
        values = 2.0 + seeds + scenes + generator.normal(0, 0.1, (8, 40))
        low, high = ratio_of_means(values, np.ones_like(values), seed=repeat, resamples=500).interval
        hits += low <= 2.0 <= high
        lucky = ratio_of_means(values[:1], np.ones((1, 40)), seed=repeat, resamples=300).interval
        alone += lucky[0] <= 2.0 <= lucky[1]
    assert hits / repeats >= 0.88  # eight seeds: the bootstrap of so few is a little short
    assert alone < hits - 0.2 * repeats  # one seed tells nothing about the others


def test_the_paired_difference_sees_what_separate_intervals_cannot() -> None:
    generator = np.random.default_rng(2)
    hard = generator.lognormal(0, 1, 100)
    good, worse = hard, 1.05 * hard * (1 + 0.02 * generator.standard_normal(100))
    ones = np.ones(100)
    (low, high), (other_low, other_high) = (ratio_of_means(x, ones).interval for x in (good, worse))
    assert low <= other_high and other_low <= high
    difference = paired_difference(good, worse)
    assert difference.value == pytest.approx(0.05, abs=0.01)
    assert difference.interval[0] > 0.03


def test_what_the_interval_is_over() -> None:
    def over(*shape: int) -> str:
        values = np.random.default_rng(0).random(shape) + 1
        return ratio_of_means(values, np.ones(shape), resamples=100).over

    assert over(1, 20) == OVER_SCENARIOS
    assert over(3, 20) == OVER_BOTH
    assert over(3, 1) == OVER_SEEDS
    assert over(1, 2) == NOTHING


def test_equal_numbers_have_an_interval_of_no_width() -> None:
    bottom = np.random.default_rng(0).random(20) + 1
    assert ratio_of_means(np.full(20, 3.0), np.ones(20)).interval == (3.0, 3.0)
    low, high = ratio_of_means(2 * bottom, bottom).interval
    assert low == pytest.approx(2.0) and high == pytest.approx(2.0)
    assert ratio_of_means(np.zeros(20), bottom).interval == (0.0, 0.0)


def test_the_interquartile_mean_ignores_luck_and_disaster() -> None:
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 1e9, 2.5, 2.5])) == pytest.approx(2.5)


# -- interquartile means over seeds -----------------------------------------------------------------------------------


def test_what_a_strategy_is_worth_is_the_interquartile_mean_of_its_runs() -> None:
    # eight runs on two scenes; run means are 1..8, the middle four have the mean 4.5 whatever the last one does
    runs = np.arange(1.0, 9.0)
    losses = np.stack([runs - 0.5, runs + 0.5], 1)
    assert ratio_of_means(losses, np.ones_like(losses)).value == pytest.approx(4.5)
    losses[-1] *= 1e6
    assert ratio_of_means(losses, np.ones_like(losses)).value == pytest.approx(4.5)
    three = ratio_of_means(losses[:3], np.ones((3, 2)))
    assert three.value == pytest.approx(2.0)  # of fewer than four it is the mean


def test_resampled_runs_are_trimmed_as_if_they_were_written_out() -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((50, 10))
    counts = generator.multinomial(10, np.full(10, 0.1), size=50)
    written = [np.repeat(row, count) for row, count in zip(values, counts, strict=True)]
    found = stats._typical(values, counts / 10)
    assert found == pytest.approx([scipy.stats.trim_mean(row, 0.25) for row in written])


def test_the_interval_over_seeds_holds_the_truth_as_often_as_it_says_and_shrugs_off_disasters() -> None:
    generator, hits, repeats = np.random.default_rng(3), 0, 200
    for repeat in range(repeats):
        losses = generator.normal(2.0, 0.3, 20)
        losses[generator.random(20) < 0.05] += 50.0  # one run in twenty goes to ruin
        low, high = over_seeds(losses, seed=repeat, resamples=500).interval
        hits += low <= 2.0 + 0.02 <= high  # ruin moves the middle half by a little
    assert 0.88 <= hits / repeats <= 0.99


def test_few_seeds_or_equal_ones_have_no_interval_or_none_of_width() -> None:
    assert over_seeds(np.array([1.0, 2.0, 3.0])).interval is None
    assert over_seeds(np.full(10, 3.0)).interval == (3.0, 3.0)
    # the middle half never changes, so there is no acceleration: percentiles instead
    low, high = over_seeds(np.array([0.0, *np.ones(9)])).interval
    assert 0.0 <= low <= high == 1.0


def test_the_paired_difference_is_one_of_interquartile_means() -> None:
    generator = np.random.default_rng(4)
    good = 1.0 + 0.01 * generator.standard_normal((10, 6))
    worse = 1.2 * good
    worse[0] *= 1000  # one ruined run is no news about the typical one
    found = paired_difference(good, worse)
    assert found.value == pytest.approx(0.2, abs=0.01)
    assert found.interval[0] > 0.1


def test_the_same_factor_in_every_scenario_is_certain_whatever_scenarios_weigh():
    rng = np.random.default_rng(3)
    losses = rng.lognormal(0.0, 1.5, (1, 8))
    found = paired_difference(losses, 2.0 * losses)
    assert found.value == pytest.approx(1.0) and found.interval == pytest.approx((1.0, 1.0))
    several = rng.lognormal(0.0, 1.0, (4, 30))
    low, high = paired_difference(several, 1.0045 * several[:1].repeat(4, 0)).interval
    assert low <= high
    # densities may have any sign: then all resamples are measured by the whole
    mixed = paired_difference(rng.standard_normal((1, 40)), rng.standard_normal((1, 40)) + 3.0)
    assert np.isfinite(mixed.interval).all() and mixed.interval[0] > 0
