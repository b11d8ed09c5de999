"""Runs of a split-step scheme for Schroedinger's equation, and their adjoint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.spectral import chunks, product_sum
from dpcontrol.tree import Tree


class Inside(NamedTuple):
    """What steps go through: behind each turn ``psi``, and its spectrum before each kinetic phase."""

    turned: list[Tensor]
    spectra: list[Tensor]


@dataclass(frozen=True)
class SplitStepKernel(Kernel):
    r"""Turns ``e^{-i V_a \tau}`` by the potential on the grid, between kinetic phases in Fourier space.

    ``V = potential + control . dipoles + interaction |psi|^2``. Two complex transforms for each phase, forward and
    back; the way back computes the insides of many steps again together, from the states.

    Args:
        shares: the time ``tau`` of each turn, one more than there are phases.
    """

    shares: tuple[float, ...]

    def axes_per_scenario(self, state: Tensor, coefficients: Mapping[str, Any]) -> list[int | None]:
        # a row of dipoles belongs to a control, not to a scenario
        kept = {**coefficients, "dipoles": None}
        own = {id(leaf) for leaf in tree.split_tensors(kept)[0]}
        return [2 if id(leaf) in own else None for leaf in tree.split_tensors(coefficients)[0]]

    def run(
        self, state: Tensor, inputs: Tree, coefficients: Mapping[str, Any], steps: int, first: int
    ) -> Tensor:
        fields = self._fields(inputs[0], coefficients)
        turns = self._turns(fields, coefficients)
        psi, states = torch.view_as_complex(state.contiguous()), []
        for k in range(steps):
            row = {share: turn[k % len(turn)] for share, turn in turns.items()}
            psi = self._through(psi, fields[k % len(fields)], row, coefficients).turned[-1]
            states.append(psi)
        return torch.view_as_real(torch.stack(states))

    def pull(
        self,
        state: Tensor,
        states: Tensor,
        inputs: Tree,
        coefficients: Mapping[str, Any],
        cotangents: Tensor,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        control, above = inputs[0], None
        of_control = torch.empty_like(control) if wanted.inputs and control is not None else None
        totals = tree.map(torch.zeros_like, coefficients) if wanted.coefficients else None
        phases = [phase.conj() for phase in coefficients["kinetic"]]
        for low, high in chunks(len(states), state):
            before = states[low - 1 : high - 1] if low else torch.cat([state[None], states[: high - 1]])
            acting = None if control is None else control[low:high]
            fields = self._fields(acting, coefficients)
            turns = self._turns(fields, coefficients)
            inside = self._through(torch.view_as_complex(before.contiguous()), fields, turns, coefficients)
            arriving = torch.view_as_complex(cotangents[low:high].contiguous())
            above, notes = self._back(inside, arriving, above, fields, turns, phases, coefficients)
            if of_control is None and totals is None:
                continue
            back = tree.stack(notes)
            of_field = torch.stack(back["potential"]).sum(0)
            dipoles = coefficients["dipoles"]
            if of_control is not None:
                of_control[low:high] = of_field if dipoles is None else of_field @ dipoles.T
            if totals is not None:
                self._add(totals, inside, back, of_field, acting)
        assert above is not None
        of_inputs = None if of_control is None else (of_control, None)
        return Pulled(torch.view_as_real(above.resolve_conj()), of_inputs, totals)

    def _fields(self, control: Tensor | None, coefficients: Mapping[str, Any]) -> Tensor:
        """The potential without the cubic term, ``(steps or 1, scenarios or 1, cells or 1)``."""
        potential, dipoles = coefficients["potential"], coefficients["dipoles"]
        if control is None:
            field: Tensor = potential[(None,) * (3 - potential.ndim)]
            return field
        return potential + (control if dipoles is None else control @ dipoles)

    def _turns(self, fields: Tensor, coefficients: Mapping[str, Any]) -> dict[float, Tensor]:
        """The turns of all steps, where they do not depend on ``psi``."""
        if "interaction" in coefficients:
            return {}
        return {share: turn(fields, -share) for share in {*self.shares}}

    def _through(
        self, psi: Tensor, field: Tensor, turns: Mapping[float, Tensor], coefficients: Mapping[str, Any]
    ) -> Inside:
        """One step, or many together."""
        inside = Inside([], [])
        for share, phase in itertools.zip_longest(self.shares, coefficients["kinetic"]):
            psi = psi * self._turn(psi, field, share, turns, coefficients)
            inside.turned.append(psi)
            if phase is not None:
                inside.spectra.append(torch.fft.fft(psi))
                psi = torch.fft.ifft(inside.spectra[-1] * phase)
        return inside

    def _turn(
        self,
        psi: Tensor,
        field: Tensor,
        share: float,
        turns: Mapping[float, Tensor],
        coefficients: Mapping[str, Any],
    ) -> Tensor:
        if share in turns:
            return turns[share]
        return turn(field + coefficients["interaction"] * density(psi), -share)

    def _back(
        self,
        inside: Inside,
        arriving: Tensor,
        above: Tensor | None,
        fields: Tensor,
        turns: Mapping[float, Tensor],
        phases: list[Tensor],
        coefficients: Mapping[str, Any],
    ) -> tuple[Tensor, list[dict[str, list[Tensor]]]]:
        """The sweep through a chunk of steps; notes of cotangents of each turn's potential and behind each phase."""
        notes = []
        for k in reversed(range(len(arriving))):
            of_psi = arriving[k] if above is None else above + arriving[k]
            of_turns: list[Tensor] = []
            of_phases: list[Tensor] = []
            for place in reversed(range(len(self.shares))):
                share, psi = self.shares[place], inside.turned[place][k]
                # |psi| is the same on both sides of a turn
                of_field = (of_psi.conj() * psi).imag * share
                back = self._turn(psi, fields[k % len(fields)], share, _row(turns, k), coefficients).conj()
                if "interaction" in coefficients:
                    of_psi = of_psi + (2 * coefficients["interaction"] * of_field) * psi
                of_psi = of_psi * back
                of_turns.append(of_field)
                if place:
                    of_spectrum = torch.fft.fft(of_psi)
                    of_psi = torch.fft.ifft(of_spectrum * phases[place - 1])
                    of_phases.append(of_spectrum)
            above = of_psi
            notes.append({"potential": of_turns[::-1], "phases": of_phases[::-1]})
        assert above is not None
        return above, notes[::-1]

    def _add(
        self,
        totals: Mapping[str, Any],
        inside: Inside,
        back: Mapping[str, list[Tensor]],
        of_field: Tensor,
        control: Tensor | None,
    ) -> None:
        """Add the gradients of the coefficients."""
        cells = of_field.shape[-1]
        for total, spectrum, of_spectrum in zip(
            totals["kinetic"], inside.spectra, back["phases"], strict=True
        ):
            total += product_sum(spectrum, of_spectrum / cells, total)
        potential, dipoles = totals["potential"], totals["dipoles"]
        potential += of_field.sum_to_size(potential.shape)
        if dipoles is not None and control is not None:
            dipoles += torch.einsum("ksj,ksx->jx", control, of_field)
        if "interaction" in totals:
            total = totals["interaction"]
            for psi, part in zip(inside.turned, back["potential"], strict=True):
                total += (density(psi) * part).sum_to_size(total.shape)


def turn(potential: Tensor, time: float) -> Tensor:
    """``exp(i potential time)``."""
    return torch.polar(torch.ones_like(potential), potential * time)


def density(psi: Tensor) -> Tensor:
    """``|psi|^2``."""
    return psi.real.square() + psi.imag.square()


def _row(turns: Mapping[float, Tensor], k: int) -> dict[float, Tensor]:
    return {share: rows[k % len(rows)] for share, rows in turns.items()}
