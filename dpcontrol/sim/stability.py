"""How much a step of an exponential scheme may amplify what a stream carries along."""

from __future__ import annotations

import torch
from torch import Tensor

from dpcontrol.results import UsageError
from dpcontrol.sim.checks import readable
from dpcontrol.sim.etdrk import ExponentialScheme, cast

TOLERATED = 1.05  # growth of a mode in one step, beyond its own


def growth(scheme: ExponentialScheme, dt: float, linear: Tensor, transport: Tensor) -> Tensor:
    r"""Largest ``|g| / max(1, |exp(L dt)|)`` of ``u' = L u - i w u``, the transport explicit; ``(scenarios,)``.

    Args:
        scheme: of the step.
        dt: its length.
        linear: ``L``, ``(scenarios or 1, modes)``.
        transport: ``w = c k``, ``(scenarios, modes)``.
    """
    rate = -1j * transport.double()
    coefficients = cast(scheme.coefficients(linear.double(), dt), torch.float64)
    found = scheme.advance(torch.ones_like(rate), lambda u: rate * u, rate, coefficients)
    own = torch.exp(linear.double() * dt).abs().clamp(min=1)
    return (found.abs() / own).amax(1)


def require_stable(
    scheme: ExponentialScheme, dt: float, linear: Tensor, wavenumber: Tensor, speed: Tensor
) -> None:
    """Refuse a step in which the fastest flow of the initial state amplifies a mode.

    The equation is linearised around a uniform stream of the largest speed of each scenario. A force may accelerate
    the flow beyond what its initial state promised; a state that is not readable (a candidate of a search) is not
    judged.

    Args:
        scheme, dt: of the simulator.
        linear: symbol of the linear part, ``(*modes)`` or ``(scenarios, *modes)``.
        wavenumber: ``|k|`` of the modes that are kept, zero for the others, ``(*modes)``.
        speed: of the initial state, ``(scenarios, *points)``.

    Raises:
        UsageError: with the largest stable step.
    """
    if not len(speed) or not readable(speed, linear):
        return
    fastest = speed.detach().double().abs().flatten(1).amax(1)
    if not bool(fastest.isfinite().all()):
        return
    modes = linear.detach().reshape(-1, wavenumber.numel())
    first = 0
    if len(modes) == 1:  # scenarios differ by their speed only
        first = int(fastest.argmax())
        fastest = fastest[first : first + 1]
    transport = fastest[:, None] * wavenumber.double().flatten()
    found = growth(scheme, dt, modes, transport)
    if float(found.max()) <= TOLERATED:
        return
    worst = int(found.argmax())
    low, high = 0.0, dt
    for _ in range(20):  # the largest stable step to three digits
        middle = 0.5 * (low + high)
        fine = float(growth(scheme, middle, modes, transport).max()) <= TOLERATED
        low, high = (middle, high) if fine else (low, middle)
    raise UsageError(
        f"dt = {dt:g} is unstable for the initial state of scenario {first + worst}, whose speed reaches "
        f"{float(fastest[worst]):.3g}: {scheme.name} on this grid allows steps up to {low:.2g}; take a smaller dt, "
        "substeps, or fewer points."
    )
