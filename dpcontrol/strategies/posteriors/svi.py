"""``svi``: stochastic variational inference, the normal distribution that is nearest to a posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from dpcontrol.meter import Meter
from dpcontrol.posterior import Draws
from dpcontrol.problem import View
from dpcontrol.results import Status
from dpcontrol.run import Outcome
from dpcontrol.strategies.checks import cap, one_of, positive, whole
from dpcontrol.strategies.minimising.gauss_newton import find_mode, load_forward_mode
from dpcontrol.strategies.posteriors.gaussian import NOWHERE, NothingPossible, effective_share, possible_draws
from dpcontrol.strategies.posteriors.guides import KINDS, Guide, LowRank, first_guide, guide_of_information
from dpcontrol.strategies.posteriors.joint import PosteriorStrategy

WINDOW = 20  # iterations whose bounds are averaged
FULL_UP_TO = 100
CROWDED = 0.5  # of the particles may fail before the guide is drawn together
TAKEN_BACK = 60  # steps before a fit is given up
QUIET = 0.5  # nats: a bound that is noisier than this has not settled
NOTED = 400  # bounds of the notes


@dataclass(frozen=True)
class SVI(PosteriorStrategy):
    r"""Fit a normal distribution q to a posterior by raising the evidence lower bound, in free numbers.

    .. math:: \mathrm{ELBO}(q) = E_q[\log p(y, x) - \log q(x)] = \log p(y) - KL(q\,|\,p(\cdot | y))

    Each iteration draws particles, in pairs of opposite noise, and asks for their gradients as one batch. With
    :math:`x = m + R \epsilon` and :math:`u = R^T \nabla \log p + \epsilon`, the gradient of the log-ratio in whitened
    coordinates, the step is

    .. math:: m' = m + \rho R\, \bar u, \qquad R'R'^T = R \exp(\rho\, \mathrm{sym}\, \overline{u \epsilon^T}) R^T ,

    the natural gradient, with the noise taken out that would remain at the optimum (the score of q itself is left out):
    where the posterior is in q's family the fit converges linearly, whatever its scales and correlations.

    It starts at the mode of the free numbers with the covariance of the expected information there, so that few steps
    are left. The rate is halved whenever the bound, averaged over 20 iterations, no longer rises beyond ``tolerance``
    and its own noise. When a halving, too, does not raise it, the fit has converged. A step after which the bound falls
    by more than noise can make it is taken back. Draws come with the importance weights between posterior
    and fit (effective sample size, Pareto k), which the verdict reports. The bound itself is in the notes.

    The step is our own and not Pyro's: its random numbers come from the run's generator and its state can be stored, so
    that a run resumes to the bit; all particles are one batch that the meter pays for; the natural gradient needs no
    tuning; and beyond the gradients an iteration costs a third of Pyro's (``tests/benchmarks/svi_overhead.py``).
    Pyro's guides fit the same problems through ``pyro_model(problem)``.

    Args:
        guide: ``"mean_field"`` (independent numbers: sds too small where the posterior is correlated), ``"low_rank"``
            (correlations in ``rank`` directions), ``"full"``; ``"auto"`` is full up to 100 unknowns, then low rank.
        rank: directions of a low-rank guide.
        particles: of each iteration, an even number.
        rate: first step size, below 1; taken smaller where there are fewer particles than directions.
        iterations: at most; ``None`` goes on until the budget is spent, and up to 5000 without one.
        tolerance: of the bound, in nats.
        halvings: of the rate, at least.
        start: ``"laplace"``, or ``"prior"``, the problem's start, which is for few unknowns.
        spread: first standard deviations from there, in units of the unknown's magnitudes (of the prior's, for white
            numbers).
        draws: from the fitted distribution.

    Source: G. Roeder, Y. Wu, D. Duvenaud, "Sticking the landing", NIPS 2017; W. Lin, M. Khan, M. Schmidt, "Stein's
    lemma for the reparameterization trick with exponential family mixtures", arXiv:1910.13398, for the natural
    gradient; M. Hoffman, D. Blei, C. Wang, J. Paisley, JMLR 14 (2013).
    """

    guide: str = "auto"
    rank: int = 20
    particles: int = 16
    rate: float = 0.5
    iterations: int | None = None
    tolerance: float = 0.01
    halvings: int = 3
    start: str = "laplace"
    spread: float = 0.3
    draws: int = 1000

    def __post_init__(self) -> None:
        one_of("SVI", ("auto", *KINDS), guide=self.guide)
        one_of("SVI", ("laplace", "prior"), start=self.start)
        whole("SVI", rank=self.rank, draws=self.draws)
        whole("SVI", least=2, particles=self.particles + self.particles % 2)
        whole("SVI", least=0, halvings=self.halvings)
        positive("SVI", rate=self.rate, tolerance=self.tolerance, spread=self.spread)
        if self.iterations is not None:
            whole("SVI", iterations=self.iterations)

    @property
    def needs(self) -> frozenset[View]:
        needed = {View.LOG_DENSITY, View.EXACT_GRADIENT}
        return frozenset(needed | {View.CURVATURE} if self.start == "laplace" else needed)

    def load(self) -> None:
        load_forward_mode()

    def run(self, meter: Meter, generator: torch.Generator) -> Status | Outcome:
        kept: Any = meter.resumed()
        fit = Fit.from_tree(kept) if kept is not None and "bounds" in kept else self._first(meter, kept)
        most = cap(self.iterations, meter, 5000)
        ended = "iterations spent"
        while fit.iterations < most:
            if fit.settled:
                ended = "converged"
                break
            if fit.taken_back > TAKEN_BACK:
                ended = "stalled"
                break
            if not self._affordable(meter):
                ended = "budget spent"
                break
            self._improve(fit, meter, generator)
            meter.keep(fit.to_tree)
        if not fit.bounds or not math.isfinite(fit.bounds[-1]):
            return Status(
                "diverged", "no particle had a finite density; a smaller spread or stress_test may help."
            )
        return self._told(fit, ended, meter, generator)

    def _first(self, meter: Meter, kept: Any) -> Fit:
        kind, start = self.guide, meter.start()[0].cpu().double()
        if kind == "auto":
            kind = "full" if meter.dimension <= FULL_UP_TO else "low_rank"
        scale = meter.magnitudes()[0].cpu().double()
        scale = torch.where(scale > 0, scale, 1.0)
        if self.start == "laplace":
            mode, found = find_mode(meter, None, kept)
            J = meter.fisher_roots(mode).cpu().double()
            small = meter.dimension <= FULL_UP_TO
            P = meter.prior_hessian(mode).cpu().double() if small else scale**-2
            proper = not small or float(torch.linalg.eigvalsh(P)[0]) > 0
            if found.kind != "diverged" and proper and bool(torch.isfinite(J).all()):
                return Fit(guide_of_information(kind, mode[0].cpu().double(), J, P, self.rank), self.rate)
        # in all but its own directions a guide of low rank keeps the prior's spread
        first = scale if kind == "low_rank" else self.spread * scale
        return Fit(first_guide(kind, start, first, self.rank), self.rate)

    def _affordable(self, meter: Meter) -> bool:
        """Whether another iteration leaves enough for the draws."""
        per_run = meter.problem.scenarios.count * max(meter.problem.horizon, 1)
        limits, counts = meter.budget, meter.counts
        steps = per_run * (2 * self._pairs * 2 + self.draws)
        if limits.simulated_steps is not None and counts.simulated_steps + steps > limits.simulated_steps:
            return not counts.simulated_steps  # where it is hopeless from the start the meter says so
        sweeps = 2 * self._pairs * meter.problem.scenarios.count
        if limits.gradients is not None and counts.gradients + sweeps > limits.gradients:
            return not counts.gradients
        return limits.seconds is None or meter.seconds < 0.95 * limits.seconds

    @property
    def _pairs(self) -> int:
        return (self.particles + 1) // 2

    def _improve(self, fit: Fit, meter: Meter, generator: torch.Generator) -> None:
        """One iteration."""
        guide, d = fit.guide, meter.dimension
        half = torch.randn(self._pairs, d, generator=generator, dtype=torch.float64)
        eps = torch.cat([half, -half])
        density, gradient = meter.log_densities_and_gradients(guide.place(eps).to(meter.best_x))
        density, gradient = density.to(eps), gradient.to(eps)
        good = torch.isfinite(density)
        ratio = (density - guide.log_density(eps))[good]
        bound = float(ratio.mean()) if len(ratio) else -math.inf
        if fit.fell(bound, d):
            return
        fit.note(bound, self.tolerance, self.halvings)
        if float(good.double().mean()) < CROWDED:
            fit.guide, fit.taken_back = guide.scaled(0.7), fit.taken_back + 1
            return
        u, eps = (guide.pull(gradient) + eps)[good], eps[good]
        shift = u.mean(0)
        # a sample covariance of few draws has eigenvalues up to this
        crowded = (
            1.0 if fit.kind == "mean_field" else (1 + math.sqrt(fit.directions(len(eps)) / len(eps))) ** 2
        )
        rate = fit.rate * fit.damping
        fit.before = guide
        fit.guide = guide.shifted(rate * shift).spread(u - shift, eps, rate / crowded)

    def _told(self, fit: Fit, ended: str, meter: Meter, generator: torch.Generator) -> Outcome:
        def draw(count: int) -> tuple[Tensor, Tensor]:
            noise = torch.randn(count, meter.dimension, generator=generator, dtype=torch.float64)
            return fit.guide.place(noise), fit.guide.log_density(noise)

        try:
            x, proposal, density = possible_draws(meter, draw, self.draws)
        except NothingPossible:
            return Outcome(Status("failed", NOWHERE))
        share = effective_share(density - proposal)
        every = -(-len(fit.bounds) // NOTED)
        notes: dict[str, Any] = {
            "method": "SVI",
            "guide": fit.kind,
            "iterations": fit.iterations,
            "elbo": fit.bound,
            "elbos": fit.bounds[::every],
            "weights_ess": share * len(x),
        }
        words = {
            "converged": "the evidence bound no longer rises",
            "iterations spent": "the iterations were spent while the bound was still settling",
            "budget spent": "the budget was spent while the bound was still settling",
            "stalled": "step after step had to be taken back; try nuts, or a richer guide",
        }[ended]
        sentence = (
            f"{words} ({fit.bound:.6g} nats after {fit.iterations:,} iterations, {fit.kind.replace('_', ' ')} guide); "
            f"{len(x):,} draws; reweighted to the posterior they are worth {share * len(x):,.0f}."
        )
        draws = Draws(x[None], density[None], kind="independent", log_proposal=proposal[None], notes=notes)
        return Outcome(Status(ended, sentence), draws=draws)


@dataclass
class Fit:
    """A fit on its way: the guide, the rate, and the bounds of all iterations so far."""

    guide: Guide
    rate: float
    settled: bool = False
    since: int = 0  # iterations at this rate
    bounds: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)  # of the bound, where it no longer rose
    taken_back: int = 0
    damping: float = 1.0  # of the steps, after one that went wrong
    before: Guide | None = None  # the guide of the last step

    def fell(self, bound: float, dimension: int) -> bool:
        """Whether the last step went very wrong, by more than noise can: it is taken back, and the next is shorter."""
        if self.before is None or not self.bounds or bound > self.bounds[-1] - 10.0 - dimension:
            self.damping = min(1.0, 1.2 * self.damping)
            return False
        self.guide, self.before, self.damping = self.before, None, 0.5 * self.damping
        self.taken_back += 1
        return True

    @property
    def iterations(self) -> int:
        """How many there were."""
        return len(self.bounds)

    @property
    def bound(self) -> float:
        """The bound, averaged over the last iterations."""
        last = self.bounds[-WINDOW:]
        return sum(last) / len(last)

    @property
    def kind(self) -> str:
        """The guide's kind."""
        return next(name for name, cls in KINDS.items() if cls is type(self.guide))

    def directions(self, particles: int) -> int:
        """In how many directions a step changes correlations."""
        own = self.guide.V.shape[1] + particles if isinstance(self.guide, LowRank) else len(self.guide.mean)
        return min(own, len(self.guide.mean))

    def note(self, bound: float, tolerance: float, halvings: int) -> None:
        """Take note of an iteration's bound; halve the rate where the last window is no better than the one before."""
        self.bounds.append(bound)
        self.since += 1
        if self.since < 2 * WINDOW or self.since % WINDOW:
            return
        last, before = (
            torch.tensor(self.bounds[-(k + 1) * WINDOW : len(self.bounds) - k * WINDOW]) for k in (0, 1)
        )
        noise = math.sqrt(float(last.var() + before.var()) / WINDOW)
        level = float(last.mean())
        if level - float(before.mean()) > tolerance + 2 * noise:
            return
        gained = level - self.levels[-1] if self.levels else math.inf
        self.levels.append(level)
        self.settled = len(self.levels) > halvings and gained <= tolerance + 2 * noise and noise < QUIET
        self.rate, self.since = self.rate / 2, 0

    def to_tree(self) -> dict[str, Any]:
        """What a resumed run needs."""
        own = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        before = None if self.before is None else self.before.tensors()
        lists = {"bounds": list(self.bounds), "levels": list(self.levels)}
        return {**own, **lists, "kind": self.kind, "guide": self.guide.tensors(), "before": before}

    @classmethod
    def from_tree(cls, kept: Mapping[str, Any]) -> Fit:
        """The fit that :meth:`to_tree` described."""
        cast = KINDS[kept["kind"]]
        guides = {name: None if kept[name] is None else cast(**kept[name]) for name in ("guide", "before")}
        plain = {name: value for name, value in kept.items() if name not in ("kind", "guide", "before")}
        lists = {name: list(kept[name]) for name in ("bounds", "levels")}
        return cls(**{**plain, **lists, **guides})
