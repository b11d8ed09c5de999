"""Noise models against torch's densities, their draws, and the covariance of their score."""

import math

import pytest
import torch
from scipy import stats

from dpcontrol.problem.noise import Gaussian, LogNormal, StudentT
from dpcontrol.results import UsageError

F64 = torch.float64
MODELS = {
    "gaussian": lambda scale: Gaussian(scale),
    "log-normal": lambda scale: LogNormal(scale),
    "student-t": lambda scale: StudentT(scale, 3.5),
}
EXPECTED = {
    "gaussian": lambda mean, scale: torch.distributions.Normal(mean, scale),
    "log-normal": lambda mean, scale: torch.distributions.LogNormal(mean.log(), scale),
    "student-t": lambda mean, scale: torch.distributions.StudentT(3.5, mean, scale),
}
each = pytest.mark.parametrize("name", MODELS)
FALSE_ALARM = 1e-4  # of each statistical test here


def entries(seed=0, shape=(4, 2, 3)):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(shape, generator=generator, dtype=F64)


@each
@pytest.mark.parametrize("unknown", [False, True])
def test_log_densities_are_those_of_torch(name, unknown):
    data, prediction = entries(1), entries(2)
    scale = torch.tensor([0.2, 0.5, 1.5], dtype=F64)
    z = {"observation": {"s": scale}} if unknown else {}
    found = MODELS[name]("s" if unknown else scale).log_density(data, prediction, z)
    torch.testing.assert_close(
        found, EXPECTED[name](prediction, scale).log_prob(data), rtol=1e-12, atol=1e-12
    )


@each
def test_what_is_not_measured_has_no_density_and_no_gradient(name):
    data, prediction = entries(1), entries(2)
    whole = MODELS[name](0.3).log_density(data, prediction, {})
    gap = torch.zeros_like(data, dtype=torch.bool)
    gap[0, 1, :2] = gap[2] = True
    # whatever is predicted there, be it outside the support
    strange = torch.where(gap, torch.tensor([-1.0, torch.inf, 0.0], dtype=F64), prediction).requires_grad_()
    scale = torch.tensor(0.3, dtype=F64, requires_grad=True)
    z = {"observation": {"s": scale}}
    found = MODELS[name]("s").log_density(data.masked_fill(gap, torch.nan), strange, z)
    torch.testing.assert_close(found, whole.masked_fill(gap, 0.0))
    assert (found[gap] == 0).all()
    slopes = torch.autograd.grad(found.sum(), (strange, scale))
    assert (slopes[0][gap] == 0).all() and slopes[0].isfinite().all() and slopes[1].isfinite()


@each
def test_draws_follow_the_density(name):
    generator = torch.Generator().manual_seed(3)
    mean, scale = torch.full((20_000,), 1.3, dtype=F64), 0.4
    drawn = MODELS[name](scale).sample(mean, {}, generator)
    theirs = {
        "gaussian": stats.norm(1.3, scale),
        "log-normal": stats.lognorm(scale, scale=1.3),
        "student-t": stats.t(3.5, 1.3, scale),
    }[name]
    assert stats.kstest(drawn.numpy(), theirs.cdf).pvalue > FALSE_ALARM
    again = MODELS[name](scale).sample(mean, {}, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, again)


@each
@pytest.mark.parametrize("way", [torch.func.jacfwd, torch.func.jacrev], ids=["forward", "reverse"])
def test_the_fisher_root_gives_the_covariance_of_the_score(name, way):
    # mean = (a, a + b) with a common scale: three unknowns in all, and draws at the truth
    truth = torch.tensor([1.1, 0.6, math.log(0.35)], dtype=F64)
    model = MODELS[name]("s")

    def predicted(x):
        return torch.stack([x[0], x[0] + x[1].square()])[None], {"observation": {"s": x[2].exp()}}

    def score(x, data):
        return torch.func.grad(lambda p: model.log_density(data, *predicted(p)).sum())(x)

    count = 40_000
    mean, z = predicted(truth)
    data = model.sample(mean.expand(count, 2), z, torch.Generator().manual_seed(5))[:, None]
    scores = torch.func.vmap(score, (None, 0))(truth, data)
    roots = way(lambda x: torch.stack(model.fisher_root(*predicted(x))))(truth).reshape(-1, 3)
    information = roots.T @ roots
    # in coordinates where the information is the identity: every entry's mean has a standard error
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(information), scores.T, upper=False).T
    assert information[2, :2].abs().max() < 1e-12
    products = white[:, :, None] * white[:, None, :]
    surprise = (products.mean(0) - torch.eye(3, dtype=F64)).abs() / (products.std(0) / math.sqrt(count))
    assert surprise.max() < stats.norm.isf(FALSE_ALARM / 2 / 6)
    assert (white.mean(0).abs() * math.sqrt(count)).max() < stats.norm.isf(FALSE_ALARM / 2 / 3)


@each
def test_a_known_scale_has_one_root_which_standardises_the_data(name):
    mean, scale = entries(4, (3000, 2, 2)), torch.tensor([0.2, 1.4], dtype=F64)
    model = MODELS[name](scale)
    assert len(model.fisher_root(mean, {})) == 1
    assert model.standard == (name != "student-t") and not MODELS[name]("s").standard
    if model.standard:
        data = model.sample(mean, {}, torch.Generator().manual_seed(1))
        standard = model.fisher_root(data, {})[0] - model.fisher_root(mean, {})[0]
        assert stats.kstest(standard.flatten().numpy(), "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(0.0), r"Gaussian\(scale=...\) must be a positive number or tensor, or the name"),
        (lambda: LogNormal(torch.tensor([1.0, torch.nan])), r"LogNormal\(scale=...\) must be a positive"),
        (lambda: StudentT(-1.0, 3), r"StudentT\(scale=...\) must be a positive"),
        (lambda: StudentT(1.0, 0), r"StudentT\(degrees=...\) must be a positive number; found 0"),
        (lambda: Gaussian("s").log_density(entries(), entries(), {}), "'s' is not among the unknown scales"),
    ],
)
def test_impossible_models_are_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()
