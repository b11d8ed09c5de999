"""The periodic box: its transform, wavenumbers, kept modes."""

import math

import pytest
import torch

from dpcontrol.sim.spectral import PeriodicBox

F64 = torch.float64
SHAPES = [(6,), (5,), (4, 6), (5, 4), (6, 5), (4, 4, 5)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_and_back_and_parseval(shape):
    box = PeriodicBox(shape, (1.0,) * len(shape))
    field = random(2, *shape)
    spectrum = box.forward(field)
    torch.testing.assert_close(box.inverse(spectrum), field, rtol=0, atol=1e-13)
    last = box.modes()[-1]
    twice = 2.0 - (last == 0).double() - (2 * last == shape[-1]).double()
    power = (spectrum.abs().square() * twice).flatten(1).sum(1) / box.points
    torch.testing.assert_close(power, field.square().flatten(1).sum(1))


def test_wavenumbers_differentiate_waves_and_odd_ones_drop_the_nyquist_mode():
    box = PeriodicBox((8, 6), (2.0, 3.0))
    x, y = box.grid()
    wave = torch.sin(math.pi * x) * torch.cos(2 * math.pi * y / 3)
    kx, ky = box.wavenumbers(odd=True)
    slope = math.pi * torch.cos(math.pi * x) * torch.cos(2 * math.pi * y / 3)
    torch.testing.assert_close(box.inverse(1j * kx * box.forward(wave)), slope)
    curved = -(math.pi**2 + (2 * math.pi / 3) ** 2) * wave
    torch.testing.assert_close(box.inverse(-box.squared_wavenumber() * box.forward(wave)), curved)
    assert float(kx[4]) == 0 and float(ky[0, 3] if ky.ndim == 2 else ky[3]) == 0
    assert box.wavenumbers()[0].abs().max() == 4 * math.pi


@pytest.mark.parametrize(
    ("cells", "fraction", "largest"), [(12, 2 / 3, 3), (13, 2 / 3, 4), (16, 0.5, 3), (8, 1, 4)]
)
def test_kept_modes_are_those_that_no_product_aliases_into(cells, fraction, largest):
    box = PeriodicBox((cells,), (1.0,))
    (modes,) = box.modes()
    kept = box.kept(fraction).expand_as(modes)
    assert int(modes[kept > 0].max()) == largest
    field = random(2, cells)
    torch.testing.assert_close(
        box.project(box.project(field, fraction), fraction), box.project(field, fraction)
    )
