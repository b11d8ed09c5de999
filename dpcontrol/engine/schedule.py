"""Which states to keep when not all of them fit: binomial checkpointing.

With ``c`` states at hand (the first one included) and at most ``r`` visits of each step, ``C(c + r, c)`` steps can be
reversed. Reversing ``n`` steps then takes ``r n - C(c + r, r - 1)`` plain steps, ``r`` the least that suffices, and no
schedule takes fewer. Source: A. Griewank, A. Walther, Algorithm 799: revolve, ACM TOMS 26 (2000), equations (3)-(5).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass


def visits(steps: int, states: int) -> int:
    """The least ``r`` with ``C(states + r, states) >= steps``."""
    r = 0
    while math.comb(states + r, states) < steps:
        r += 1
    return r


def plain_steps(steps: int, states: int) -> int:
    """Fewest plain (not differentiated) steps that reverse ``steps`` steps with ``states`` states, the first too."""
    if steps <= 1:
        return 0
    r = visits(steps, states)
    return r * steps - math.comb(states + r, r - 1)


def split(steps: int, states: int) -> int:
    """How far to advance before the next state is kept, so that the whole takes :func:`plain_steps` plain steps."""
    if states <= 1 or steps <= 1:
        raise ValueError("a split needs a second state and a second step")
    r = visits(steps, states)
    # the part behind the kept state may need r visits with one state fewer, the part before it r - 1 visits
    behind = math.comb(states - 1 + r, states - 1)
    before = math.comb(states + r - 2, states) if r >= 2 else 0
    return max(steps - behind, before, 1)


@dataclass(frozen=True)
class Plan:
    """How a loop of ``steps`` steps is reversed with at most ``states`` states stored at the same time.

    ``kept`` states are stored while the loop runs forward, at the ends of ``kept + 1`` segments; ``working`` more may
    be stored while a segment is reversed. ``recomputed`` counts all steps that are run again, those whose
    vector-Jacobian product is taken (each step once) included.
    """

    steps: int
    kept: int
    working: int

    @property
    def states(self) -> int:
        """States stored at the same time, at most."""
        return self.kept + self.working

    @property
    def bounds(self) -> tuple[int, ...]:
        """Steps at which the segments begin, and the end: ``0 = b_0 < b_1 < .. = steps``."""
        segments = self.kept + 1
        return tuple(round(i * self.steps / segments) for i in range(segments + 1))

    @property
    def recomputed(self) -> int:
        """Steps that are run again on the way back."""
        edges = self.bounds
        plain = sum(plain_steps(b - a, self.working + 1) for a, b in itertools.pairwise(edges))
        return plain + self.steps

    def __str__(self) -> str:
        factor = self.recomputed / self.steps if self.steps else 0.0
        again = f"{self.recomputed} steps run again ({factor:.2f} each)"
        return f"{self.steps} steps with {self.states} stored states: {again}"


def plan(steps: int, snapshots: int) -> Plan:
    """The plan with the least recomputation for at most ``snapshots`` states stored at the same time."""
    if snapshots >= steps - 1:
        return Plan(steps, max(steps - 1, 0), 0)
    candidates = [Plan(steps, kept, snapshots - kept) for kept in range(snapshots + 1)]
    return min(candidates, key=lambda candidate: (candidate.recomputed, candidate.kept))
