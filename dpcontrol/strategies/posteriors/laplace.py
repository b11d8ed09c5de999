"""``laplace``: the normal distribution that has a posterior's mode and curvature there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.meter.squares import density_hessian_products
from dpcontrol.posterior import Draws
from dpcontrol.problem import View
from dpcontrol.results import FAILED, Status
from dpcontrol.run import Outcome
from dpcontrol.strategies.checks import one_of, positive, whole
from dpcontrol.strategies.minimising.gauss_newton import find_mode, load_forward_mode
from dpcontrol.strategies.posteriors.gaussian import (
    BATCH,
    NOWHERE,
    Normal,
    NothingPossible,
    NotPositive,
    effective_share,
    low_rank_eigenpairs,
    possible_draws,
)
from dpcontrol.strategies.posteriors.joint import PosteriorStrategy

NOTED = 1000  # unknowns up to which the notes have mode and standard deviations


@dataclass(frozen=True)
class Laplace(PosteriorStrategy):
    r"""Laplace's approximation :math:`N(m, H^{-1})` of a posterior, in free numbers, and draws from it.

    ``m`` is the mode of the density of the *free* numbers (with the Jacobian of their map), not the usual estimate (the
    mode of the density of the natural ones): free numbers are unbounded and white under the prior, so a normal
    distribution suits them, and only at the mode of its own density has the expansion no linear term. It is found in a
    trust region with the exact gradient and the expected information of the data, from the problem's start. The
    answer's ``value`` remains the most probable point that was met.

    ``H`` is minus the Hessian of the log-density at ``m``:

    - ``"exact"``: products with all unit vectors (two gradients' price each), dense;
    - ``"gauss_newton"``: the expected information :math:`J^T J` of the data and the Hessian of the prior, always
      positive where the prior is; exact for linear predictions;
    - ``"low_rank"``: for white priors, :math:`H = I + V \Lambda V^T` with the eigenpairs of the data's exact Hessian
      whose size is above ``tolerance``: in white numbers directions of small eigenvalues keep their prior variance, so
      that the number of products depends on what the data say and not on the number of unknowns;
    - ``"auto"``: exact up to 200 unknowns, then low rank for white priors.

    The draws are independent; their ``notes`` have mode and standard deviations, in free numbers. Their log-densities
    are evaluated too: the importance weights between posterior and approximation give their effective sample size and
    Pareto k, which the verdict reports.

    Args:
        draws: how many.
        hessian: see above.
        tolerance: eigenvalues of the data's Hessian below this are left out.
        iterations: to find the mode, at most; ``None`` goes on until the budget is spent, and up to 200 without one.

    Source: L. Tierney, J. Kadane, "Accurate approximations for posterior moments", JASA 81 (1986); T. Bui-Thanh et al.,
    "A computational framework for infinite-dimensional Bayesian inverse problems", SIAM J. Sci. Comput. 35 (2013).
    """

    draws: int = 1000
    hessian: str = "auto"
    tolerance: float = 0.01
    iterations: int | None = None

    def __post_init__(self) -> None:
        whole("Laplace", draws=self.draws)
        one_of("Laplace", ("auto", "exact", "gauss_newton", "low_rank"), hessian=self.hessian)
        positive("Laplace", tolerance=self.tolerance)
        if self.iterations is not None:
            whole("Laplace", iterations=self.iterations)

    @property
    def needs(self) -> frozenset[View]:
        needed = {View.LOG_DENSITY, View.EXACT_GRADIENT, View.CURVATURE}
        return frozenset(needed | {View.WHITE_PRIOR} if self.hessian == "low_rank" else needed)

    def load(self) -> None:
        load_forward_mode()

    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        kept: Any = meter.resumed()
        mode, found = find_mode(meter, self.iterations, kept)
        if found.kind in FAILED and found.kind != "stalled":
            return found
        try:
            normal, notes = self._expanded(meter, mode, generator)
        except NotPositive as error:
            return Status("failed", _not_positive(error.lowest, self._kind(meter)))
        try:
            x, proposal, density = possible_draws(meter, lambda n: normal.draw(n, generator), self.draws)
        except NothingPossible:
            return Status("failed", NOWHERE)
        share = effective_share(density - proposal)
        notes["weights_ess"] = share * len(x)
        if meter.dimension <= NOTED:
            notes.update(mode=mode[0].tolist(), sd=normal.sd().tolist())
        sentence = (
            f"a normal distribution about the mode of the free numbers ({found.sentence.rstrip('.')}), "
            f"{notes['expansion']}; {len(x):,} draws; reweighted to the posterior they are worth {share * len(x):,.0f}."
        )
        drawn = Draws(x[None], density[None], kind="independent", log_proposal=proposal[None], notes=notes)
        return Outcome(Status(found.kind, sentence), draws=drawn)

    def _kind(self, meter: Meter) -> str:
        if self.hessian != "auto":
            return self.hessian
        many = meter.dimension > 200
        return "low_rank" if many and View.WHITE_PRIOR in meter.problem.offers else "exact"

    def _expanded(
        self, meter: Meter, mode: Tensor, generator: torch.Generator
    ) -> tuple[Normal, dict[str, Any]]:
        """The approximation, and what there is to note of it."""
        kind, d = self._kind(meter), meter.dimension
        at = mode[0].cpu().double()

        def product(rows: Tensor) -> Tensor:
            parts = [density_hessian_products(meter, mode, some.to(mode)) for some in rows.split(BATCH)]
            return torch.cat(parts).cpu().double()

        if kind == "low_rank":
            V, c = low_rank_eigenpairs(lambda rows: product(rows) - rows, d, self.tolerance, generator)
            words = f"{len(c)} of {d} directions informed by the data"
            return Normal.of_update(at, V, c), {
                "method": "Laplace",
                "expansion": words,
                "eigenvalues": c.tolist(),
            }
        if kind == "exact":
            H = product(torch.eye(d, dtype=torch.float64))
        else:
            J = meter.fisher_roots(mode).cpu().double()
            H = J.T @ J + meter.prior_hessian(mode).cpu().double()
        normal = Normal.of_hessian(at, 0.5 * (H + H.T))
        words = "exact Hessian" if kind == "exact" else "Gauss-Newton Hessian"
        return normal, {"method": "Laplace", "expansion": words}


def _not_positive(lowest: float, kind: str) -> str:
    other = "hessian='gauss_newton' or nuts" if kind != "gauss_newton" else "a proper prior, or nuts"
    return (
        f"minus the Hessian of the log-density at the mode has the eigenvalue {lowest:.3g}, so there is no normal "
        f"distribution of this shape (a saddle, or a direction that neither data nor prior bound): try {other}."
    )
