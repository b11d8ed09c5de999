"""What a posterior predicts: measurements with and without noise, beside those that were made; and do they agree?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.posterior.words import counted, html_table, number, table
from dpcontrol.problem.base import Problem
from dpcontrol.problem.candidates import each, vectorises
from dpcontrol.problem.predicting import measurements, misfits, predictions

CENTRAL = 0.95  # of replicated data; what lies outside is called unusual


@dataclass(frozen=True)
class Predictions:
    """Predictions of some draws of a posterior, one entry of each list for each observation of the problem.

    Attributes:
        times: when was measured, ``(rows,)``.
        measured: the data ``(rows, scenarios, measurements)``; NaN where nothing was measured.
        predicted: without noise, ``(draws, rows, scenarios, measurements)``.
        replicated: data as they might have been, the same shape; NaN where the data are.
        log_likelihood: of the data under each draw, ``(draws,)``.
        replicated_log_likelihood: of the replicated data under the draw that made them, ``(draws,)``.
        failures: draws for which the simulator failed; they are left out.
        chosen: which draws these are, chains behind each other ``(draws,)``.
    """

    times: list[np.ndarray]
    measured: list[Tensor]
    predicted: list[Tensor]
    replicated: list[Tensor]
    log_likelihood: Tensor
    replicated_log_likelihood: Tensor
    failures: int
    chosen: Tensor

    @property
    def count(self) -> int:
        """How many draws there are predictions of."""
        return len(self.chosen)

    def check(self) -> Check:
        """Compare what was measured with replicated data, by a few test quantities."""
        found: list[Comparison] = []
        quantities: dict[str, Callable[[Tensor], Tensor]] = {
            "mean": lambda rows: rows.mean(1),
            "sd": lambda rows: rows.std(1),
            "smallest": lambda rows: rows.min(1).values,
            "largest": lambda rows: rows.max(1).values,
        }
        for index, (data, fake) in enumerate(zip(self.measured, self.replicated, strict=True)):
            there = ~torch.isnan(data)
            suffix = f", observation {index + 1}" if len(self.measured) > 1 else ""
            real, rows = data[there][None], fake[:, there]
            if rows.shape[1] < 2:
                quantities.pop("sd", None)
            for name, quantity in quantities.items():
                found.append(_compared(name + suffix, quantity(real).numpy(), quantity(rows).numpy()))
        misfit = _compared(
            "misfit (-2 log-likelihood)",
            -2 * self.log_likelihood.numpy(),
            -2 * self.replicated_log_likelihood.numpy(),
        )
        return Check((*found, misfit), self.count, self.failures)


@dataclass(frozen=True)
class Comparison:
    """A test quantity of the data beside that of replicated data.

    ``value`` is the data's (the median over draws where it depends on them), ``low`` and ``high`` hold 95 % of the
    replicated ones, ``p`` is the Bayesian p-value: how often the replicated is at least as large as the data's.
    """

    name: str
    value: float
    low: float
    high: float
    p: float

    @property
    def unusual(self) -> bool:
        """Whether the data are an odd case for this model."""
        return not (1 - CENTRAL) / 2 <= self.p <= (1 + CENTRAL) / 2


def _compared(name: str, real: np.ndarray, fake: np.ndarray) -> Comparison:
    above = (fake > real).mean() + 0.5 * (fake == real).mean()
    low, high = np.quantile(fake, [(1 - CENTRAL) / 2, (1 + CENTRAL) / 2])
    return Comparison(name, float(np.median(real)), float(low), float(high), float(above))


@dataclass(frozen=True)
class Check:
    """Test quantities of the data under a posterior's predictive distribution; ``print`` it.

    Data are used twice, to fit and to check, so p-values are drawn to one half: 0.02 says more than usual, 0.4 little.
    """

    comparisons: tuple[Comparison, ...]
    draws: int
    failures: int

    @property
    def passed(self) -> bool:
        """Whether nothing is unusual."""
        return not any(each.unusual for each in self.comparisons)

    @property
    def sentences(self) -> list[str]:
        """What is unusual, in words, with what it may mean; or that nothing is."""
        odd = [each for each in self.comparisons if each.unusual]
        found = [self._said(each) for each in odd]
        if not odd:
            found = ["The data look like those that the model makes: no test quantity is unusual."]
        if self.failures:
            found.append(f"{counted(self.failures, 'draw')} made the simulator fail; they are left out.")
        return found

    def _said(self, each: Comparison) -> str:
        side = "above" if each.p < 0.5 else "below"
        share = 100 * (1 - each.p if each.p < 0.5 else each.p)
        where = "all" if share == 100 else f"{number(share)} %"
        told = (
            f"The {each.name} of the data, {number(each.value, 4)}, lies {side} {where} of the replicated ones "
            f"({number(each.low, 4)} … {number(each.high, 4)})"
        )
        if each.name.startswith("misfit"):
            remedy = (
                "the model fits worse than its noise explains: a term is missing, or the noise scale is too small."
                if side == "above"
                else "the model fits better than its noise allows: the noise scale is too large, or it overfits."
            )
        else:
            remedy = "a feature of the data that the model does not make."
        return f"{told}: {remedy}"

    def __str__(self) -> str:
        return "\n".join([table(*self._cells()), *self.sentences])

    def _repr_html_(self) -> str:
        return html_table(*self._cells()) + "".join(f"<p>{sentence}</p>" for sentence in self.sentences)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = ["test quantity", "data", "replicated, 2.5 %", "97.5 %", "p", ""]
        rows = [
            [
                each.name,
                *(number(value, 4) for value in (each.value, each.low, each.high)),
                f"{each.p:.3f}",
                "unusual" if each.unusual else "",
            ]
            for each in self.comparisons
        ]
        return head, rows


def predict(
    problem: Problem, free: Tensor, template: tree.Tree, generator: torch.Generator, chosen: Tensor
) -> Predictions:
    """Predictions of free numbers ``(draws, dimension)``.

    Args:
        problem: what is asked.
        free: the draws.
        template: any free ``z``.
        generator: of the noise.
        chosen: which draws these are.
    """

    def predicted_by(row: Tensor) -> Tensor:
        z = problem.unknown.natural(tree.unravel(row, template))
        return torch.cat([part.reshape(-1) for part in predictions(problem, z)])

    data = measurements(problem)
    rows = free.to(tree.leaves(template)[0])
    with torch.no_grad():
        batched = len(rows) > 1 and vectorises(predicted_by, rows[:2])
        flat = each(predicted_by, rows, batched=batched)
    there = torch.cat([~torch.isnan(part).reshape(-1) for part in data])
    usable = torch.isfinite(flat[:, there]).all(1)
    flat, rows = flat[usable], rows[usable]
    predicted = [
        part.reshape(-1, *like.shape)
        for part, like in zip(flat.split([part.numel() for part in data], 1), data, strict=True)
    ]
    replicated: list[list[Tensor]] = [[] for _ in data]
    real, fake = [], []
    with torch.no_grad():
        for k, row in enumerate(rows):
            z = problem.unknown.natural(tree.unravel(row, template))
            one = [part[k] for part in predicted]
            made = _with_noise(problem, one, data, z, generator)
            real.append(_log_likelihood(problem, one, data, z))
            fake.append(_log_likelihood(problem, one, made, z))
            for place, part in zip(replicated, made, strict=True):
                place.append(part)
    empty = torch.zeros(0, dtype=flat.dtype)
    return Predictions(
        times=measured_times(problem),
        measured=[part.cpu() for part in data],
        predicted=[part.cpu() for part in predicted],
        replicated=[
            torch.stack(parts).cpu() if parts else like.new_zeros(0, *like.shape).cpu()
            for parts, like in zip(replicated, data, strict=True)
        ],
        log_likelihood=torch.stack(real).cpu() if real else empty,
        replicated_log_likelihood=torch.stack(fake).cpu() if fake else empty,
        failures=int((~usable).sum()),
        chosen=chosen[usable.cpu()],
    )


def measured_times(problem: Problem) -> list[np.ndarray]:
    """When was measured, one array for each observation."""
    return [
        problem.simulator.dt
        * np.array(range(problem.horizon + 1) if term.steps is None else term.steps, float)
        for term in misfits(problem)
    ]


def _with_noise(
    problem: Problem,
    predicted: Sequence[Tensor],
    data: Sequence[Tensor],
    z: tree.Tree,
    generator: torch.Generator,
) -> list[Tensor]:
    return [
        torch.where(torch.isnan(part), part, term.noise.sample(one, z, generator))
        for term, one, part in zip(misfits(problem), predicted, data, strict=True)
    ]


def _log_likelihood(
    problem: Problem, predicted: Sequence[Tensor], data: Sequence[Tensor], z: tree.Tree
) -> Tensor:
    parts = zip(misfits(problem), predicted, data, strict=True)
    return torch.stack([term.noise.log_density(part, one, z).sum() for term, one, part in parts]).sum()
