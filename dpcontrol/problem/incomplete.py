"""Gamma, beta and Student-t numbers of white ones: quantiles by scipy's incomplete gamma and beta functions.

Their values are taken in the nearer tail; their derivatives come from the densities (see ``ThroughNormal``), so that
nothing has to be differentiated here. scipy computes on the CPU, in float64: numbers on another device go there and
back, in every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from dpcontrol.problem.normal_tails import from_log_tails, interior, ndtr

Map = Callable[[Tensor], Tensor]


def gamma(density: Any) -> tuple[Map, Map]:
    """``w -> x`` and ``x -> w`` of a gamma density with ``concentration`` and ``rate``."""
    a, rate = _numpy(density.concentration), density.rate
    tiny = torch.finfo(torch.float64).tiny

    def forward(w: Tensor) -> Tensor:
        found = np.where(_below(w), special.gammaincinv(a, _thin(w)), special.gammainccinv(a, _thin(w)))
        return (_tensor(found, w) / rate).clamp(min=tiny)

    def backward(x: Tensor) -> Tensor:
        y = _numpy(x * rate)
        return _scores(special.gammainc(a, y), special.gammaincc(a, y), x)

    return forward, backward


def beta(density: Any) -> tuple[Map, Map]:
    """The same of a beta density."""
    a, b = _numpy(density.concentration1), _numpy(density.concentration0)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)

    def forward(w: Tensor) -> Tensor:
        found = np.where(_below(w), special.betaincinv(a, b, _thin(w)), special.betainccinv(a, b, _thin(w)))
        # closer to an end than a float can be scipy finds none
        x = _tensor(np.where(np.isnan(found), np.where(_below(w), 0.0, 1.0), found), w).to(w.dtype)
        return interior(x, zero.to(x), one.to(x))

    def backward(x: Tensor) -> Tensor:
        y = _numpy(interior(x, zero.to(x), one.to(x)))
        return _scores(special.betainc(a, b, y), special.betaincc(a, b, y), x)

    return forward, backward


def student(density: Any) -> tuple[Map, Map]:
    """The same of a Student-t density: ``df / (df + t^2)`` and its complement are beta numbers."""
    half = 0.5 * _numpy(density.df)
    loc, scale = density.loc, density.scale

    def forward(w: Tensor) -> Tensor:
        twice = 2 * _thin(w)
        share = special.betaincinv(half, 0.5, twice)  # small far out
        other = special.betaincinv(0.5, half, special.erf(np.abs(_numpy(w)) * math.sqrt(0.5)))  # small inside
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(twice < 0.5, (1 - share) / share, other / (1 - other))
        return loc + scale * torch.sign(w) * _tensor(np.sqrt(2 * half * ratio), w)

    def backward(x: Tensor) -> Tensor:
        t = (x - loc) / scale
        squared = _numpy(t.square()).clip(max=1e300)
        thin = 0.5 * special.betainc(half, 0.5, 2 * half / (2 * half + squared))
        inside = special.betainc(0.5, half, squared / (2 * half + squared))
        w = np.where(thin < 0.25, special.ndtri(thin), -math.sqrt(2) * special.erfinv(inside))
        return torch.sign(t) * -_tensor(w, x)

    return forward, backward


def _scores(below: np.ndarray, above: np.ndarray, like: Tensor) -> Tensor:
    """White numbers of a probability and its complement."""
    with np.errstate(divide="ignore"):
        return from_log_tails(_tensor(np.log(below), like), _tensor(np.log(above), like))


def _below(w: Tensor) -> np.ndarray:
    return _numpy(w) < 0


def _thin(w: Tensor) -> np.ndarray:
    """The mass of the nearer tail."""
    return _numpy(ndtr(-w.double().abs()))


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().double().cpu().numpy()


def _tensor(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(value), dtype=torch.float64, device=like.device)
