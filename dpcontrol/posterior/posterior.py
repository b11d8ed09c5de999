"""``Posterior``: draws with the problem that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dpcontrol import tree
from dpcontrol.posterior.draws import Draws
from dpcontrol.posterior.predictive import Predictions, predict
from dpcontrol.posterior.summary import FEW, Summary, summarise
from dpcontrol.posterior.verdict import Verdict, judge
from dpcontrol.posterior.weights import pareto_shape
from dpcontrol.problem.base import Problem
from dpcontrol.problem.sites import sites
from dpcontrol.results import UsageError

if TYPE_CHECKING:
    import arviz


@dataclass(frozen=True)
class Posterior:
    """Draws of a problem's posterior, in the problem's own words.

    Sites are the names that the priors were given by: parameters (``viscosity``), ``initial_state``
    (``initial_state.u`` of a state that is a dict), ``noise``, and unknown scales of the measurement noise; the same as
    in ``pyro_model``.
    A site of which every experiment has a value of its own begins with the axis of scenarios. ``strategy`` is a name
    for the titles of pictures.
    """

    problem: Problem
    draws: Draws
    strategy: str = ""

    def __post_init__(self) -> None:
        if self.problem.prior is None:
            raise UsageError(
                f"{self.problem.name} has no prior: pose it with inference_problem(..., prior=...)."
            )
        size = tree.size(self._template())
        if size != self.draws.dimension:
            raise UsageError(
                f"{self.problem.name} seeks {size} numbers, but the draws have {self.draws.dimension}: pose the "
                "problem as it was when they were drawn."
            )

    def __repr__(self) -> str:
        draws = self.draws
        size = f"{draws.chains} x {draws.count} draws ({draws.kind}) of {draws.dimension} numbers"
        return f"Posterior of {self.problem.name}: {size}"

    def __str__(self) -> str:
        summary = self.summary()
        return f"{summary}\n\n{judge(summary)}"

    def _repr_html_(self) -> str:
        summary = self.summary()
        return summary._repr_html_() + judge(summary)._repr_html_()

    # -- numbers -----------------------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Natural numbers by site, ``(chains, draws, ...)``; computed at each call, so keep what you use often."""
        return {name: _array(name, value) for name, value in sites(self.natural(self.draws.free)).items()}

    def natural(self, free: torch.Tensor) -> dict[str, tree.Tree]:
        """The tree ``z`` of free numbers ``(..., dimension)``: its leaves have the same leading axes."""
        template = self._template()
        with torch.no_grad():
            return self.problem.unknown.natural(tree.unravel(free.to(tree.leaves(template)[0]), template))

    def summary(self, *, few: int = FEW) -> Summary:
        """Means, sds, quantiles and diagnostics of every site; a site with more than ``few`` entries is one row."""
        return summarise(
            self.draws,
            self.values,
            self.problem.simulator.state_names,
            few=few,
            weights_shape=self._weights_shape(),
        )

    def verdict(self) -> Verdict:
        """Whether the draws can be relied on, in words, with a remedy for each trouble.

        Chains are held to R-hat below 1.01, bulk and tail ESS above 400 everywhere (the log-density included), no
        divergences and E-BFMI above 0.3; approximations to a Pareto k of their importance weights below 0.7, where it
        is known.
        """
        return judge(self.summary())

    def predict(self, count: int = 200, generator: torch.Generator | None = None) -> Predictions:
        """Predictions and replicated data of ``count`` draws, evenly spaced over all chains.

        Args:
            count: how many draws; each is one rollout.
            generator: of the noise of the replicated data.
        """
        if count < 1:
            raise UsageError(f"count must be a number of draws, 1 or more; found {count!r}.")
        flat = self.draws.flat()
        chosen = torch.linspace(0, len(flat) - 1, min(count, len(flat)), dtype=torch.float64).round().long()
        noise = torch.Generator().manual_seed(0) if generator is None else generator
        return predict(self.problem, flat[chosen], self._template(), noise, chosen)

    # -- pictures ----------------------------------------------------------------------------------------------------

    def plot(self, path: str | Path | None = None) -> Any:
        """Marginals and predictions on one page; written to ``path`` (PNG, PDF, SVG) if one is given."""
        from dpcontrol import plot
        from dpcontrol.posterior.pictures import overview

        figure = overview(self)
        if path is not None:
            plot.write(figure, path)
        return figure

    def figures(self) -> dict[str, Any]:
        """All figures by name: marginals, pairs, traces, predictions, and one for each field."""
        from dpcontrol.posterior.pictures import figures

        return figures(self)

    # -- other programs ----------------------------------------------------------------------------------------------

    def to_arviz(
        self, *, predictions: int = 200, prior: int = 500, log_likelihood: bool = False
    ) -> arviz.InferenceData:
        """Everything as ArviZ's ``InferenceData`` (extra ``bayes``).

        Groups: posterior, sample_stats, observed_data, and what is asked for:

        Args:
            predictions: posterior_predictive, replicated data of so many draws, evenly spaced (0: none).
            prior: so many draws of the prior (0: none).
            log_likelihood: of each measurement under every draw, a rollout each, as ``arviz.loo`` needs it.
        """
        from dpcontrol.posterior.export import to_arviz

        return to_arviz(self, predictions=predictions, prior=prior, log_likelihood=log_likelihood)

    def to_netcdf(self, path: str | Path, **options: Any) -> Path:
        """Write :meth:`to_arviz` as a NetCDF file and return its path."""
        target = Path(path)
        self.to_arviz(**options).to_netcdf(str(target))
        return target

    # -- inside ------------------------------------------------------------------------------------------------------

    def _template(self) -> dict[str, tree.Tree]:
        return self.problem.unknown.free(self.problem.start())

    def _weights_shape(self) -> float | None:
        if self.draws.log_proposal is None:
            return None
        return pareto_shape((self.draws.log_density - self.draws.log_proposal).numpy().ravel())


def truths(problem: Problem) -> Mapping[str, np.ndarray]:
    """The true values that a problem knows, by site."""
    return {name: _array(name, value) for name, value in (problem.truth or {}).items()}


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float64).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{name} is {tree.describe(value)}, not one tensor, so it cannot be a site of a posterior."
        ) from error
