"""What strategies that answer with a posterior have in common."""

from __future__ import annotations

from dataclasses import replace

from dpcontrol.problem import Problem
from dpcontrol.run import Strategy


class PosteriorStrategy(Strategy):
    """A strategy that seeks the posterior of everything that is sought as one search, draws, and stores its state."""

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def stores_state(self) -> bool:
        return True

    def pose(self, problem: Problem) -> Problem:
        """The same problem as one search: a posterior is a density of everything that is sought."""
        return problem if problem.prior is None else replace(problem, joint=True)
