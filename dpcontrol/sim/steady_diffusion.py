"""The steady diffusion equation with a coefficient that varies from place to place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg import VariablePoisson, on_faces, variable_poisson
from dpcontrol.results import UsageError
from dpcontrol.sim.function import Steady
from dpcontrol.sim.sides import FixedFlux, FixedValue, Periodic
from dpcontrol.sim.walls import WalledBox

ScalarSides = Periodic | str | tuple[FixedValue | FixedFlux, FixedValue | FixedFlux]


def steady_diffusion(
    cells: tuple[int, ...],
    *,
    lengths: tuple[float, ...] | None = None,
    sides: tuple[ScalarSides, ...] | None = None,
    log_coefficient: float | Tensor = 0.0,
    source: float | Tensor = 1.0,
) -> Steady:
    r"""Temperature (or pressure, or potential) at rest, as a system without time.

    .. math:: -\nabla \cdot (a \nabla u) = f, \qquad u = g \text{ or } \partial_n u = g \text{ on each side}

    ===========  ===================  =================================================
    symbol       name                 unit (SI for heat)
    ===========  ===================  =================================================
    ``u``        state                temperature, K
    ``ln a``     log_coefficient      conductivity ``a``, W/(m K)
    ``f``        source               heating, W/m^3
    ===========  ===================  =================================================

    **State**: ``(scenarios, *cells)``, values in cell centres. **Parameters**: both in the cells ``(*cells)``, or in
    blocks ``(*blocks)`` that divide the cells evenly, or numbers ``()``; each with a leading axis where scenarios
    differ: ``(scenarios, *blocks)``.

    **Scheme**: fluxes between cells with the harmonic mean of ``a`` (layers in series are exact, jumps allowed), second
    order where ``a`` is smooth (measured 2.0). Conjugate gradients with a multigrid cycle, a dozen iterations for any
    number of cells; the derivative in ``ln a`` and ``f`` is one more solve, never the iterations. Scenarios that do not
    converge are NaN, so that a search takes them for bad candidates. Without a fixed value anywhere, what flows in
    altogether must be zero: the mean of the sources is ignored, and that of ``u`` is zero.

    **Source**: P. Wesseling, "An Introduction to Multigrid Methods" (1992), chapter 3 (cell-centred finite volumes).

    **Good values**: ``steady_diffusion((64, 64), log_coefficient=torch.zeros(8, 8))``, unknown
    ``Parameters("log_coefficient")``: the coefficient in 8 x 8 blocks.

    Args:
        cells: number of cells of each axis, one to three of them.
        lengths: of the sides; all 1 by default.
        sides: for each axis ``"periodic"`` or a pair (left, right) of ``FixedValue(value)`` and ``FixedFlux(slope)``,
            the derivative along the outer normal, 0 for insulation; by default zero on all sides.
        log_coefficient: default of the parameter.
        source: likewise.

    Raises:
        UsageError: for numbers out of range, unknown sides, and parameters of other shapes.
    """
    box = WalledBox.of(cells, lengths, sides)
    solver = variable_poisson(box.cells, box.spacing, box.kinds, on_failure="nan")
    defaults = {"log_coefficient": log_coefficient, "source": source}
    for name, value in defaults.items():
        _in_cells(name, torch.as_tensor(value, dtype=torch.float64), solver.box.cells)
    return Steady(SteadyField(solver, box), defaults)


@dataclass(frozen=True)
class SteadyField:
    """The solve behind :func:`steady_diffusion`, from a dict of parameters to ``u``."""

    solver: VariablePoisson
    box: WalledBox

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        cells = self.box.cells
        a = _in_cells("log_coefficient", parameters["log_coefficient"], cells).exp()
        f = _in_cells("source", parameters["source"], cells)
        f = f + a * self.box.inflow(a.device).to(a.dtype)
        return self.solver.solve(on_faces(a, self.box.box), -f)


def _in_cells(name: str, value: Tensor, cells: tuple[int, ...]) -> Tensor:
    """A parameter as ``(scenarios or 1, *cells)``."""
    axes = len(cells)
    if value.ndim == 0 or (value.ndim == 1 and axes > 1):  # numbers, one for all or one for each scenario
        value = value.reshape(*value.shape, *[1] * axes)
    shape = value.shape[value.ndim - axes :]
    if not axes <= value.ndim <= axes + 1 or any(n % blocks for n, blocks in zip(cells, shape, strict=True)):
        raise UsageError(
            f"{name} is a number, a field {cells} or blocks that divide it evenly, with an axis of scenarios in front "
            f"where they differ; found the shape {tuple(value.shape)}."
        )
    for axis, n in zip(range(-axes, 0), cells, strict=True):
        value = value.repeat_interleave(n // value.shape[axis], axis)
    return value if value.ndim > axes else value[None]
