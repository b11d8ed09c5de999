"""Safe primitives: at the corner every derivative is finite, away from it nothing has changed."""

import math

import pytest
import torch

import dpcontrol as dp
from dpcontrol import safe

F64 = torch.float64
ZERO, PAIR = torch.zeros(3, dtype=F64), torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]], dtype=F64)
CORNERS = {
    "sqrt": (safe.sqrt, (torch.tensor([0.0, -1.0, 4.0], dtype=F64),)),
    "norm": (safe.norm, (PAIR,)),
    "power 1/2": (lambda x: safe.absolute_power(x, 0.5), (torch.tensor([0.0, -4.0, 9.0], dtype=F64),)),
    "power 1": (lambda x: safe.absolute_power(x, 1.0), (torch.tensor([0.0, -4.0, 9.0], dtype=F64),)),
    "power 1.5": (lambda x: safe.absolute_power(x, 1.5), (torch.tensor([0.0, -4.0, 9.0], dtype=F64),)),
    "divide": (
        safe.divide,
        (torch.tensor([0.0, 1.0, 2.0], dtype=F64), torch.tensor([0.0, 0.0, 4.0], dtype=F64)),
    ),
    "log": (safe.log, (torch.tensor([0.0, -1.0, 2.0], dtype=F64),)),
    "minmod": (safe.minmod, (ZERO, torch.tensor([0.0, 1.0, -1.0], dtype=F64))),
    "van Leer": (
        safe.van_leer,
        (torch.tensor([0.0, 1.0, 0.0], dtype=F64), torch.tensor([0.0, -1.0, 2.0], dtype=F64)),
    ),
    "van Albada": (
        lambda a, b: safe.van_albada(a, b, 0.0),
        (ZERO, torch.tensor([0.0, 1.0, -1.0], dtype=F64)),
    ),
    "van Albada, smooth": (lambda a, b: safe.van_albada(a, b, 1e-3), (ZERO, ZERO)),
}
PLAIN = {
    "sqrt": torch.sqrt,
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "power 1/2": lambda x: x.abs() ** 0.5,
    "power 1": lambda x: x.abs() ** 1.0,
    "power 1.5": lambda x: x.abs() ** 1.5,
    "divide": lambda a, b: a / b,
    "log": torch.log,
    "minmod": lambda a, b: 0.5 * (a.sign() + b.sign()) * torch.minimum(a.abs(), b.abs()),
    "van Leer": lambda a, b: torch.where(a * b > 0, 2 * a * b / (a + b), 0.0),
    "van Albada": lambda a, b: a * b * (a + b) / (a * a + b * b),
    "van Albada, smooth": lambda a, b: (a * b + 1e-3) * (a + b) / (a * a + b * b + 2e-3),
}


@pytest.mark.parametrize("name", CORNERS)
def test_all_derivatives_are_finite_at_the_corner(name):
    function, values = CORNERS[name]
    arguments = tuple(value.clone().requires_grad_() for value in values)
    result = function(*arguments)
    first = torch.autograd.grad(result.sum(), arguments, create_graph=True)
    total = sum(g.square().sum() + g.sum() for g in first)
    second = torch.autograd.grad(total, arguments, materialize_grads=True) if total.requires_grad else ()
    tangents = tuple(torch.ones_like(value) for value in values)
    _, along = torch.func.jvp(function, values, tangents)
    # forward over reverse, as in a Hessian product
    _, mixed = torch.func.jvp(
        torch.func.grad(lambda *a: function(*a).sum(), argnums=tuple(range(len(values)))), values, tangents
    )
    for tensor in (result, *first, *second, along, *mixed):
        assert torch.isfinite(tensor).all()
    torch.testing.assert_close(along.sum(), sum(g.sum() for g in first))


@pytest.mark.parametrize("name", [name for name in CORNERS if "smooth" not in name])
def test_the_derivative_at_the_corner_is_zero(name):
    function, values = CORNERS[name]
    arguments = tuple(value[:1].clone().requires_grad_() for value in values)
    for gradient in torch.autograd.grad(function(*arguments).sum(), arguments):
        assert not gradient.any()


@pytest.mark.parametrize("name", CORNERS)
def test_away_from_the_corner_nothing_changes(name):
    function, values = CORNERS[name]
    generator = torch.Generator().manual_seed(3)
    signs = -1.0 if "power" in name or len(values) == 2 else 1.0
    points = []
    for i, value in enumerate(values):
        point = torch.rand(6, *value.shape[1:], generator=generator, dtype=F64) + 0.3 + 0.01 * i
        turned = torch.tensor([1.0, 1, signs, signs, 1, 1], dtype=F64)
        points.append(point * turned.reshape(-1, *[1] * (point.ndim - 1)))
    torch.testing.assert_close(function(*points), PLAIN[name](*points), rtol=1e-15, atol=0)
    arguments = tuple(point.requires_grad_() for point in points)
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_the_plain_ones_do_fail_there():
    """Or there would be nothing to be safe from."""
    for name in ("sqrt", "power 1/2", "divide", "log", "van Leer", "van Albada"):
        arguments = tuple(value.clone().requires_grad_() for value in CORNERS[name][1])
        gradients = torch.autograd.grad(PLAIN[name](*arguments).sum(), arguments)
        assert not all(torch.isfinite(g).all() for g in gradients)


def test_the_square_keeps_its_second_derivative():
    hessian = torch.func.hessian(lambda x: safe.absolute_power(x, 2).sum())(torch.zeros(2, dtype=F64))
    torch.testing.assert_close(hessian, 2 * torch.eye(2, dtype=F64))


def test_tiny_and_huge_numbers():
    small = torch.tensor([[3e-200, 4e-200], [3e200, 4e200]], dtype=F64, requires_grad=True)
    found = safe.norm(small)
    assert found.tolist() == pytest.approx([5e-200, 5e200], rel=1e-15)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), small)[0], torch.tensor([[0.6, 0.8]] * 2, dtype=F64)
    )
    tiny = torch.tensor([1e-200], dtype=F64)
    assert safe.minmod(tiny, 2 * tiny).item() == 1e-200
    assert safe.van_leer(tiny, tiny).item() == pytest.approx(1e-200, rel=1e-15)
    assert safe.log(torch.zeros(1, dtype=F64), floor=0.5).item() == pytest.approx(math.log(0.5))
    assert torch.isnan(safe.sqrt(torch.tensor([float("nan")])))


def test_norms_over_several_axes():
    x = torch.arange(24, dtype=F64).reshape(2, 3, 4)
    torch.testing.assert_close(safe.norm(x, (1, 2)), torch.linalg.vector_norm(x, dim=(1, 2)))
    assert safe.norm(x, 1, keepdim=True).shape == (2, 1, 4)


def test_limiters_are_symmetric_and_between_their_slopes():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1000, generator=generator, dtype=F64)
    for limiter in (safe.minmod, safe.van_leer, lambda a, b: safe.van_albada(a, b, 0.0)):
        torch.testing.assert_close(limiter(a, b), limiter(b, a))
        torch.testing.assert_close(limiter(-a, -b), -limiter(a, b))
        torch.testing.assert_close(limiter(3 * a, 3 * b), 3 * limiter(a, b))
        torch.testing.assert_close(limiter(a, a), a)
        same = a * b > 0
        assert (limiter(a, b).abs() <= 2 * torch.minimum(a.abs(), b.abs()) + 1e-15)[
            same
        ].all() or limiter is not safe.van_leer
    assert not safe.minmod(a, b)[a * b < 0].any() and not safe.van_leer(a, b)[a * b < 0].any()


def test_a_problem_that_stands_on_a_corner_gets_its_gradient():
    """The start guess sits where a bare norm would make every gradient NaN."""

    def posed(norm):
        return dp.control_problem(
            lambda x, u: x + u - 0.1 * x * norm(x)[:, None],
            initial_state=torch.zeros(2, 3, dtype=F64),
            horizon=4,
            objective=dp.reach(torch.ones(3)) + dp.effort(),
            control=dp.ControlSequence(3),
        )

    plain = dp.solve(posed(lambda x: x.square().sum(1).sqrt()), "lbfgs")
    good = dp.solve(posed(safe.norm), "lbfgs")
    assert plain.status.failed and "the adjoint of state is not finite at step" in plain.status.sentence
    assert good.status.kind == "converged" and good.losses.isfinite().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: safe.absolute_power(x, -1.0),
        lambda x: safe.log(x, floor=0.0),
        lambda x: safe.van_albada(x, x, -1.0),
    ],
)
def test_wrong_numbers_are_refused(call):
    with pytest.raises(ValueError, match="found"):
        call(torch.ones(2))
