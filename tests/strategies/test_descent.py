"""Optimizers of plain vectors, and the clip: against their definitions, torch's own, and storing."""

import math

import pytest
import torch

from dpcontrol.strategies.learning.descent import OPTIMIZERS, SOAP, Adam, Clip, falling, optimizer

F64 = torch.float64
LAYOUT = {"weight": torch.zeros(3, 4, dtype=F64), "bias": torch.zeros(3, dtype=F64)}


def test_adam_is_torchs():
    point = torch.nn.Parameter(torch.randn(1, 5, dtype=F64))
    theirs, ours, mine = torch.optim.Adam([point], lr=0.1, eps=1e-12), Adam(), point.detach().clone()
    for k in range(20):
        gradient = torch.sin(point.detach() * k) + 0.1
        point.grad = gradient
        mine = mine - 0.1 * ours.direction(gradient)
        theirs.step()
        torch.testing.assert_close(mine, point.detach())


def test_in_soap_biases_and_large_matrices_are_adams():
    layout = {"bias": torch.zeros(4, dtype=F64), "large": torch.zeros(2, 1500, dtype=F64)}
    soap, adam = SOAP(layout), Adam(second=0.99)
    for k in range(5):
        gradient = torch.randn(1, 3004, generator=torch.Generator().manual_seed(k), dtype=F64)
        torch.testing.assert_close(soap.direction(gradient), adam.direction(gradient))


def test_soap_does_not_see_a_rotation_of_what_it_descends_on():
    """In other orthonormal bases of rows and columns it takes the same steps, which Adam does not."""
    generator = torch.Generator().manual_seed(0)

    def turn(n):
        return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=F64))[0]

    left, right = turn(3), turn(4)
    straight, turned = SOAP({"w": LAYOUT["weight"]}), SOAP({"w": LAYOUT["weight"]})
    for _ in range(25):
        gradient = torch.randn(3, 4, generator=generator, dtype=F64)
        step = straight.direction(gradient.reshape(1, -1)).reshape(3, 4)
        other = turned.direction((left @ gradient @ right).reshape(1, -1)).reshape(3, 4)
        # but for a direction in which the first gradient is nothing but rounding
        torch.testing.assert_close(left @ step @ right, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descending_from_what_was_stored_takes_the_same_steps(name):
    gradients = torch.randn(30, 1, 15, generator=torch.Generator().manual_seed(1), dtype=F64)
    whole, first, second = (optimizer(name, LAYOUT) for _ in range(3))
    steps = [whole.direction(gradient) for gradient in gradients]
    for gradient in gradients[:13]:
        first.direction(gradient)
    second.unpack(first.pack())
    for gradient, step in zip(gradients[13:], steps[13:], strict=True):
        assert torch.equal(second.direction(gradient), step)


def test_soap_settles_on_an_ill_conditioned_valley_where_adam_lags_behind():
    """Least squares of a matrix behind a mixing of condition 1000 on both sides."""
    generator = torch.Generator().manual_seed(2)

    def mixing(n):
        bases = [torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=F64))[0] for _ in range(2)]
        return bases[0] @ torch.diag(torch.logspace(0, -1.5, n, dtype=F64)) @ bases[1]

    left, right = mixing(8), mixing(8)
    wanted = torch.randn(8, 8, generator=generator, dtype=F64)
    losses = {}
    for name in OPTIMIZERS:
        weights, descent = torch.zeros(1, 64, dtype=F64), optimizer(name, {"w": torch.zeros(8, 8, dtype=F64)})
        for k in range(300):
            off = left @ (weights.reshape(8, 8) - wanted) @ right
            gradient = (left.T @ off @ right.T).reshape(1, -1)
            weights = weights - 0.1 * falling(k / 300) * descent.direction(gradient)
        losses[name] = float(off.square().sum())
    assert losses["soap"] < 0.1 * losses["adam"], losses


def test_kernels_of_convolutions_are_matrices():
    layout = {"kernel": torch.zeros(6, 2, 5, dtype=F64)}
    gradient = torch.randn(1, 60, generator=torch.Generator().manual_seed(3), dtype=F64)
    flat = SOAP({"kernel": torch.zeros(6, 10, dtype=F64)})
    assert torch.equal(SOAP(layout).direction(gradient), flat.direction(gradient))


def test_the_clip_shortens_to_a_multiple_of_what_is_usual_and_counts():
    clip = Clip(3.0)
    assert [clip.shortened(2.0) for _ in range(10)] == pytest.approx([1.0] * 10)
    assert clip.shortened(600.0) == pytest.approx(6.0 / 600)
    # one explosion lifts what is usual by a fiftieth of the way to what was used of it
    assert clip.shortened(600.0) == pytest.approx(6.0 * 3 ** (1 / 50) / 600)
    assert clip.words() == "the gradient was clipped in 17% of 12 iterations"
    again = Clip(3.0)
    again.unpack(clip.pack())
    assert again.shortened(50.0) == clip.shortened(50.0)


def test_the_rate_falls_along_half_a_cosine():
    assert [falling(done) for done in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert falling(0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
