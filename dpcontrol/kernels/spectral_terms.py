"""Nonlinear terms in Fourier space with their adjoints, each with as many transforms as the term itself.

Cotangents of fields are kept as their spectra, see :class:`~dpcontrol.kernels.spectral.HalfSpectrum`. Leading axes
(steps, scenarios) are free.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dpcontrol.kernels.spectral import HalfSpectrum


@dataclass(frozen=True)
class Term(abc.ABC):
    """``N`` from spectrum to spectrum, in two halves: grid values (``lift``), and the rate from those."""

    transforms: HalfSpectrum

    @abc.abstractmethod
    def enter(self, state: Tensor, spectrum: Tensor) -> Tensor:
        """The grid values of a state that is known on the grid and in Fourier space."""

    @abc.abstractmethod
    def open(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """The state on the grid, and the grid values."""

    @abc.abstractmethod
    def lift(self, spectrum: Tensor) -> Tensor:
        """The grid values of a stage."""

    @abc.abstractmethod
    def rate(self, values: Tensor) -> Tensor:
        """The spectrum of ``N`` from the grid values."""

    @abc.abstractmethod
    def pull(self, values: Tensor, cotangent: Tensor) -> Tensor:
        """Cotangent of the spectrum, from that of the rate"""

    @abc.abstractmethod
    def leave(self, values: Tensor, cotangent: Tensor) -> Tensor:
        """Cotangent of the state on the grid, from that of the rate."""


class Square(Term):
    """``N = u^2``: one transform each way."""

    def enter(self, state: Tensor, spectrum: Tensor) -> Tensor:
        return state

    def open(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        values = self.transforms.inverse(spectrum)
        return values, values

    def lift(self, spectrum: Tensor) -> Tensor:
        return self.transforms.inverse(spectrum)

    def rate(self, values: Tensor) -> Tensor:
        return self.transforms.forward(values.square())

    def pull(self, values: Tensor, cotangent: Tensor) -> Tensor:
        return self.transforms.forward(self.leave(values, cotangent))

    def leave(self, values: Tensor, cotangent: Tensor) -> Tensor:
        return self.transforms.inverse(cotangent).mul_(values).mul_(2)


class Reaction(Term):
    """``N = (-a b^2, a b^2)`` of two fields: two transforms from Fourier space, one to it; back the other way round."""

    @property
    def _axis(self) -> int:
        return -1 - len(self.transforms.shape)

    def enter(self, state: Tensor, spectrum: Tensor) -> Tensor:
        return state

    def open(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        values = self.transforms.inverse(spectrum)
        return values, values

    def lift(self, spectrum: Tensor) -> Tensor:
        return self.transforms.inverse(spectrum)

    def rate(self, values: Tensor) -> Tensor:
        a, b = values.unbind(self._axis)
        produced = self.transforms.forward(a * b.square())
        return torch.stack((-produced, produced), self._axis)

    def pull(self, values: Tensor, cotangent: Tensor) -> Tensor:
        return self.transforms.forward(self.leave(values, cotangent))

    def leave(self, values: Tensor, cotangent: Tensor) -> Tensor:
        a, b = values.unbind(self._axis)
        of_a, of_b = cotangent.unbind(self._axis)
        of_product = self.transforms.inverse(of_b - of_a).mul_(b)
        return torch.stack((of_product * b, (of_product * a).mul_(2)), self._axis)


@dataclass(frozen=True)
class Advection(Term):
    """``N = p_1 (uv)^ + p_2 (v^2 - u^2)^`` with ``(u, v) = q w``: two transforms each way.

    Args:
        to_velocity: ``q``, imaginary, with an axis of 2 before those of space.
        of_products: ``p``, real, likewise.
    """

    to_velocity: Tensor
    of_products: Tensor

    _axis: ClassVar[int] = -3

    def enter(self, state: Tensor, spectrum: Tensor) -> Tensor:
        return self.lift(spectrum)

    def open(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        fields = spectrum.new_empty((*spectrum.shape[:-2], 3, *spectrum.shape[-2:]))
        torch.mul(spectrum[..., None, :, :], self.to_velocity, out=fields[..., 1:, :, :])
        fields[..., 0, :, :] = spectrum
        found = self.transforms.inverse(fields)
        return found[..., 0, :, :], found[..., 1:, :, :]

    def lift(self, spectrum: Tensor) -> Tensor:
        return self.transforms.inverse(spectrum[..., None, :, :] * self.to_velocity)

    def rate(self, values: Tensor) -> Tensor:
        return _contracted(self._products(values), self.of_products)

    def _products(self, values: Tensor) -> Tensor:
        u, v = values.unbind(self._axis)
        products = torch.empty_like(values, memory_format=torch.contiguous_format)
        first, second = products.unbind(self._axis)
        torch.mul(u, v, out=first)
        torch.mul(v - u, v + u, out=second)
        return self.transforms.forward(products)

    def pull(self, values: Tensor, cotangent: Tensor) -> Tensor:
        of_velocity = self._of_velocity(values, cotangent)
        return _contracted(of_velocity, self.to_velocity).neg_()

    def _of_velocity(self, values: Tensor, cotangent: Tensor) -> Tensor:
        u, v = values.unbind(self._axis)
        of_products = self.transforms.inverse(cotangent[..., None, :, :] * self.of_products)
        of_uv, of_difference = of_products.unbind(self._axis)
        of_difference *= 2
        of_u = (of_uv * v).addcmul_(of_difference, u, value=-1)
        of_v = of_uv.mul_(u).addcmul_(of_difference, v)
        return self.transforms.forward(torch.stack((of_u, of_v), self._axis))

    def leave(self, values: Tensor, cotangent: Tensor) -> Tensor:
        return self.transforms.inverse(self.pull(values, cotangent))


def _contracted(pair: Tensor, factors: Tensor) -> Tensor:
    """The sum of both products."""
    return (pair[..., 0, :, :] * factors[..., 0, :, :]).addcmul_(pair[..., 1, :, :], factors[..., 1, :, :])
