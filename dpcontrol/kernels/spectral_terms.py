"""Nonlinear terms in Fourier space with their adjoints, each with as many transforms as the term itself.

Cotangents of fields are kept as their spectra, see :class:`~dpcontrol.kernels.spectral.HalfSpectrum`. Leading axes
(steps, scenarios) are free.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.kernels.spectral import HalfSpectrum, product_sum

Tables = Mapping[str, Any]


@dataclass(frozen=True)
class Term(abc.ABC):
    """``N`` from spectrum to spectrum, in two halves: grid values (``lift``), and the rate from those."""

    transforms: HalfSpectrum

    @abc.abstractmethod
    def enter(self, state: Tensor, spectrum: Tensor, tables: Tables) -> Tensor:
        """The grid values of a state that is known on the grid and in Fourier space."""

    @abc.abstractmethod
    def open(self, spectrum: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
        """The state on the grid, and the grid values."""

    @abc.abstractmethod
    def lift(self, spectrum: Tensor, tables: Tables) -> Tensor:
        """The grid values of a stage."""

    @abc.abstractmethod
    def rate(self, values: Tensor, tables: Tables) -> Tensor:
        """The spectrum of ``N`` from the grid values."""

    @abc.abstractmethod
    def pull(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        """Cotangent of the spectrum, from that of the rate; the tables come conjugated."""

    @abc.abstractmethod
    def leave(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        """Cotangent of the state on the grid, from that of the rate."""

    def of_tables(
        self,
        spectra: list[Tensor],
        values: list[Tensor],
        tables: Tables,
        conjugate: Tables,
        cotangents: list[Tensor],
    ) -> dict[str, Tensor]:
        """Gradients of the term's own tables, summed over stages, from the spectra, values and rates of each."""
        return {}


class Square(Term):
    """``N = u^2``: one transform each way."""

    def enter(self, state: Tensor, spectrum: Tensor, tables: Tables) -> Tensor:
        return state

    def open(self, spectrum: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
        values = self.transforms.inverse(spectrum)
        return values, values

    def lift(self, spectrum: Tensor, tables: Tables) -> Tensor:
        return self.transforms.inverse(spectrum)

    def rate(self, values: Tensor, tables: Tables) -> Tensor:
        return self.transforms.forward(values.square())

    def pull(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        return self.transforms.forward(self.leave(values, conjugate, cotangent))

    def leave(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        return self.transforms.inverse(cotangent).mul_(values).mul_(2)


class Reaction(Term):
    """``N = (-a b^2, a b^2)`` of two fields: two transforms from Fourier space, one to it; back the other way round."""

    @property
    def _axis(self) -> int:
        return -1 - len(self.transforms.shape)

    def enter(self, state: Tensor, spectrum: Tensor, tables: Tables) -> Tensor:
        return state

    def open(self, spectrum: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
        values = self.transforms.inverse(spectrum)
        return values, values

    def lift(self, spectrum: Tensor, tables: Tables) -> Tensor:
        return self.transforms.inverse(spectrum)

    def rate(self, values: Tensor, tables: Tables) -> Tensor:
        a, b = values.unbind(self._axis)
        produced = self.transforms.forward(a * b.square())
        return torch.stack((-produced, produced), self._axis)

    def pull(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        return self.transforms.forward(self.leave(values, conjugate, cotangent))

    def leave(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        a, b = values.unbind(self._axis)
        of_a, of_b = cotangent.unbind(self._axis)
        of_product = self.transforms.inverse(of_b - of_a).mul_(b)
        return torch.stack((of_product * b, (of_product * a).mul_(2)), self._axis)


class Advection(Term):
    """``N = p_1 (uv)^ + p_2 (v^2 - u^2)^`` with ``(u, v) = q w``: two transforms each way.

    Tables: ``to_velocity`` (``q``), ``of_products`` (``p``), each with an axis of 2 before those of space.
    """

    _axis = -3

    def enter(self, state: Tensor, spectrum: Tensor, tables: Tables) -> Tensor:
        return self.lift(spectrum, tables)

    def open(self, spectrum: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
        fields = spectrum.new_empty((*spectrum.shape[:-2], 3, *spectrum.shape[-2:]))
        torch.mul(spectrum[..., None, :, :], tables["to_velocity"], out=fields[..., 1:, :, :])
        fields[..., 0, :, :] = spectrum
        found = self.transforms.inverse(fields)
        return found[..., 0, :, :], found[..., 1:, :, :]

    def lift(self, spectrum: Tensor, tables: Tables) -> Tensor:
        return self.transforms.inverse(spectrum[..., None, :, :] * tables["to_velocity"])

    def rate(self, values: Tensor, tables: Tables) -> Tensor:
        return _contracted(self._products(values), tables["of_products"])

    def _products(self, values: Tensor) -> Tensor:
        u, v = values.unbind(self._axis)
        products = torch.empty_like(values, memory_format=torch.contiguous_format)
        first, second = products.unbind(self._axis)
        torch.mul(u, v, out=first)
        torch.mul(v - u, v + u, out=second)
        return self.transforms.forward(products)

    def pull(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        of_velocity = self._of_velocity(values, conjugate, cotangent)
        return _contracted(of_velocity, conjugate["to_velocity"])

    def _of_velocity(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        u, v = values.unbind(self._axis)
        of_products = self.transforms.inverse(cotangent[..., None, :, :] * conjugate["of_products"])
        of_uv, of_difference = of_products.unbind(self._axis)
        of_difference *= 2
        of_u = (of_uv * v).addcmul_(of_difference, u, value=-1)
        of_v = of_uv.mul_(u).addcmul_(of_difference, v)
        return self.transforms.forward(torch.stack((of_u, of_v), self._axis))

    def leave(self, values: Tensor, conjugate: Tables, cotangent: Tensor) -> Tensor:
        return self.transforms.inverse(self.pull(values, conjugate, cotangent))

    def of_tables(
        self,
        spectra: list[Tensor],
        values: list[Tensor],
        tables: Tables,
        conjugate: Tables,
        cotangents: list[Tensor],
    ) -> dict[str, Tensor]:
        found = {name: torch.zeros_like(tables[name]) for name in ("to_velocity", "of_products")}
        for spectrum, fields, cotangent in zip(spectra, values, cotangents, strict=True):
            weights = self.transforms.weights(cotangent)
            products, of_velocity = self._products(fields), self._of_velocity(fields, conjugate, cotangent)
            of_rate = (weights * cotangent)[..., None, :, :]
            found["of_products"] += product_sum(products, of_rate, tables["of_products"])
            of_velocity *= weights
            found["to_velocity"] += product_sum(spectrum[..., None, :, :], of_velocity, tables["to_velocity"])
        return found


def _contracted(pair: Tensor, factors: Tensor) -> Tensor:
    """The sum of both products."""
    return (pair[..., 0, :, :] * factors[..., 0, :, :]).addcmul_(pair[..., 1, :, :], factors[..., 1, :, :])
