"""The meter: how a strategy reaches its problem. All questions go through it, and into its books.

To a strategy a problem looks like ``instances`` separate minimisations of ``dimension`` numbers each: one instance per
scenario where nothing is shared, else a single one (the mean over scenarios). Vectors are *free* numbers: a slot with
a transform (a positive parameter with a prior) is unconstrained in them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.engine.gradients import Full, GradientMode
from dpcontrol.meter import rows
from dpcontrol.meter.books import Books
from dpcontrol.meter.budget import Budget, Progress
from dpcontrol.meter.linearised import Curved, Latest
from dpcontrol.problem.base import Problem
from dpcontrol.problem.candidates import each, vectorises
from dpcontrol.problem.predicting import measurements
from dpcontrol.problem.scenarios import Scenarios
from dpcontrol.results import Counts, NoInfluence
from dpcontrol.store import Journal, Record
from dpcontrol.tree import Tree


class Meter(Books):
    """See the module's docstring. Made by :func:`dpcontrol.run.run`.

    Args:
        problem: what is asked.
        budget: what it may cost.
        callback: called with a :class:`Progress` after each evaluation; a true answer stops the run.
        log: where answers are journalled, or ``None``.
        answers: answers of an interrupted run, to be given again instead of computed.
        kept: state that the strategy of an interrupted run had kept.
        keep_state: where :meth:`keep` stores, called with a function that makes the state.
    """

    def __init__(
        self,
        problem: Problem,
        budget: Budget | None = None,
        *,
        callback: Callable[[Progress], Any] | None = None,
        log: Journal | None = None,
        answers: list[Record] | None = None,
        kept: Tree = None,
        keep_state: Callable[[Callable[[], Tree]], None] | None = None,
    ) -> None:
        self.problem = problem
        self.latest = Latest()  # the point of which a graph is kept
        guess = problem.unknown.free(problem.start())
        self._batch = 1 if problem.separate else 0
        self._template = tree.detach(guess)
        self._start = self._to_rows(guess)
        self.dimension = self._start.shape[1]
        super().__init__(self._start, budget, callback, log, answers, kept, keep_state)

    # -- the search space ----------------------------------------------------------------------------------------

    def start(self) -> Tensor:
        """The start guess ``(instances, dimension)``."""
        return self._start.clone()

    def limits(self) -> tuple[Tensor, Tensor] | None:
        """Lower and upper bounds ``(instances, dimension)``, infinite where there are none; ``None`` without any."""
        pair = self.problem.unknown.limits(self.problem.pose())
        return None if pair is None else (self._to_rows(pair[0]), self._to_rows(pair[1]))

    def magnitudes(self) -> Tensor:
        """Typical magnitudes of changes ``(instances, dimension)``."""
        return self._to_rows(self.problem.unknown.magnitude(self.problem.pose()))

    def trees(self, x: Tensor) -> dict[str, Tree]:
        """Natural ``z`` of rows ``(rows, dimension)`` (of a single row where slots are shared)."""
        free = tree.unravel(x if self._batch else x[0], self._template, self._batch)
        return self.problem.unknown.natural(free)

    def layout(self) -> Tree:
        """A tree shaped like one instance's free numbers: what a reduced basis is built from."""
        return tree.map(lambda leaf: leaf[0], self._template) if self._batch else self._template

    def latest_failure(self) -> tuple[dict[str, Tree], Tensor | None] | None:
        """The latest point that gave something not finite: natural ``z`` and its scenario ``(1,)``; ``None`` for none.

        The scenario is ``None`` where the searches share something, so that all scenarios belong to the point.
        """
        if self.ledger.failed is None:
            return None
        x, which = self.ledger.failed
        return self.trees(x), torch.tensor([which]) if self._batch else None

    def best_value(self) -> dict[str, Tree]:
        """The best so far, as natural ``z``."""
        return self.trees(self.best_x)

    def _to_rows(self, z: Tree) -> Tensor:
        rows = tree.ravel(z, self._batch).detach()
        return rows if self._batch else rows[None]

    # -- questions -------------------------------------------------------------------------------------------------

    def values(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """Losses ``(rows,)`` of points ``(rows, dimension)``; infinite where the system fails.

        ``which`` ``(rows,)`` names the instance of each row, repetition allowed; all in order by default.
        """
        which = self._rows(x, which)

        def compute() -> list[Tensor]:
            with torch.no_grad():
                return [self._losses(x, which)]

        return self._ask("values", x, which, compute, sweeps=0)[0]

    def values_and_gradients(self, x: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Losses ``(rows,)`` and gradients ``(rows, dimension)``; where either is not finite, ``inf`` and ``nan``."""
        which = self._rows(x, which)

        def compute() -> list[Tensor]:
            point = x.detach().requires_grad_()
            losses = self._losses(point, which)
            if not losses.requires_grad:
                raise NoInfluence(
                    f"the loss of {self.problem.name} does not depend on what is sought, "
                    f"{' and '.join(self.problem.unknown.names)}: let it act in the step, or cost something."
                )
            gradient = torch.autograd.grad(losses.sum(), point)[0]
            return [losses.detach(), gradient]

        values, gradients = self._ask("gradients", x, which, compute, sweeps=1)
        return values, gradients

    def hessian_products(self, x: Tensor, v: Tensor, which: Tensor | None = None) -> Tensor:
        """Products ``(rows, dimension)`` of each row's Hessian with the row of ``v`` (exact, reverse over reverse).

        The graph of the latest points is kept for more products, where the problem's gradient mode keeps graphs.
        """
        which = self._rows(x, which)

        def compute() -> list[Tensor]:
            def curved() -> Curved:
                return Curved(lambda point: self._losses(point, which), x)

            keeps = isinstance(self.problem.gradient, Full)
            here = self.latest.of("losses", x, which, curved) if keeps else curved()
            return [here.losses, here.product(v)]

        return self._ask("products", torch.cat([x, v]), which, compute, sweeps=2)[1]

    # -- questions about a posterior: rows are chains, particles, ensemble members ---------------------------------

    def log_densities(self, x: Tensor) -> Tensor:
        """Posterior log-densities ``(rows,)`` of free numbers ``(rows, dimension)``, up to a constant.

        ``-inf`` where the system fails, which is counted. The best point is the one of the highest density so far.
        """

        def compute() -> list[Tensor]:
            with torch.no_grad():
                return [self._each_row(self._log_density, x, self._impossible)]

        return self._densities("densities", x, compute, sweeps=0)[0]

    def log_likelihoods(self, x: Tensor) -> Tensor:
        """Log-likelihoods ``(rows,)`` of the data; ``-inf`` where the system fails. Charged like a density."""

        def compute() -> list[Tensor]:
            with torch.no_grad():
                return [self._each_row(self._log_density, x, self._impossible)]

        return self._densities("densities", x, compute, sweeps=0)[1]

    def log_densities_and_gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`log_densities` and gradients ``(rows, dimension)``; ``-inf`` and zero where one is not finite."""

        def compute() -> list[Tensor]:
            point = x.detach().requires_grad_()
            found = self._each_row(self._log_density, point, self._impossible)
            gradient = torch.autograd.grad(found[:, 1].sum(), point)[0]
            return [found.detach(), gradient]

        densities, _, gradients = self._densities("slopes", x, compute, sweeps=1)
        return densities, gradients

    def predictions(self, x: Tensor) -> Tensor:
        """Predicted measurements ``(rows, entries)``, in one flat order; NaN where the system fails."""

        def compute() -> list[Tensor]:
            with torch.no_grad():
                return [self._each_row(lambda row: rows.flat_predictions(self.problem, self._free(row)), x)]

        return self._answer("predictions", x, self._joint_rows(x), compute, self._price(len(x), 0))[0][0]

    def fisher_roots(self, x: Tensor) -> Tensor:
        """``J (entries, dimension)`` at a point ``(1, dimension)``, with ``J^T J`` the expected Fisher information.

        That is the Gauss-Newton Hessian of the misfit in free numbers. Charged are one run, and a gradient without its
        run for each tangent or cotangent.
        """
        entries = sum(int((~torch.isnan(data)).sum()) for data in measurements(self.problem))
        forward = self.dimension <= 2 * entries
        sweeps, scenarios = self.dimension if forward else entries, self.problem.scenarios.count
        price = Counts(scenarios * max(self.problem.horizon, 1) * (1 + sweeps), scenarios * sweeps)

        def compute() -> list[Tensor]:
            return [rows.jacobian_of_fisher_roots(self.problem, self._template, x[0], forward=forward)]

        return self._answer("roots", x, self._joint_rows(x), compute, price)[0][0]

    def prior_hessian(self, x: Tensor) -> Tensor:
        """Minus the Hessian ``(dimension, dimension)`` of the prior's log-density in free numbers; costs nothing."""
        return rows.prior_hessian(self.problem, self._template, x.reshape(-1))

    # -- questions about samples of scenarios ------------------------------------------------------------------------

    def sampled_gradient(
        self,
        x: Tensor,
        scenarios: Scenarios,
        mode: GradientMode | None = None,
        *,
        horizon: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Losses ``(scenarios,)`` on other scenarios, and the gradient ``(1, dimension)`` of their mean.

        For stochastic training of something shared; such losses are charged, but never the best so far (tell the meter
        a judged loss by :meth:`observe`). ``mode`` replaces how the rollout is differentiated, ``horizon`` its
        number of steps (for scenarios of that many). Numbers that are not finite are handed on as they are, and
        counted. They are not journalled: a strategy that asks for them stores its state.
        """
        point = x.detach().requires_grad_()
        losses = self._sampled(point, scenarios, mode, horizon, sweeps=1)
        gradient = torch.autograd.grad(losses.mean(), point)[0]
        return losses.detach(), gradient

    def sampled_values(self, x: Tensor, scenarios: Scenarios, *, horizon: int | None = None) -> Tensor:
        """Losses ``(scenarios,)`` on other scenarios than the problem's own; see :meth:`sampled_gradient`."""
        with torch.no_grad():
            return self._sampled(x, scenarios, None, horizon, sweeps=0)

    def sampled_rows(self, x: Tensor, scenarios: Scenarios) -> Tensor:
        """Losses ``(rows, scenarios)`` of several candidates ``(rows, dimension)`` on other scenarios, as one batch.

        Charged like so many :meth:`sampled_values`. Losses that are not finite are handed on as they are, and counted.
        """
        if self._batch or self._log is not None:
            raise ValueError("samples are for shared unknowns and for strategies that store their state")
        price = Counts(len(x) * scenarios.count * max(self.problem.horizon, 1), 0)
        self._stop_if_spent(price)
        asked = replace(self.problem, scenarios=scenarios)
        with torch.no_grad():
            losses = self._each_row(lambda row: asked.loss(self.trees(row[None])), x)
        failures = int((~torch.isfinite(losses)).sum())
        self.ledger.counts = self.counts + replace(price, failures=failures)
        return losses

    def _sampled(
        self, x: Tensor, scenarios: Scenarios, mode: GradientMode | None, horizon: int | None, *, sweeps: int
    ) -> Tensor:
        if self._batch or self._log is not None:
            raise ValueError("samples are for shared unknowns and for strategies that store their state")
        count = scenarios.count
        length, mode = horizon or self.problem.horizon, mode or self.problem.gradient
        steps = max(length, 1)
        back = sweeps * (mode.swept(steps) + self._again(mode, steps))
        price = Counts(count * (steps + back), count * sweeps)
        self._stop_if_spent(price)
        asked = replace(self.problem, scenarios=scenarios, gradient=mode, horizon=length)
        losses = asked.loss(self.trees(x))
        failures = int((~torch.isfinite(losses)).sum())
        self.ledger.counts = self.counts + replace(price, failures=failures)
        return losses

    def observe(self, x: Tensor, values: Tensor, steps: int) -> None:
        """Take note of losses ``(instances,)`` from a strategy's own rollouts of ``steps`` scenario-steps."""
        self._ask("observed", x, self._rows(x, None), lambda: [values], sweeps=0, steps=steps)

    # -- for nested strategies ----------------------------------------------------------------------------------------

    def beginning_at(self, x: Tensor) -> Meter:
        """The same meter with another start, for a strategy that prepares one and leaves all the rest to another."""
        other = copy.copy(self)
        other._start = x.clone()
        return other

    def starting_at(self, x: Tensor) -> Meter:
        """The same meter seen by a nested strategy that starts elsewhere: counts, budget and best are shared."""
        nested = copy.copy(self)
        nested._start, nested._kept, nested._keep_state = x.clone(), None, None
        return nested

    # -- inside ------------------------------------------------------------------------------------------------------

    def _rows(self, x: Tensor, which: Tensor | None) -> Tensor:
        if which is None:
            which = torch.arange(self.instances)
        if x.shape != (len(which), self.dimension):
            raise ValueError(f"points {tuple(x.shape)} do not fit ({len(which)}, {self.dimension})")
        return which

    def _losses(self, x: Tensor, which: Tensor) -> Tensor:
        if self.problem.separate:
            whole = len(which) == self.instances and bool((which == torch.arange(self.instances)).all())
            return self.problem.loss(self.trees(x), None if whole else which)
        return self._each_row(self._joint_loss, x)

    def _joint_loss(self, row: Tensor) -> Tensor:
        return self.problem.loss(self.trees(row[None])).mean()

    def _log_density(self, row: Tensor) -> Tensor:
        return rows.log_density_of(self.problem, self._free(row))

    def _free(self, row: Tensor) -> Tree:
        return tree.unravel(row, self._template)

    def _joint_rows(self, x: Tensor) -> Tensor:
        if self._batch:
            raise ValueError("a posterior is one search: pose the problem with joint=True")
        return self._rows(x, torch.zeros(len(x), dtype=torch.long))

    def _impossible(self, row: Tensor, error: Exception) -> Tensor:
        """What stands for log-likelihood and log-density where the simulator raised something; it is remembered."""
        self.ledger.crash = f"{type(error).__name__}: {str(error).rstrip('.')}"
        return torch.full((2,), float("nan"), dtype=row.dtype, device=row.device) + 0.0 * row.sum()

    def _each_row(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        failed: Callable[[Tensor, Exception], Tensor] | None = None,
    ) -> Tensor:
        """A function of one candidate, of all of them: as one batch where its steps allow that, found out once."""
        if self.ledger.vectorises is None and len(x) > 1:
            self.ledger.vectorises = vectorises(function, x[:2].detach())
        return each(function, x, batched=bool(self.ledger.vectorises), failed=failed)

    def _price(self, rows: int, sweeps: int) -> Counts:
        scenarios = rows if self.problem.separate else rows * self.problem.scenarios.count
        steps = max(self.problem.horizon, 1)
        # a product of a Hessian runs forward and back twice
        forward = 2 if sweeps == 2 else 1
        again = self._again(self.problem.gradient, steps) if sweeps else 0
        return Counts(scenarios * (steps * (forward + sweeps) + again), scenarios * sweeps)

    def _again(self, mode: GradientMode, steps: int) -> int:
        """Steps of one scenario that a gradient mode runs again on the way back."""
        return mode.again(steps, self.problem.scenarios.data.get("initial_state"))

    def _ask(
        self,
        kind: str,
        x: Tensor,
        which: Tensor,
        compute: Callable[[], list[Tensor]],
        *,
        sweeps: int,
        steps: int | None = None,
    ) -> list[Tensor]:
        price = self._price(len(which), sweeps) if steps is None else Counts(steps, 0)
        answer, finite = self._answer(kind, x, which, compute, price)
        answer[0] = torch.where(finite, answer[0], torch.full_like(answer[0], float("inf")))
        if kind != "products":
            self._note(x, which, answer[0])
        return answer

    def _densities(
        self, kind: str, x: Tensor, compute: Callable[[], list[Tensor]], *, sweeps: int
    ) -> tuple[Tensor, ...]:
        """Log-densities and log-likelihoods, each ``(rows,)``, and what else was computed; the best row is noted.

        Where something is not finite, the former are ``-inf`` and the latter zero.
        """
        before = self.counts.failures
        answer, finite = self._answer(kind, x, self._joint_rows(x), compute, self._price(len(x), sweeps))
        if self.counts.failures > before:
            answer[0] = torch.where(finite[:, None], answer[0], -torch.inf)
            answer[1:] = [torch.where(finite[:, None], rest, 0.0) for rest in answer[1:]]
        likelihoods, densities = answer[0].unbind(1)
        highest = float(densities.max())
        if highest > self.ledger.best_density:
            self.ledger.best_density, top = highest, int(densities.argmax())
            row = x[top : top + 1].detach()
            with torch.no_grad():
                cost = -(likelihoods[top] + self.problem.log_prior(self.trees(row)))
            self._note(row, torch.zeros(1, dtype=torch.long), cost[None] / self.problem.scenarios.count)
        else:
            # chains ask millions of times: a row for each further hundredth of the steps tells it as well
            steps = self.ledger.history.simulated_steps
            if not steps or self.counts.simulated_steps >= 1.01 * steps[-1]:
                self._write_row(float(self.best.mean()))
            self._report()
        return densities, likelihoods, *answer[1:]
