"""Runs of exponential Runge-Kutta schemes in Fourier space, and their adjoint, with no transform that can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.kernels.base import Kernel, Pulled, Wanted
from dpcontrol.kernels.spectral import HalfSpectrum, chunks, product_sum
from dpcontrol.kernels.spectral_terms import Term
from dpcontrol.tree import Tree

Tables = Mapping[str, Any]

END = "1"
"""The key of the end of a step."""


@dataclass(frozen=True)
class Stages:
    """The structure of a scheme: for each stage but the first, the key of its node and the stages that enter it."""

    keys: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]


class Inside(NamedTuple):
    """What a step goes through: of each stage its spectrum, its grid values, its rate."""

    spectra: list[Tensor]
    values: list[Tensor]
    rates: list[Tensor]


class Back(NamedTuple):
    """Cotangents on the way back, as spectra: of each stage but the first, of each rate, of the end of the step."""

    stages: list[Tensor]
    rates: list[Tensor]
    end: Tensor


@dataclass(frozen=True)
class ExponentialKernel(Kernel):
    r"""Steps ``s^+ = \varphi_0 s + h \sum b_i N(U_i) + h \varphi_1 f``; :mod:`dpcontrol.sim.etdrk` makes the tables.

    Between steps the state stays in Fourier space: a step costs the transforms of its stages, and those of the first
    one give the state on the grid as well. All forces are transformed together.

    On the way back only the states are known. The insides of many steps are computed again together, which costs the
    transforms of a forward run and one more a step, but hardly any calls. Then the cotangents pass step by step,
    through as many transforms as a step forward has; gradients of forces and tables are formed for many steps together.

    Coefficients: ``scheme``, and ``force`` (a spectrum that acts always, or ``None``).
    """

    transforms: HalfSpectrum
    term: Term
    stages: Stages

    def axes_per_scenario(self, state: Tensor, coefficients: Tables) -> list[int | None]:
        return tables_per_scenario(state, coefficients)

    def run(self, state: Tensor, inputs: Tree, coefficients: Tables, steps: int, first: int) -> Tensor:
        scheme, states = coefficients["scheme"], []
        pushes = _pushes(self._force(inputs[0], coefficients, state.ndim), scheme)
        spectrum = self.transforms.forward(state)
        values = self.term.enter(state, spectrum)
        for k in range(steps):
            bases = _bases(spectrum, scheme, {key: rows[k % len(rows)] for key, rows in pushes.items()})
            inside = self._through(spectrum, values, bases, coefficients)
            spectrum = bases[END]
            for rate, weight in zip(inside.rates, scheme["outer"], strict=True):
                spectrum = torch.addcmul(spectrum, rate, weight)
            if k < steps - 1:
                state, values = self.term.open(spectrum)
            else:
                state = self.transforms.inverse(spectrum)
            states.append(state)
        return torch.stack(states)

    def pull(
        self,
        state: Tensor,
        states: Tensor,
        inputs: Tree,
        coefficients: Tables,
        cotangents: Tensor,
        wanted: Wanted,
        first: int,
    ) -> Pulled:
        control, above = inputs[0], None
        tables = {name: coefficients[name] for name in ("scheme", "force")}
        conjugate = tree.map(torch.conj_physical, tables)
        of_control = torch.empty_like(control) if wanted.inputs and control is not None else None
        totals = tree.map(torch.zeros_like, tables) if wanted.coefficients else None
        for low, high in chunks(len(states), state):
            before = states[low - 1 : high - 1] if low else torch.cat([state[None], states[: high - 1]])
            force = self._force(None if control is None else control[low:high], coefficients, state.ndim)
            spectra = self.transforms.forward(before)
            bases = _bases(spectra, coefficients["scheme"], _pushes(force, coefficients["scheme"]))
            values = self.term.enter(before, spectra)
            inside = self._through(spectra, values, bases, coefficients, all_rates=totals is not None)
            above, notes = self._back(inside.values, cotangents[low:high], above, conjugate, leave=low == 0)
            if of_control is None and totals is None:
                continue
            back = tree.stack(notes)
            of_bases = self._of_bases(back)
            of_force = _combined(of_bases, conjugate["scheme"]["held"])
            if of_control is not None:
                of_control[low:high] = self.transforms.inverse(of_force)
            if totals is not None:
                weights = self.transforms.weights(spectra)
                _add_linear(totals, spectra, force, tree.map(weights.mul, of_bases), weights * of_force)
                self._add_rates(totals, inside, tree.map(weights.mul, back))
        of_inputs = None if of_control is None else (of_control, None)
        return Pulled(above, of_inputs, None if totals is None else {**coefficients, **totals})

    def _force(self, control: Tensor | None, coefficients: Tables, axes: int) -> Tensor | None:
        """Spectra of all that acts, ``(steps or 1, scenarios or 1, ...)``."""
        always = coefficients["force"]
        if control is None:
            return None if always is None else always[(None,) * (axes + 1 - always.ndim)]
        force = self.transforms.forward(control)
        return force if always is None else force + always

    def _through(
        self,
        spectrum: Tensor,
        values: Tensor,
        bases: Mapping[str, Tensor],
        coefficients: Tables,
        *,
        all_rates: bool = True,
    ) -> Inside:
        """The stages of one step, or of many together. The last rate enters no stage and can be left out."""
        inside = Inside([spectrum], [values], [self.term.rate(values)])
        for key, row, factors in zip(
            self.stages.keys, self.stages.sources, coefficients["scheme"]["inner"], strict=True
        ):
            stage = bases[key]
            for j, weight in zip(row, factors, strict=True):
                stage = torch.addcmul(stage, inside.rates[j], weight)
            inside.spectra.append(stage)
            inside.values.append(self.term.lift(stage))
            if all_rates or len(inside.rates) < len(self.stages.keys):
                inside.rates.append(self.term.rate(inside.values[-1]))
        return inside

    def _back(
        self,
        values: list[Tensor],
        cotangents: Tensor,
        above: Tensor | None,
        conjugate: Tables,
        *,
        leave: bool,
    ) -> tuple[Tensor, list[Back]]:
        """The sweep through a chunk of steps. ``above`` comes as a spectrum; where it leaves it is on the grid."""
        arriving, notes = self.transforms.forward(cotangents), []
        for k in reversed(range(len(cotangents))):
            end = arriving[k] if above is None else above + arriving[k]
            back = self._back_through([fields[k] for fields in values], end, conjugate)
            passing = _combined(self._of_bases(back), conjugate["scheme"]["decay"])
            if leave and k == 0:
                above = self.term.leave(values[0][k], back.rates[0])
                above += self.transforms.inverse(passing)
            else:
                above = self.term.pull(values[0][k], back.rates[0]) + passing
            notes.append(back)
        assert above is not None
        return above, notes[::-1]

    def _back_through(self, values: list[Tensor], end: Tensor, conjugate: Tables) -> Back:
        """One step from its end to its first rate."""
        scheme = conjugate["scheme"]
        of_rates = [end * weight for weight in scheme["outer"]]
        of_stages: list[Tensor] = []
        for i in reversed(range(1, len(values))):
            of_stage = self.term.pull(values[i], of_rates[i])
            of_stages.append(of_stage)
            for j, weight in zip(self.stages.sources[i - 1], scheme["inner"][i - 1], strict=True):
                of_rates[j].addcmul_(of_stage, weight)
        return Back(of_stages[::-1], of_rates, end)

    def _of_bases(self, back: Back) -> dict[str, Tensor]:
        """Cotangents of what the nodes start from."""
        found = {END: back.end}
        for key, of_stage in zip(self.stages.keys, back.stages, strict=True):
            found[key] = found[key] + of_stage if key in found else of_stage
        return found

    def _add_rates(self, totals: Tables, inside: Inside, weighted: Back) -> None:
        """Add the gradients of the weights of rates."""
        scheme = totals["scheme"]
        for total, rate in zip(scheme["outer"], inside.rates, strict=True):
            total += product_sum(rate, weighted.end, total)
        for row, parts, of_stage in zip(self.stages.sources, scheme["inner"], weighted.stages, strict=True):
            for j, total in zip(row, parts, strict=True):
                total += product_sum(inside.rates[j], of_stage, total)


def tables_per_scenario(state: Tensor, coefficients: Tables) -> list[int | None]:
    """Tables of all scenarios have an axis for each of the state."""
    return [state.ndim] * len(tree.split_tensors(coefficients)[0])


def _pushes(force: Tensor | None, scheme: Tables) -> dict[str, Tensor]:
    """What the force adds to each node; nothing without one."""
    return {} if force is None else {key: force * table for key, table in scheme["held"].items()}


def _bases(spectrum: Tensor, scheme: Tables, pushes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each node starts from: the linear part alone."""
    if not pushes:
        return {key: spectrum * table for key, table in scheme["decay"].items()}
    return {key: torch.addcmul(pushes[key], spectrum, table) for key, table in scheme["decay"].items()}


def _combined(parts: Mapping[str, Tensor], tables: Mapping[str, Tensor]) -> Tensor:
    """The sum of products of the same key."""
    found = None
    for key, part in parts.items():
        found = part * tables[key] if found is None else found.addcmul_(part, tables[key])
    assert found is not None
    return found


def _add_linear(
    totals: Tables, spectra: Tensor, force: Tensor | None, weighted: Mapping[str, Tensor], of_force: Tensor
) -> None:
    """Add the gradients of the linear part's tables and of the constant force."""
    scheme = totals["scheme"]
    for key, part in weighted.items():
        scheme["decay"][key] += product_sum(spectra, part, scheme["decay"][key])
        if force is not None:
            scheme["held"][key] += product_sum(force, part, scheme["held"][key])
    if totals["force"] is not None:
        always = totals["force"]
        always += of_force.sum_to_size(always.shape)
