"""Gray and Scott's reaction and diffusion: spots, stripes and waves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels import ExponentialKernel, HalfSpectrum, Kernel, Reaction
from dpcontrol.results import UsageError
from dpcontrol.sim.base import Simulator, Value, require_positive
from dpcontrol.sim.checks import readable
from dpcontrol.sim.etdrk import ETDRK2, ExponentialScheme, cast
from dpcontrol.sim.spectral import PeriodicBox, alike, require_dealiasing, require_force, spread
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class GrayScott(Simulator):
    r"""Gray and Scott's model: a substance ``a`` is fed and consumed by an autocatalyst ``b``.

    .. math:: a_t = D_a \Delta a - a b^2 + f (1 - a) + S_a, \quad b_t = D_b \Delta b + a b^2 - (f + r) b + S_b

    ==========  =============  ====================================================
    symbol      name           unit (nondimensional: concentration of the feed = 1)
    ==========  =============  ====================================================
    ``a``       state[0]       1
    ``b``       state[1]       1
    ``S``       control        1 over time, held during the step
    ``f``       feed           1 over time
    ``r``       removal        1 over time
    ``D_a``     diffusivity_a  area over time
    ``D_b``     diffusivity_b  area over time
    ==========  =============  ====================================================

    **State**: ``(scenarios, 2, *shape)``, both concentrations at ``x_i = i length / points`` along each axis; the
    control has the same shape or is ``None``. One, two or three axes.

    **Boundary conditions**: periodic.

    **Scheme**: Fourier Galerkin, modes ``|n| >= dealiasing N / 2`` of any axis dropped at the start and ever after (1/2
    makes the cubic term free of aliasing; 2/3, the default, is enough where fronts are resolved). In time ``ETDRK2``
    (measured order 2) or ``ETDRK4`` (4), diffusion, feed and removal exact: no limit to ``dt`` but that of the
    reaction, about ``dt < 2``. A step of a run costs 6 real transforms with ``ETDRK2``, 2 more with a control. Where
    ``f = r = 0`` the total of ``a + b`` is kept.

    **Parameters**: ``feed``, ``removal``, ``diffusivity_a``, ``diffusivity_b``.

    **Source**: J. E. Pearson, Science 261 (1993), the model and its values; P. Gray, S. K. Scott, Chem. Eng. Sci. 39
    (1984).

    **Good values**: Pearson's box of side 2.5 with ``D = 2e-5, 1e-5``, ``dt=1``; ``feed=0.04, removal=0.06`` makes
    stripes, ``0.035, 0.065`` spots that divide.

    Args:
        dt: time step.
        shape: number of grid points of each axis.
        feed, removal, diffusivity_a, diffusivity_b: zero allowed; numbers, or tensors ``()`` or ``(scenarios,)``.
        lengths: of the sides; all 2.5 by default.
        scheme: ``ETDRK2`` or ``ETDRK4``.
        dealiasing: fraction of the modes that are kept, 1 for all.
        fused: whether runs and their gradients go through the hand-written kernel; the same numbers to rounding.

    Raises:
        UsageError: for numbers out of range; at the start of a rollout, for a state of another shape; in a step, for a
            control of another shape.
    """

    dt: float
    shape: tuple[int, ...] = (128, 128)
    feed: Value = 0.04
    removal: Value = 0.06
    diffusivity_a: Value = 2e-5
    diffusivity_b: Value = 1e-5
    lengths: tuple[float, ...] | None = None
    scheme: ExponentialScheme = ETDRK2
    dealiasing: float = 2 / 3
    fused: bool = True

    def __post_init__(self) -> None:
        require_positive("dt", self.dt)
        for name, value in self.parameters.items():
            require_positive(name, value, zero_allowed=True)
        require_dealiasing(self.dealiasing)
        _ = self.box

    @property
    def box(self) -> PeriodicBox:
        """The grid."""
        return PeriodicBox(self.shape, self.lengths or (2.5,) * len(self.shape))

    @property
    def transforms(self) -> HalfSpectrum:
        """Between the grid and the modes that are kept."""
        return self.box.transforms(self.dealiasing)

    @property
    def parameters(self) -> Mapping[str, Value]:
        return {
            "feed": self.feed,
            "removal": self.removal,
            "diffusivity_a": self.diffusivity_a,
            "diffusivity_b": self.diffusivity_b,
        }

    def check(self, initial: Tree, parameters: Mapping[str, Tensor]) -> None:
        """Refuse a step in which the initial reaction overshoots: ``dt (b^2 - 2 a b) > 2``."""
        self.box.require(initial, 2)
        if not len(initial) or not readable(initial):
            return
        a, b = initial.unbind(1)
        fastest = float((b.square() - 2 * a * b).max())
        if self.dt * fastest > 2:
            raise UsageError(
                f"dt = {self.dt:g} is unstable for the initial concentrations, which react at a rate of {fastest:.3g}: "
                f"take dt below {2 / fastest:.2g}, or substeps."
            )

    def start(self, initial: Tree, parameters: Mapping[str, Tensor]) -> Tree:
        """``initial``, its shape checked, without the modes that are not kept."""
        self.box.require(initial, 2)
        return self.box.project(initial, self.dealiasing)

    def prepare(self, parameters: Mapping[str, Tensor], scenario: Mapping[str, Tree]) -> Any:
        """The coefficients of the scheme, differentiable in the parameters."""
        axes = len(self.shape)
        f, r, of_a, of_b = (spread(parameters[name], axes) for name in self.parameters)
        dtype, device = parameters["feed"].dtype, parameters["feed"].device
        cut = self.transforms.cut
        k2 = cut(self.box.squared_wavenumber(device))
        linear = torch.stack(torch.broadcast_tensors(-of_a * k2 - f, -of_b * k2 - f - r), -axes - 1)
        mean = (k2 == 0) * float(self.box.points)
        coefficients = {
            "scheme": self.scheme.coefficients(
                linear, self.dt, kept=cut(self.box.kept(self.dealiasing, device))
            ),
            "force": torch.stack(torch.broadcast_tensors(f * mean, 0 * f * mean), -axes - 1),
        }
        return cast(coefficients, dtype)

    def step(self, state: Tree, control: Tree, coefficients: Any, noise: Tree, t: float) -> Tree:
        """One step of the scheme."""
        transforms = self.transforms
        force = coefficients["force"]
        if control is not None:
            require_force(control, state)
            force = force + transforms.forward(control)
        else:
            force = force.expand(len(state), *force.shape[-len(self.shape) - 1 :])

        def reaction(fields: Tensor) -> Tensor:
            a, b = fields.unbind(1)
            produced = transforms.forward(a * b.square())
            return torch.stack((-produced, produced), 1)

        after = self.scheme.advance(
            transforms.forward(state),
            lambda spectrum: reaction(transforms.inverse(spectrum)),
            reaction(state),
            coefficients["scheme"],
            force,
        )
        return transforms.inverse(after)

    def kernel(self, state: Tree, control: Tree, noise: Tree, coefficients: Any) -> Kernel | None:
        """Whole runs in Fourier space with a hand-written adjoint, unless ``fused`` is off."""
        if not self.fused or not alike(state, control):
            return None
        return ExponentialKernel(self.transforms, Reaction(self.transforms), self.scheme.stages)
