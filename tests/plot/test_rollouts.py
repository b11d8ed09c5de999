"""Curves of long rollouts say what the table beneath them says: what fails does not vanish."""

import numpy as np
import pytest

from dpcontrol.plot.rollouts import error_figure, spectrum_figure

STEPS = 10


def grown(end: int = STEPS) -> np.ndarray:
    """Errors that grow with the steps, infinite from ``end`` on."""
    steps = np.arange(STEPS + 1.0)
    return np.where(steps < end, 0.01 * steps, np.inf) if end < STEPS else 0.01 * steps


def drawn(*seeds: np.ndarray):
    panels = {"test": {"coarse solver": np.array([grown()]), "network": np.array(seeds)}}
    look = {"coarse solver": "0.5", "network": "C0"}
    return error_figure(panels, look, {"coarse solver": "--"}).axes[0]


def crosses(axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "x"]


@pytest.mark.parametrize("ends", [(4, STEPS), (STEPS, 4), (4, 7, STEPS, STEPS)])
def test_a_curve_ends_with_a_cross_where_half_of_the_seeds_have_failed(ends):
    axes = drawn(*(grown(end) for end in ends))
    assert crosses(axes) == [sorted(ends)[len(ends) // 2 - 1] - 1]


def test_one_of_three_seeds_may_fail():
    axes = drawn(grown(4), grown(), 2 * grown())
    assert crosses(axes) == []
    np.testing.assert_allclose(
        axes.lines[1].get_ydata(), 2 * grown()[1:] / np.where(np.arange(1, 11) < 4, 2, 1)
    )


def test_what_fails_in_its_first_step_is_named():
    assert [text.get_text() for text in drawn(grown(1)).texts] == ["failed in the first step: network"]
    assert [text.get_text() for text in drawn(grown(2)).texts] == []


def test_spectra_name_who_has_failed():
    wave = np.array([0.0, 1.0, 0.1, 0.01])
    panels = {
        "test": {"good": wave[None], "half": np.array([wave, wave + np.inf]), "blown": wave[None] + np.inf}
    }
    axes = spectrum_figure(panels, {"test": wave}, dict.fromkeys(panels["test"], "C0"), {}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["failed before the end: half, blown"]
