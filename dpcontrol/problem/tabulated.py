"""A normal cut on one side as a quick map of white numbers: a table of the exact one, made once."""

from __future__ import annotations

import torch
from torch import Tensor

from dpcontrol.problem.densities import TruncatedNormal
from dpcontrol.problem.normal_tails import HALF_LOG_2PI, log_mass, log_phi

# white numbers that the table covers, farther than doubles know a density, and how many pieces it has: cubics that are
# right to 1e-11
REACH, PIECES = 37.0, 16384


class OneSided:
    r"""``x = F^{-1}(\Phi(w))`` of a normal cut at ``low``, or, mirrored, at ``high``: a handful of operations.

    Between nodes of a table the logarithm of the distance from the cut is a cubic with the exact values and slopes, so
    that small distances keep their digits; beyond the table its ends hold. Not differentiable.

    Args:
        density: with one finite end in all entries, the same one.
    """

    def __init__(self, density: TruncatedNormal) -> None:
        self._constants = _constants(density)
        self._sign = 1.0 if bool(torch.isfinite(density.low).all()) else -1.0
        cut = density.low if self._sign > 0 else density.high
        self._cut = cut.double()
        nodes = torch.linspace(-REACH, REACH, PIECES + 1, dtype=torch.float64, device=cut.device)
        places = nodes.reshape(-1, *[1] * cut.ndim)
        with torch.no_grad():
            x = density.from_white(places.expand(-1, *cut.shape))
            distance = self._sign * (x - self._cut)
            slope = torch.exp(log_phi(places) - self.log_density(x)) * self._sign / distance
        columns = [part.reshape(len(nodes), -1) for part in (distance.log(), slope * (2 * REACH / PIECES))]
        value, rise = columns
        # coefficients of each piece in its own coordinate from 0 to 1
        jump = value[1:] - value[:-1]
        self._cubics = torch.stack(
            [value[:-1], rise[:-1], 3 * jump - 2 * rise[:-1] - rise[1:], rise[:-1] + rise[1:] - 2 * jump]
        )

    def __call__(self, w: Tensor) -> Tensor:
        """Natural numbers of white ones ``(..., *batch shape)``, in float64."""
        along = (w.double().clamp(-REACH, REACH) + REACH) * (PIECES / (2 * REACH))
        piece = along.floor().clamp(max=PIECES - 1)
        t = along - piece
        flat = piece.long().reshape(-1, self._cubics.shape[2])
        entries = torch.arange(self._cubics.shape[2], device=w.device)
        a, b, c, d = (part.reshape(t.shape) for part in self._cubics[:, flat, entries])
        return self._cut + self._sign * torch.exp(a + t * (b + t * (c + t * d)))

    def log_density(self, x: Tensor) -> Tensor:
        """``log p(x)`` inside the support, with the constants computed once; differentiable."""
        edge, scale, c, constant = self._constants
        t = (x - edge) / scale
        return -t * (0.5 * t + c) - constant


def _constants(density: TruncatedNormal) -> tuple[Tensor, ...]:
    """The place of largest density, the scale, the slope there, and the logarithm of the largest density."""
    loc, scale, low, high = (
        entry.detach().double() for entry in (density.loc, density.scale, density.low, density.high)
    )
    mass, c = log_mass((low - loc) / scale, (high - loc) / scale, (high - low) / scale)
    edge = torch.where(c > 0, low, torch.where(c < 0, high, loc))
    return edge, scale, c, mass + scale.log() + HALF_LOG_2PI


def one_sided(density: TruncatedNormal) -> bool:
    """Whether a density has one finite end, the same in all entries."""
    low, high = bool(torch.isfinite(density.low).all()), bool(torch.isfinite(density.high).all())
    open_low, open_high = bool(torch.isinf(density.low).all()), bool(torch.isinf(density.high).all())
    return (low and open_high) or (high and open_low)
