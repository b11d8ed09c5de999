r"""The step size of every chain, found by dual averaging of its acceptance probability."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
STARTED, RESTARTED = 10.0, 2.0  # how far above its first guess a search looks


@dataclass(frozen=True)
class StepSize:
    r"""Dual averaging, one per chain; all arrays ``(chains,)``.

    .. math::
        \bar H_t = (1 - \tfrac{1}{t + t_0}) \bar H_{t-1} + \tfrac{1}{t + t_0} (\delta - \alpha_t), \quad
        \ln \epsilon_t = \mu - \tfrac{\sqrt t}{\gamma} \bar H_t, \quad
        \ln \bar\epsilon_t = t^{-\kappa} \ln \epsilon_t + (1 - t^{-\kappa}) \ln \bar\epsilon_{t-1}

    with :math:`\gamma = 0.05, t_0 = 10, \kappa = 0.75`, acceptance :math:`\alpha_t` and its target :math:`\delta`.

    Source: M. Hoffman, A. Gelman, "The No-U-Turn sampler", JMLR 15 (2014), equation 6 and section 3.2.1.
    """

    log_step: np.ndarray
    log_mean: np.ndarray
    excess: np.ndarray  # the running mean of target minus acceptance
    centre: np.ndarray  # mu
    time: int = 0

    @classmethod
    def starting(cls, step: np.ndarray, pull: float = STARTED) -> StepSize:
        """From first guesses ``(chains,)``; ``mu`` is at ``pull`` times these, so that larger steps are tried first."""
        log = np.log(step)
        return cls(log, log, np.zeros_like(log), log + np.log(pull))

    @property
    def step(self) -> np.ndarray:
        """The step sizes to move with while they are being found."""
        return np.exp(self.log_step)

    def learned(self, accepted: np.ndarray, target: float, largest: float = np.inf) -> StepSize:
        """After a transition of acceptance probabilities ``accepted``; no step exceeds ``largest``."""
        time = self.time + 1
        share = 1.0 / (time + T0)
        excess = (1.0 - share) * self.excess + share * (target - accepted)
        log_step = np.minimum(self.centre - np.sqrt(time) / GAMMA * excess, np.log(largest))
        weight = time**-KAPPA
        log_mean = weight * log_step + (1.0 - weight) * self.log_mean
        return StepSize(log_step, log_mean, excess, self.centre, time)

    def restarted(self) -> StepSize:
        """Dual averaging from its mean so far, as after a change of the metric."""
        return StepSize.starting(np.exp(self.log_mean), RESTARTED)

    def settled(self) -> StepSize:
        """The median of the chains' means for all of them from now on; what they are now, if nothing was learned."""
        log = np.full_like(self.log_mean, np.median(self.log_mean))
        return StepSize(log, log, np.zeros_like(log), log)

    def take(self, part: slice) -> StepSize:
        """Those of some chains."""
        return StepSize(
            self.log_step[part], self.log_mean[part], self.excess[part], self.centre[part], self.time
        )

    @classmethod
    def joined(cls, shares: list[StepSize]) -> StepSize:
        """Those of several shares of chains, which have made the same number of transitions."""
        return cls(
            np.concatenate([share.log_step for share in shares]),
            np.concatenate([share.log_mean for share in shares]),
            np.concatenate([share.excess for share in shares]),
            np.concatenate([share.centre for share in shares]),
            shares[0].time,
        )

    def pack(self) -> dict[str, Any]:
        """Arrays and plain values, for storing."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> StepSize:
        """What :meth:`pack` described."""
        return cls(**packed)
