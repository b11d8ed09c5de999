"""Gaussian fields: closed-form covariances, the same field on every mesh, and densities against dense ones."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from precision import double_precision  # noqa: F401
from scipy.special import gamma, kv
from taylor import taylor_rates
from torch.distributions import ExpTransform, MultivariateNormal, Normal, TransformedDistribution
from torch.func import jvp, vmap

from dpcontrol.problem import (
    Gaussian,
    GaussianField,
    Points,
    UsageError,
    draw_prior,
    inference_problem,
    observe,
)
from dpcontrol.problem.white import white_transform

SIDES = ["periodic", "neumann", "dirichlet", (("neumann", "dirichlet"),), (("dirichlet", "neumann"),)]
NUGGET = 4e-12  # variances of modes are kept above 1.8e-12


def covariance(field):
    """Dense, from the columns of the linear map."""
    n = field.event_shape.numel()
    columns = (field.unwhiten(torch.eye(n).reshape(n, *field.event_shape)) - field.mean).reshape(n, n)
    return columns.T @ columns


def matern(r, length_scale, nu):
    if math.isinf(nu):
        return math.exp(-0.5 * (r / length_scale) ** 2)
    z = math.sqrt(2 * nu) * r / length_scale
    return 2 ** (1 - nu) / gamma(nu) * z**nu * kv(nu, z) if r else 1.0


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.0, 1.5, 2.5, 7.0, 60.0, math.inf])
def test_covariance_in_a_large_box_is_the_closed_form(nu):
    field = GaussianField((240,), (10.0,), length_scale=0.3, smoothness=nu, sd=2.0)
    found = covariance(field)
    assert torch.allclose(found.diagonal(), torch.tensor(4.0), rtol=NUGGET)
    lags = [(j, 4 * matern(j * 10 / 240, 0.3, nu)) for j in (1, 2, 5, 9, 20, 50)]
    assert all(abs(float(found[17, 17 + j]) - expected) < 1e-8 for j, expected in lags)


def test_covariance_in_the_plane_with_a_length_scale_for_each_axis():
    field = GaussianField((40, 30), (8.0, 6.0), length_scale=(0.5, 0.25), smoothness=1.0)
    row = field.unwhiten(white_of_a_cell(field))
    for i, j in [(0, 0), (1, 0), (0, 1), (2, 1), (3, 3)]:
        r = math.hypot(i * 0.2 / 0.5, j * 0.2 / 0.25)
        assert float(row[i, j]) == pytest.approx(matern(r, 1.0, 1.0), abs=1e-6)


def white_of_a_cell(field):
    """White numbers whose field is the covariance with the first cell: ``C = A A^T``, by the adjoint."""
    w = torch.zeros(field.event_shape, requires_grad=True)
    return torch.autograd.grad(field.unwhiten(w)[(0,) * w.dim()], w)[0]


def test_exponential_covariance_is_a_first_order_autoregression_to_all_digits():
    """In one dimension with nu = 1/2: variances of modes are those of AR(1), and none is lost to rounding."""
    n, length, scale = 4096, 200.0, 0.5
    field = GaussianField((n,), (length,), length_scale=scale, smoothness=0.5)
    a = math.exp(-length / n / scale)
    angle = 2 * math.pi * torch.arange(n) / n
    expected = (1 - a**2) / (1 - 2 * a * torch.cos(angle) + a**2)
    assert torch.allclose(field.mode_variances, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("nu", [0.5, 1.5, math.inf])
def test_cells_of_any_mesh_see_the_same_field(sides, nu):
    """A mesh three times finer contains the coarse centres: the same covariance there, aliases and all."""
    scale = 0.5 if nu < 2 else 0.2
    coarse, fine = (
        GaussianField((n,), (2.0,), length_scale=scale, smoothness=nu, boundary=sides, sd=1.5)
        for n in (20, 60)
    )
    assert torch.allclose(covariance(coarse), covariance(fine)[1::3, 1::3], atol=1e-11)
    assert torch.allclose(coarse.stddev, covariance(coarse).diagonal().sqrt())
    assert torch.allclose(coarse.stddev, fine.stddev[1::3], atol=1e-9)


@pytest.mark.parametrize("sides", [("periodic", "neumann"), ("dirichlet", ("neumann", "dirichlet"))])
def test_refinement_in_the_plane(sides):
    coarse, fine = (
        GaussianField((m, n), (2.0, 1.0), length_scale=0.4, smoothness=1.0, boundary=sides)
        for m, n in ((6, 5), (18, 15))
    )
    cells = torch.arange(18 * 15).reshape(18, 15)[1::3, 1::3].reshape(-1)
    assert torch.allclose(covariance(coarse), covariance(fine)[cells][:, cells], atol=1e-11)
    assert torch.allclose(coarse.variance.reshape(-1), covariance(coarse).diagonal())


def test_standard_deviation_at_walls_is_what_the_text_says():
    n, scale = 200, 0.2
    for boundary, sign in (("neumann", 1), ("dirichlet", -1)):
        field = GaussianField((n,), (4.0,), length_scale=scale, smoothness=1.5, boundary=boundary, sd=0.7)
        s = (torch.arange(n) + 0.5) * 4 / n
        for j in (0, 3, 10, 20, 100):
            expected = 0.49 * (1 + sign * matern(2 * float(s[j]), scale, 1.5))
            assert float(field.variance[j]) == pytest.approx(expected, rel=1e-9)
    assert float(field.stddev[n // 2]) == pytest.approx(0.7, rel=1e-9)


@pytest.mark.parametrize("sizes", [(7,), (150,), (5, 6), (3, 4, 2)])
@pytest.mark.parametrize("boundary", ["periodic", "neumann", "dirichlet"])
def test_log_density_is_that_of_the_dense_covariance(sizes, boundary):
    generator = torch.Generator().manual_seed(len(sizes))
    mean = torch.randn(sizes, generator=generator)
    sd = torch.rand(sizes, generator=generator) + 0.5
    lengths = (2.0,) * len(sizes)
    field = GaussianField(
        sizes, lengths, length_scale=0.3, smoothness=0.5, boundary=boundary, mean=mean, sd=sd
    )
    white = torch.randn(3, *sizes, generator=generator)
    x = field.unwhiten(white)
    assert torch.allclose(field.whiten(x), white, atol=1e-10)
    dense = MultivariateNormal(mean.reshape(-1), covariance(field))
    assert torch.allclose(field.log_prob(x), dense.log_prob(x.reshape(3, -1)), rtol=1e-9)
    assert torch.allclose(field.variance.reshape(-1), dense.variance)
    transform = white_transform(field)
    assert transform.log_abs_det_jacobian(white, x).shape == (3,)


def test_batches_derivatives_and_pickling():
    field = GaussianField((130, 3), (2.0, 1.0), length_scale=0.3, boundary=("neumann", "periodic"))
    w = torch.randn(4, 130, 3, generator=torch.Generator().manual_seed(0))
    x = field.unwhiten(w)
    assert torch.allclose(vmap(field.unwhiten)(w), x)
    moved = vmap(lambda v: jvp(field.unwhiten, (v,), (v,))[1])(w)
    assert torch.allclose(moved, x - field.mean)
    slope = vmap(torch.func.grad(field.log_prob))(x)
    assert torch.allclose(slope, vmap(lambda v: _slope(field, v))(w), atol=1e-8)
    small = GaussianField((4, 3), (2.0, 1.0), length_scale=0.3, boundary="dirichlet")
    assert min(taylor_rates(small.log_prob, small.sample(), largest=0.1)) > 1.99
    again = pickle.loads(pickle.dumps(field))
    assert torch.equal(again.unwhiten(w), x)
    assert field.expand((5,)).sample((2,)).shape == (2, 5, 130, 3)


def _slope(field, w):
    """``d log p / d x = -A^-T w``."""
    _, pull = torch.func.vjp(field.whiten, field.unwhiten(w))
    return pull(-w)[0]


def test_single_precision_follows_the_mean():
    field = GaussianField(
        (64,), (1.0,), length_scale=0.1, smoothness=2.5, mean=torch.tensor(1.0, dtype=torch.float32)
    )
    w = torch.randn(64, dtype=torch.float32)
    assert field.unwhiten(w).dtype == torch.float32
    assert torch.allclose(field.whiten(field.unwhiten(w)), w, atol=1e-2)
    assert GaussianField((64,), (1.0,), length_scale=0.1).unwhiten(w).dtype == torch.float32


def test_positive_fields_are_inferred_in_white_numbers():
    """A conductivity that is the exponential of a field, with a forcing field beside it, seen by points."""
    cells = 24

    def step(u, control, *, parameters):
        k = parameters["conductivity"]
        flux = 0.5 * (k[..., 1:] + k[..., :-1]) * u.diff(dim=-1)
        gain = torch.nn.functional.pad(flux, (0, 1)) - torch.nn.functional.pad(flux, (1, 0))
        return u + 0.1 * gain + 0.01 * parameters["source"]

    def field(sd):
        return GaussianField(cells, 1.0, length_scale=0.3, sd=sd, boundary="neumann")

    problem = inference_problem(
        step,
        data=torch.linspace(-1, 1, 8).reshape(2, 1, 4),
        observation=observe(Points([0.1, 0.3, 0.6, 1.0], 1.0), noise=Gaussian(0.1), steps=[3, 6]),
        initial_state=torch.zeros(1, cells),
        horizon=6,
        prior={
            "conductivity": TransformedDistribution(field(0.5), ExpTransform()),
            "source": field(3.0),
        },
    )
    assert problem.prior.white
    free = problem.unknown.free(draw_prior(problem, torch.Generator().manual_seed(0)))
    assert min(taylor_rates(problem.log_density, free, largest=0.1)) > 1.95
    whites = torch.stack((free["parameters"]["conductivity"], free["parameters"]["source"]))
    found = problem.log_density(free) - problem.log_likelihood(problem.unknown.natural(free))
    assert float(found) == pytest.approx(float(Normal(0.0, 1.0).log_prob(whites).sum()))


def test_a_row_of_cells_is_named_by_numbers_and_shown_in_words():
    field = GaussianField(8, 1.0, length_scale=0.2, boundary="neumann")
    assert field.event_shape == (8,)
    assert repr(field) == (
        "GaussianField((8,), (1.0,), length_scale=0.2, smoothness=1.5, boundary='neumann')"
    )


def test_what_makes_no_field_is_refused():
    def asked(**changed):
        given = {"sizes": (8,), "lengths": (1.0,), "length_scale": 0.2, **changed}
        return GaussianField(given.pop("sizes"), given.pop("lengths"), **given)

    for changed, words in (
        ({"sizes": (8, 8, 8, 8)}, "one to three axes"),
        ({"lengths": (1.0, 2.0)}, "lengths needs one positive length for each of the 1 axes"),
        ({"length_scale": -1.0}, "length_scale must be a positive length"),
        ({"smoothness": 0.0}, "smoothness must be at least 0.05"),
        ({"boundary": "open"}, 'boundary is "periodic", "neumann" or "dirichlet"'),
        ({"boundary": ("periodic", "periodic")}, "boundary needs one entry for each of the 1 axes"),
        ({"sd": 0.0}, "the standard deviation of a field must be positive"),
        ({"mean": torch.zeros(3)}, "mean is a number or a tensor of the grid's shape"),
    ):
        with pytest.raises(UsageError, match=words):
            asked(**changed)
    with pytest.raises(UsageError, match="lives on \\(8,\\) cells; found a tensor of shape \\(2, 7\\)"):
        asked().whiten(torch.zeros(2, 7))
