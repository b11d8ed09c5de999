"""The steady diffusion equation with a coefficient that varies from place to place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpcontrol.linalg import VariablePoisson, on_faces, variable_poisson
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
        box.field(name, torch.as_tensor(value, dtype=torch.float64))
    return Steady(SteadyField(solver, box), defaults)


@dataclass(frozen=True)
class SteadyField:
    """The solve behind :func:`steady_diffusion`, from a dict of parameters to ``u``."""

    solver: VariablePoisson
    box: WalledBox

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        a = self.box.field("log_coefficient", parameters["log_coefficient"]).exp()
        f = self.box.field("source", parameters["source"])
        f = f + a * self.box.inflow(a.device).to(a.dtype)
        return self.solver.solve(on_faces(a, self.box.box), -f)
