"""Tests of uniform ranks: their levels by simulation, their power, and what they say in words."""

import numpy as np
import pytest

from dpcontrol.criticism.ranks import band, band_p_value, below, bins_for, chi_square, holm, shape_in_words


@pytest.mark.parametrize(("simulations", "most", "rate"), [(100, 63, 0.05), (50, 20, 0.1), (30, 99, 0.2)])
def test_the_band_is_left_as_often_as_it_says(simulations, most, rate):
    random = np.random.default_rng(1)
    ranks = random.integers(0, most + 1, size=(20_000, simulations))
    counts = np.stack([(ranks < i).sum(1) for i in range(1, most + 1)], 1)
    limits = band(simulations, most, rate)
    left = ((counts < limits.low) | (counts > limits.high)).any(1).mean()
    # the next wider band would be left less often than the rate by less than a quarter of it
    assert 0.75 * rate < left < rate + 4 * np.sqrt(rate / 20_000)


def test_a_path_leaves_its_band_where_its_p_value_is_below_the_rate():
    random = np.random.default_rng(2)
    for power in np.linspace(1.0, 2.0, 12):  # from uniform to ever smaller ranks
        ranks = np.floor(64 * random.random(80) ** power).astype(int)
        limits, counts = band(80, 63, 0.02), below(ranks, 63)
        outside = bool(((counts < limits.low) | (counts > limits.high)).any())
        assert outside == (band_p_value(ranks, 63) <= 0.02)


def test_p_values_of_uniform_ranks_are_uniform():
    random = np.random.default_rng(3)
    for test in (chi_square, band_p_value):
        found = np.array([test(random.integers(0, 32, size=120), 31) for _ in range(400)])
        for level in (0.05, 0.2, 0.5):
            share = (found <= level).mean()
            assert share < level + 4 * np.sqrt(level * (1 - level) / 400)
            assert share > 0.6 * level - 4 * np.sqrt(level * (1 - level) / 400)


def test_bins_have_equal_sizes_and_ten_simulations_each():
    assert bins_for(100, 63) == 8
    assert bins_for(1000, 63) == 16
    assert bins_for(1000, 99) == 20
    assert bins_for(15, 63) == 1 and np.isnan(chi_square(np.arange(15), 63))


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, np.nan])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda u: u**2, "lies too high"),
        (lambda u: np.sqrt(u), "lies too low"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.4, "is too narrow"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 2, "is too wide"),
        (lambda u: 0.999 + 0 * u, "lies too low"),
    ],
)
def test_shapes_in_words(draw, words):
    u = (np.arange(200) + 0.5) / 200
    assert shape_in_words(np.floor(64 * draw(u)).astype(int), 63) == words
