"""White numbers: every prior becomes the standard normal, with exact first and second derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from precision import double_precision, in_double  # noqa: F401
from scipy import stats
from torch import distributions as td
from torch.distributions import transforms as tt
from torch.func import hessian, jvp, vmap

from dpcontrol.problem import GaussianField, TruncatedNormal, UsageError
from dpcontrol.problem.prior import Prior
from dpcontrol.problem.tabulated import OneSided
from dpcontrol.problem.white import draw, free_transform, unvalidated, white_transform


def two(a, b):
    return torch.tensor([a, b])


with in_double():
    FIELD = GaussianField((6,), (1.0,), length_scale=0.3, mean=0.2, sd=1.5)
    ELEMENTWISE = {
        "normal": td.Normal(1.0, 2.0),
        "log-normal": td.LogNormal(0.3, 0.7),
        "uniform": td.Uniform(-1.0, 3.0),
        "truncated above zero": TruncatedNormal(1.0, 0.5, low=0.0),
        "truncated on both sides": TruncatedNormal(0.0, 1.0, -1.0, 2.0),
        "truncated far out": TruncatedNormal(0.0, 1.0, low=3.0),
        "half-normal": td.HalfNormal(2.0),
        "exponential": td.Exponential(3.0),
        "laplace": td.Laplace(1.0, 2.0),
        "gumbel": td.Gumbel(1.0, 2.0),
        "cauchy": td.Cauchy(0.0, 2.0),
        "half-cauchy": td.HalfCauchy(2.0),
        "gamma": td.Gamma(3.0, 2.0),
        "rough gamma": td.Gamma(0.7, 2.0),
        "beta": td.Beta(2.0, 3.0),
        "student-t": td.StudentT(4.0, 1.0, 2.0),
        "weibull": td.Weibull(2.0, 1.5),
        "log-uniform": td.TransformedDistribution(td.Uniform(-2.0, 1.0), tt.ExpTransform()),
        "moved half-normal": td.TransformedDistribution(td.HalfNormal(1.0), [tt.AffineTransform(1.0, 2.0)]),
    }
    OTHERS = {
        "inverse gamma": td.InverseGamma(3.0, 2.0),  # falls where its gamma rises
        "multivariate": td.MultivariateNormal(two(1.0, 2.0), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
        "low rank": td.LowRankMultivariateNormal(two(1.0, 2.0), two(0.5, 1.0)[:, None], two(0.3, 0.2)),
        "independent": td.Independent(td.Uniform(two(0.0, 1.0), two(1.0, 3.0)), 1),
        "log of independent": td.TransformedDistribution(
            td.Independent(td.Normal(two(1.0, 2.0), two(0.5, 3.0)), 1), [tt.ExpTransform()]
        ),
        "stick": td.LogisticNormal(two(0.0, 1.0), two(1.0, 0.5)),
        "field": FIELD,
        "log-normal field": td.TransformedDistribution(FIELD, tt.ExpTransform()),
    }
ALL = ELEMENTWISE | OTHERS


def whites(density, sample_shape, seed=0):
    shape = white_transform(density).inverse_shape(density.batch_shape + density.event_shape)
    return torch.randn(*sample_shape, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ALL)
def test_the_prior_of_white_numbers_is_standard_normal_and_they_come_back(name):
    density, transform = ALL[name], white_transform(ALL[name])
    w = 1.5 * whites(density, (50,))
    x = transform(w)
    assert torch.allclose(transform.inv(x), w, atol=1e-9)
    seen = density.log_prob(x) + transform.log_abs_det_jacobian(w, x)
    assert torch.allclose(seen, _normal(w).reshape(50, -1).sum(1))


@pytest.mark.parametrize("name", ALL)
def test_first_and_second_derivatives_are_exact(name):
    """In reverse, forward and forward-over-reverse mode; of the prior in natural numbers too, as a Hessian needs it."""
    density, transform = ALL[name], white_transform(ALL[name])
    w = whites(density, (2,)).requires_grad_()
    assert torch.autograd.gradcheck(transform, w, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(transform, w, check_fwd_over_rev=True)
    if name != "stick":  # torch's own inverse leaves the simplex under finite differences
        x = transform(w).detach().requires_grad_()
        assert torch.autograd.gradcheck(transform.inv, x, check_forward_ad=True)

    def log_density(w):
        return (
            unvalidated(density).log_prob(transform(w)) + transform.log_abs_det_jacobian(w, transform(w))
        ).sum()

    flat = w.detach()
    found = hessian(log_density)(flat).reshape(flat.numel(), flat.numel())
    assert torch.allclose(found, -torch.eye(flat.numel()), atol=1e-8)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_maps_work_in_batches_and_far_out(name):
    transform = white_transform(ELEMENTWISE[name])
    w = torch.linspace(-8, 8, 33)
    x = transform(w)
    assert torch.equal(vmap(transform)(w), x)
    slopes = vmap(lambda v: jvp(transform, (v,), (torch.ones_like(v),))[1])(w)
    assert torch.isfinite(slopes).all() and (slopes >= 0).all()
    assert (x.diff() >= 0).all()  # beyond 8 neighbouring white numbers may share a float near an end
    # squares of a Cauchy's values overflow beyond, and powers of a Student's
    end = 25.0 if "cauchy" in name or "student" in name else 37.0
    far = transform(torch.tensor([-end, -20.0, 20.0, end]))
    assert torch.isfinite(far).all()
    assert torch.isfinite(unvalidated(ELEMENTWISE[name]).log_prob(far)).all()


@pytest.mark.parametrize("name", ["uniform", "truncated above zero", "half-normal", "exponential", "gumbel"])
def test_single_precision_parameters_do_not_spoil_double_precision_slopes(name):
    """Priors are often written in torch's default dtype while the simulation runs in float64."""
    make = {
        "uniform": lambda: td.Uniform(0.1, 0.7),
        "truncated above zero": lambda: TruncatedNormal(1.1, 0.3, low=0.1),
        "half-normal": lambda: td.HalfNormal(0.3),
        "exponential": lambda: td.Exponential(0.3),
        "gumbel": lambda: td.Gumbel(0.1, 0.7),
    }[name]
    torch.set_default_dtype(torch.float32)
    try:
        transform = white_transform(make())
        single = transform(torch.linspace(-9, 9, 19))
    finally:
        torch.set_default_dtype(torch.float64)
    w = torch.tensor([-2.0, -0.4, 0.0, 0.3, 1.8], requires_grad=True)
    assert transform(w).dtype == torch.float64
    assert torch.autograd.gradcheck(transform, w, rtol=1e-8, atol=1e-9)
    assert single.dtype == torch.float32
    assert torch.isfinite(unvalidated(make()).log_prob(single)).all()


def test_quantiles_in_the_tails_are_those_of_scipy():
    w = torch.linspace(-8, 8, 33)
    lower, upper = stats.norm.cdf(w), stats.norm.sf(w)
    for density, theirs in (
        (td.Exponential(3.0), stats.expon(scale=1 / 3)),
        (td.HalfNormal(2.0), stats.halfnorm(scale=2)),
        (td.Laplace(0.0, 2.0), stats.laplace(0, 2)),
        (td.Gumbel(0.0, 2.0), stats.gumbel_r(0, 2)),
        (td.Cauchy(0.0, 2.0), stats.cauchy(0, 2)),
        (td.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
        (td.Uniform(0.0, 2.0), stats.uniform(0, 2)),
        (td.Gamma(3.0, 2.0), stats.gamma(3, scale=0.5)),
        (td.Beta(2.0, 3.0), stats.beta(2, 3)),
        (td.StudentT(4.0, 0.0, 2.0), stats.t(4, 0, 2)),
    ):
        expected = torch.tensor(
            [theirs.ppf(p) if p < 0.5 else theirs.isf(q) for p, q in zip(lower, upper, strict=True)]
        )
        assert torch.allclose(white_transform(density)(w), expected, rtol=1e-12, atol=1e-15), density


@pytest.mark.parametrize("name", ALL)
def test_draws_follow_the_density_and_only_the_given_generator(name):
    density = ALL[name]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draws = draw(density, torch.Generator().manual_seed(1), (2000,))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws, draw(density, torch.Generator().manual_seed(1), (2000,)))
    assert draws.shape == (2000, *density.batch_shape, *density.event_shape)
    theirs = unvalidated(density).sample((2000,))
    for mine, other in zip(draws.reshape(2000, -1).T, theirs.reshape(2000, -1).T, strict=True):
        assert stats.ks_2samp(mine.numpy(), other.numpy()).pvalue > 1e-5


def test_a_prior_outside_of_its_support_is_zero_also_in_a_batch():
    field = td.TransformedDistribution(FIELD, tt.ExpTransform())
    prior = Prior({"parameters.rate": td.Uniform(0.0, 1.0), "parameters.field": field})
    inside = {"rate": torch.tensor([0.5, 1.5]), "field": torch.ones(2, 6)}
    found = vmap(lambda z: prior.log_density({"parameters": z}))(inside)
    assert torch.isfinite(found[0]) and found[1] == -math.inf
    nowhere = prior.log_density({"parameters": {"rate": torch.tensor(0.5), "field": torch.zeros(6)}})
    assert not torch.isfinite(nowhere)


def test_densities_without_a_quantile_move_freely_on_their_support():
    for density in (td.FisherSnedecor(6.0, 8.0), td.FisherSnedecor(torch.tensor([3.0, 9.0]), 8.0)):
        assert white_transform(density) is None
        transform = free_transform(density)
        state = torch.get_rng_state()
        draws = draw(density, torch.Generator().manual_seed(2), (3,))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.allclose(transform(transform.inv(draws)), draws)
        assert torch.equal(draws, draw(density, torch.Generator().manual_seed(2), (3,)))
    refused = {
        "a Poisson cannot be sought": td.Poisson(3.0),
        "VonMises density repeats itself": td.VonMises(0.0, 2.0),
        "more numbers than freedoms": td.Dirichlet(torch.ones(3)),
    }
    for words, density in refused.items():
        with pytest.raises(UsageError, match=words):
            free_transform(density)


def _normal(w):
    return -0.5 * w.square() - 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize(
    "density",
    [
        TruncatedNormal(torch.tensor([1.0, 0.05, -3.0], dtype=torch.float64), 0.5, low=0.0),
        TruncatedNormal(
            torch.tensor(2.0, dtype=torch.float64), 0.1, high=torch.tensor(1.0, dtype=torch.float64)
        ),
    ],
)
def test_the_table_of_a_normal_cut_on_one_side_is_the_exact_map(density):
    quick = OneSided(density)
    w = torch.linspace(-36, 36, 4001, dtype=torch.float64).reshape(-1, *[1] * density.loc.ndim)
    w = w.expand(-1, *density.batch_shape)
    cut = density.low if torch.isfinite(density.low).all() else density.high
    inside = w[w.abs().reshape(len(w), -1).amax(1) < 9]
    exact = density.from_white(w)
    # the distance from the cut keeps its digits, down to the rounding of the numbers themselves
    allowed = 2e-11 * (exact - cut).abs() + 1e-15 * exact.abs() * (cut != 0)
    assert ((quick(w) - exact).abs() <= allowed).all()
    x = density.from_white(inside)
    torch.testing.assert_close(quick.log_density(x), density.log_prob(x), rtol=1e-12, atol=1e-12)
    # a batch axis that vmap adds is one more axis of entries
    through = white_transform(density)
    torch.testing.assert_close(torch.func.vmap(through, in_dims=0)(inside), through(inside))
