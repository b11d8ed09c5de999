"""Networks on grids: which shifts they commute with, what lies outside of the grid, and how large they are."""

from functools import partial

import pytest
import torch

from dpcontrol.nets import ConvNet, FluxNet, Pad, UNet, parameter_count

F64 = torch.float64
ROUND = {
    "residual": partial(ConvNet, padding="circular", width=4, depth=2, growth=1, gain=1.0),
    "dilated": partial(ConvNet, padding="circular", width=4, depth=2, gain=1.0),
    "each axis": partial(ConvNet, width=4, depth=2, gain=1.0),
    "unet": partial(UNet, padding="circular", width=4, levels=2, gain=1.0),
}


def made(name, dimensions):
    torch.manual_seed(0)
    options = {"padding": ("circular",) * dimensions} if name == "each axis" else {}
    return ROUND[name](2, 3, dimensions=dimensions, **options).double()


def field(dimensions, cells=8):
    return torch.randn(2, 2, *[cells] * dimensions, generator=torch.Generator().manual_seed(1), dtype=F64)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("name", ROUND)
def test_networks_on_periodic_grids_commute_with_shifts(name, dimensions):
    network, x = made(name, dimensions), field(dimensions)
    stride = 4 if name == "unet" else 1
    with torch.no_grad():
        y = network(x)
        assert y.shape == (2, 3, *x.shape[2:])
        for axis in range(2, x.ndim):
            torch.testing.assert_close(
                network(x.roll(stride, axis)), y.roll(stride, axis), rtol=0, atol=1e-13
            )
        if name == "unet":  # by less than its stride it does not
            assert float((network(x.roll(1, 2)) - y.roll(1, 2)).abs().max()) > 1e-6


def test_padding_axis_by_axis_is_that_of_torch():
    x = field(2)
    for kind in ("zeros", "circular", "replicate", "reflect"):
        torch.manual_seed(0)
        theirs = torch.nn.Conv2d(2, 3, 3, padding=2, dilation=2, padding_mode=kind).double()
        padded = Pad((kind, kind), 2)(x)
        ours = torch.nn.functional.conv2d(padded, theirs.weight, theirs.bias, dilation=2)
        torch.testing.assert_close(ours, theirs(x), rtol=0, atol=1e-13)


def test_a_channel_with_walls_is_periodic_along_its_axis_only():
    torch.manual_seed(0)
    network, x = (
        ConvNet(2, 1, dimensions=2, width=4, depth=1, padding=("circular", "replicate")).double(),
        field(2),
    )
    with torch.no_grad():
        y = network(x)
        torch.testing.assert_close(network(x.roll(3, 2)), y.roll(3, 2), rtol=0, atol=1e-13)
        assert float((network(x.roll(3, 3)) - y.roll(3, 3)).abs().max()) > 1e-6
    with pytest.raises(ValueError, match="one entry for each of the 2 axes"):
        ConvNet(2, 1, dimensions=2, padding=("circular",))


def test_an_untrained_network_says_little_and_its_size_is_known():
    plain = ConvNet(3, 2, dimensions=2, width=32, depth=3, kernel=5, padding="zeros")
    convolution = 32 * 32 * 25 + 32
    assert parameter_count(plain) == 3 * 32 * 25 + 32 + 6 * convolution + 32 * 2 + 2
    small = UNet(1, 1, width=2, levels=1, kernel=3)
    assert parameter_count(small) == (6 + 2 + 12 + 2) + (24 + 4 + 48 + 4) + (36 + 2 + 12 + 2) + (2 + 1)
    for network in (plain, UNet(3, 2, dimensions=2)):
        assert float(network(torch.randn(1, 3, 16, 16)).detach().abs().max()) < 0.5


def test_a_unet_takes_grids_of_odd_numbers_of_cells():
    network = UNet(1, 1, dimensions=2, width=2, levels=2, padding="replicate")
    assert network(torch.zeros(1, 1, 9, 14)).shape == (1, 1, 9, 14)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("carried", [False, True])
def test_learned_fluxes_conserve_leave_constants_alone_and_commute_with_shifts(dimensions, carried):
    torch.manual_seed(0)
    speeds = dimensions if carried else 0
    network = FluxNet(
        3 + speeds, 2, dimensions=dimensions, reach=2, carried=carried, width=4, gain=1.0
    ).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3 + speeds, *[8] * dimensions, generator=generator, dtype=F64)
    with torch.no_grad():
        y = network(x)
        assert y.shape == (2, 2, *x.shape[2:]) and float(y.abs().max()) > 1e-3
        torch.testing.assert_close(y.flatten(2).sum(2), torch.zeros(2, 2, dtype=F64), rtol=0, atol=1e-12)
        for axis in range(2, x.ndim):
            torch.testing.assert_close(network(x.roll(1, axis)), y.roll(1, axis), rtol=0, atol=1e-12)
        x[:, :2] = 1.7
        assert not bool(network(x).any())


def test_learned_fluxes_are_those_of_their_weights():
    """Constant weights make a stencil: f = g_{-1} (x_i - x_{i-1}) + g_0 (x_{i+1} - x_i) + g_1 (x_{i+2} - x_{i+1})."""
    network = FluxNet(2, 1, carried=True, width=2, depth=0).double()
    with torch.no_grad():
        network.weights.last.weight.zero_()
        network.weights.last.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 1.0, 2.0, 3.0]))
        x = torch.randn(1, 2, 7, generator=torch.Generator().manual_seed(0), dtype=F64)
        u, c = x[0]
        flux = sum((0.1 + c) * k * (u.roll(1 - k) - u.roll(2 - k)) for k in (1, 2, 3))
        torch.testing.assert_close(network(x)[0, 0], flux - flux.roll(1))
