"""Diagnostics: equal to ArviZ's, and to what is known of autoregressive chains."""

from __future__ import annotations

import numpy as np
import pytest

from dpcontrol.posterior import diagnostics
from dpcontrol.posterior.weights import pareto_shape


def autoregressive(rho, chains, draws, entries=1, seed=0):
    """Chains ``x_{i+1} = rho x_i + e``, stationary, whose mean has the autocorrelation time (1 + rho) / (1 - rho)."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((chains, draws, entries))
    values = np.empty_like(noise)
    values[:, 0] = noise[:, 0] / np.sqrt(1 - rho**2)
    for i in range(1, draws):
        values[:, i] = rho * values[:, i - 1] + noise[:, i]
    return values


CHAINS = {
    "slow": autoregressive(0.9, 4, 1000, 3),
    "alternating": autoregressive(-0.5, 4, 501, 3),
    "independent": autoregressive(0.0, 4, 400, 3),
    "short": autoregressive(0.3, 2, 11, 4),
    "shifted": autoregressive(0.5, 4, 400, 2) + np.arange(4.0)[:, None, None],
    "of two widths": autoregressive(0.5, 4, 400, 2) * np.array([1, 1, 3, 3.0])[:, None, None],
    "rounded": np.round(autoregressive(0.9, 4, 300, 2)),
    "heavy-tailed": np.tan(autoregressive(0.9, 4, 300, 2)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_diagnostics_are_those_of_arviz(name):
    arviz = pytest.importorskip("arviz")
    values = CHAINS[name]
    data = arviz.convert_to_dataset({"x": values})
    found = diagnostics.mixing(values)
    expected = {
        "rhat": arviz.rhat(data),
        "ess_bulk": arviz.ess(data, method="bulk"),
        "ess_tail": arviz.ess(data, method="tail"),
        "mcse_mean": arviz.mcse(data, method="mean"),
    }
    for field, known in expected.items():
        np.testing.assert_allclose(getattr(found, field), known["x"].values, rtol=1e-10, err_msg=field)


def test_energies_and_weights_are_judged_as_by_arviz():
    arviz = pytest.importorskip("arviz")
    energy = np.random.default_rng(0).standard_normal((4, 300)).cumsum(1)
    np.testing.assert_allclose(diagnostics.energy_mixing(energy), arviz.bfmi(energy), rtol=1e-12)
    for spread in (0.3, 1.0, 3.0, 10.0):
        weights = spread * np.random.default_rng(1).standard_normal(2000)
        assert pareto_shape(weights) == pytest.approx(float(arviz.psislw(weights.copy())[1]), rel=1e-9)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.6, 0.9])
def test_effective_draws_of_autoregressive_chains(rho):
    chains, draws, entries = 4, 4000, 24
    values = autoregressive(rho, chains, draws, entries)
    known = chains * draws * (1 - rho) / (1 + rho)
    # an antithetic chain may be worth more than its draws, up to the cap total * log10(total)
    found = diagnostics.effective_draws(values)
    assert found.mean() == pytest.approx(known, rel=0.06)
    mixing = diagnostics.mixing(values)
    assert mixing.ess_bulk.mean() == pytest.approx(known, rel=0.06)
    assert mixing.rhat.max() < 1.01 if rho < 0.9 else mixing.rhat.max() < 1.03
    error = values.mean((0, 1)).std()
    assert mixing.mcse_mean.mean() == pytest.approx(error, rel=0.5)


def test_shifted_and_stuck_chains_are_found():
    good = autoregressive(0.3, 4, 500, 2)
    shifted = good + np.array([0.0, 0.0, 0.0, 1.0])[:, None, None]
    assert diagnostics.mixing(good).rhat.max() < 1.01
    assert diagnostics.mixing(shifted).rhat.min() > 1.05
    # means agree, widths do not: only the folded values tell
    wide = good * np.array([1.0, 1.0, 1.0, 3.0])[:, None, None]
    assert diagnostics.mixing(wide).rhat.min() > 1.05
    stuck = diagnostics.mixing(np.ones((4, 100, 1)))
    assert np.isinf(stuck.rhat).all() and (stuck.ess_bulk == 1).all()
    # a chain whose copies all stand still elsewhere
    apart = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 100, 1))
    assert diagnostics.mixing(apart).rhat.min() > 100
    assert np.isnan(diagnostics.mixing(np.ones((4, 3, 2))).rhat).all()


def test_shapes_are_kept_and_chunks_make_no_difference(monkeypatch):
    values = autoregressive(0.5, 2, 60, 12).reshape(2, 60, 3, 4)
    whole = diagnostics.mixing(values)
    assert whole.rhat.shape == whole.mcse_mean.shape == (3, 4)
    monkeypatch.setattr(diagnostics, "CHUNK", 500)
    parts = diagnostics.mixing(values)
    np.testing.assert_array_equal(whole.ess_tail, parts.ess_tail)
    assert diagnostics.mixing(values[..., 0, 0]).rhat.shape == ()


def test_weights_of_an_exact_approximation():
    assert pareto_shape(np.full(100, 3.0)) == -np.inf
