"""The truncated normal: against scipy, against itself by quadrature, and its derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from precision import double_precision  # noqa: F401
from scipy import integrate, special, stats
from taylor import taylor_rates
from torch.distributions import Normal

from dpcontrol.problem import TruncatedNormal, UsageError
from dpcontrol.problem.normal_tails import inverse_log_ndtr, log_mass, log_ndtr

INF = math.inf
CASES = [  # loc, scale, low, high: whole line, half lines, across zero, beside it, far out
    (0.3, 2.0, -INF, INF),
    (1.0, 0.5, 0.0, INF),
    (0.0, 1.0, -1.0, 2.0),
    (-2.0, 3.0, -INF, 1.0),
    (0.0, 1.0, 3.0, 3.5),
    (0.0, 1.0, 30.0, INF),
    (3.0, 2.0, -40.0, -39.0),
    (0.0, 1.0, -30.0, 2.0),
]


@pytest.mark.parametrize("case", CASES)
def test_density_quantiles_and_moments_are_those_of_scipy(case):
    loc, scale, low, high = case
    mine = TruncatedNormal(*case)
    theirs = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    x = mine.icdf(torch.linspace(0.001, 0.999, 41))
    assert torch.allclose(mine.log_prob(x), torch.tensor(theirs.logpdf(x.numpy())), rtol=1e-9, atol=1e-9)
    assert torch.allclose(mine.cdf(x), torch.linspace(0.001, 0.999, 41), rtol=1e-9, atol=0)
    assert torch.allclose(x, torch.tensor(theirs.ppf(torch.linspace(0.001, 0.999, 41).numpy())), rtol=1e-9)
    outside = x.new_tensor([low - 1, high + 1])
    assert torch.isinf(TruncatedNormal(*case, validate_args=False).log_prob(outside)).all()
    if abs(low) < 20:  # their moments lose digits further out
        assert float(mine.mean) == pytest.approx(theirs.mean(), rel=1e-9)
        assert float(mine.stddev) == pytest.approx(theirs.std(), rel=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_density_has_mass_one_and_its_moments(case):
    density = TruncatedNormal(*case)
    ends = [float(v) for v in density.from_white(torch.tensor([-9.0, 9.0]))]

    def integral(function):
        return integrate.quad(lambda x: float(function(torch.tensor(x))), *ends, epsabs=1e-13, epsrel=1e-11)[
            0
        ]

    assert integral(lambda x: density.log_prob(x).exp()) == pytest.approx(1, rel=1e-10)
    mean, edge = float(density.mean), float(density.mode)
    away = integral(lambda x: (x - edge) * density.log_prob(x).exp())
    assert mean - edge == pytest.approx(away, rel=1e-8, abs=1e-12 * max(1, abs(edge)))
    second = integral(lambda x: (x - mean) ** 2 * density.log_prob(x).exp())
    assert float(density.variance) == pytest.approx(second, rel=1e-9)


def test_a_cut_at_a_thousand_standard_deviations_is_an_exponential():
    """Mills' ratio: (1 - 1 / a^2) / a, next term 3 / a^5; the excess has mean 1/a - 2/a^3 and so on."""
    a = 1000.0
    density = TruncatedNormal(0.0, 1.0, low=a)
    expected = math.log(a) - math.log1p(-1 / a**2 + 3 / a**4)
    assert float(density.log_prob(torch.tensor(a))) == pytest.approx(expected, rel=1e-14)
    assert float(density.mean - a) == pytest.approx(1 / a - 2 / a**3, rel=1e-6)
    assert float(density.stddev) == pytest.approx(1 / a, rel=1e-5)
    median = density.icdf(torch.tensor(0.5)) - a
    assert float(median) == pytest.approx(math.log(2) / a, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_white_numbers_come_back_from_both_tails(case):
    """Where the place of a white number fits between neighbouring floats of ``x``, that is."""
    density = TruncatedNormal(*case)
    w = torch.linspace(-8, 8, 65)
    x = density.from_white(w)
    assert torch.isfinite(density.log_prob(x)).all()
    rounding = torch.finfo(x.dtype).eps * x.abs() * torch.exp(density.log_prob(x) + 0.5 * w.square())
    assert ((density.to_white(x) - w).abs() < 1e-13 + 20 * rounding).all()
    assert torch.isfinite(density.from_white(torch.tensor([-37.0, 37.0]))).all()


def test_near_a_cut_at_zero_all_digits_of_small_values_hold():
    """Half a normal: erf(x / sqrt 2) = Phi(w), so that x is sqrt(pi / 2) Phi(w) near zero."""
    w = torch.linspace(-30, -6, 25)
    x = TruncatedNormal(0.0, 1.0, low=0.0).from_white(w)
    assert torch.allclose(x, math.sqrt(math.pi / 2) * log_ndtr(w).exp(), rtol=1e-12, atol=0)


def test_draws_are_those_of_the_density():
    torch.manual_seed(3)
    for case in CASES:
        draws = TruncatedNormal(*case).sample((4000,))
        assert stats.kstest(TruncatedNormal(*case).cdf(draws).numpy(), "uniform").pvalue > 1e-4


def test_gradients_in_value_and_parameters_pass_the_taylor_test():
    for loc, scale, low, high in [(1.0, 0.5, 0.0, 4.0), (0.0, 1.0, 3.0, 3.6), (-3.0, 1.0, 1.0, 6.0)]:
        point = {"loc": loc, "scale": scale, "low": low, "high": high}
        point = {name: torch.tensor(value) for name, value in point.items()}
        x, w = torch.tensor(0.5 * (low + high)), torch.tensor([-2.0, 0.1, 1.5])
        for function, at in (
            (TruncatedNormal.log_prob, x),
            (TruncatedNormal.from_white, w),
            (TruncatedNormal.to_white, x),
            (TruncatedNormal.cdf, x),
        ):

            def value(z, function=function):
                density = TruncatedNormal(z["loc"], z["scale"], z["low"], z["high"])
                return function(density, z["at"]).sum()

            rates = taylor_rates(value, {**point, "at": at}, largest=3e-3)
            assert min(rates) > 1.9, rates


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[4], CASES[7]])
def test_derivatives_of_quantiles_are_exact_to_second_order_also_in_forward_mode(case):
    density = TruncatedNormal(*case)
    w = torch.tensor([-2.0, -0.3, 0.4, 2.5], requires_grad=True)
    for function, at in ((density.from_white, w), (density.to_white, density.icdf(torch.tensor([0.1, 0.6])))):
        at = at.detach().requires_grad_()
        assert torch.autograd.gradcheck(function, at, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, at, check_fwd_over_rev=True)


def test_masses_of_intervals_and_their_inverses():
    low = torch.tensor([-INF, -1.0, 2.0, 5.0, -9.0, 8.0])
    high = torch.tensor([1.0, 2.0, 2.0 + 1e-9, INF, -8.0, 8.001])
    width = torch.tensor([INF, 3.0, 1e-9, INF, 1.0, 8.001 - 8.0])
    mass, c = log_mass(low, high, width)
    tails = torch.tensor(special.log_ndtr((-low).numpy())), torch.tensor(special.log_ndtr((-high).numpy()))
    direct = tails[0] + torch.log1p(-torch.exp(tails[1] - tails[0]))
    direct[2] = float(Normal(0.0, 1.0).log_prob(torch.tensor(2.0))) + math.log(1e-9)
    direct[4] = float(special.log_ndtr(-8.0)) + math.log1p(
        -math.exp(special.log_ndtr(-9.0) - special.log_ndtr(-8.0))
    )
    assert torch.allclose(mass - 0.5 * c**2, direct, rtol=1e-9)
    log_p = torch.tensor([-1e-1 - math.log(2), -5.0, -299.9, -300.1, -1e4, -1e12])
    assert torch.allclose(log_ndtr(inverse_log_ndtr(log_p)), log_p, rtol=1e-14, atol=0)


def test_batches_expand_and_a_float32_density_stays_one():
    density = TruncatedNormal(torch.tensor([0.0, 1.0]), 1.0, low=0.0)
    assert density.batch_shape == (2,) and density.expand((3, 2)).sample((5,)).shape == (5, 3, 2)
    single = TruncatedNormal(torch.tensor(0.0, dtype=torch.float32), 1.0, low=0.0)
    assert single.sample().dtype == torch.float32
    assert single.from_white(torch.tensor([-8.0, 8.0], dtype=torch.float32)).isfinite().all()


def test_what_is_no_interval_is_refused():
    with pytest.raises(UsageError, match="needs low < high; found low=2.0, high=1.0."):
        TruncatedNormal(0.0, 1.0, low=2.0, high=1.0)
    with pytest.raises(UsageError, match="scale of a truncated normal must be positive; found -1.0."):
        TruncatedNormal(0.0, -1.0)
    with pytest.raises(ValueError, match="support"):
        TruncatedNormal(0.0, 1.0, low=0.0).log_prob(torch.tensor(-1.0))
