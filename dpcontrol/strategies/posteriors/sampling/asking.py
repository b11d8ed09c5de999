"""Points with their log-densities, the chains that stand at them, and the question that they ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dpcontrol.strategies.posteriors.sampling.step_size import StepSize

Array = np.ndarray
Ask = Callable[[Array], tuple[Array, Array]]
"""From points ``(rows, dimension)`` to log-densities ``(rows,)`` and gradients ``(rows, dimension)``.

Rows are chains; which of them a batch holds is the sampler's affair. ``-inf`` (with any gradient) is a point that
cannot be. A kernel that needs no gradients ignores them.
"""


@dataclass(frozen=True)
class Points:
    """Where chains stand: ``x (rows, dimension)``, ``log_density (rows,)``, ``gradient (rows, dimension)``."""

    x: Array
    log_density: Array
    gradient: Array

    @classmethod
    def asked(cls, ask: Ask, x: Array) -> Points:
        """The points ``x`` with the answers that belong to them."""
        value, gradient = ask(x)
        return cls(x, value, gradient)

    def take(self, rows: Array | slice) -> Points:
        """Some rows."""
        return Points(self.x[rows], self.log_density[rows], self.gradient[rows])

    def where(self, chosen: Array, other: Points) -> Points:
        """``other`` in the rows that are ``chosen (rows,)``, these points elsewhere."""
        wide = chosen[:, None]
        return Points(
            np.where(wide, other.x, self.x),
            np.where(chosen, other.log_density, self.log_density),
            np.where(wide, other.gradient, self.gradient),
        )


@dataclass(frozen=True)
class Moved:
    """One transition of all chains; all but the points are ``(chains,)``.

    Attributes:
        points: where the chains stand now.
        accepted: the acceptance probability, averaged over the trajectory in NUTS: what the step size is tuned by.
        divergent: whether the numerical trajectory left the level of energy that it should keep.
        steps: gradients (or densities, where the kernel needs no gradients) of the transition.
        energy: minus log-density plus kinetic energy at the beginning; minus log-density without momenta.
    """

    points: Points
    accepted: Array
    divergent: Array
    steps: Array
    energy: Array


@dataclass(frozen=True)
class Chains:
    """Everything that the future of some chains depends on, beside the metric.

    ``randoms`` are advanced in place by a transition; everything else is a value. The arrays of ``size`` are
    ``(chains,)``.
    """

    points: Points
    size: StepSize
    randoms: list[np.random.Generator]

    @property
    def count(self) -> int:
        """How many chains."""
        return len(self.randoms)

    def take(self, first: int, behind: int) -> Chains:
        """The chains from ``first`` up to ``behind``, as a share of their own."""
        part = slice(first, behind)
        return Chains(self.points.take(part), self.size.take(part), self.randoms[part])

    @classmethod
    def joined(cls, shares: list[Chains]) -> Chains:
        """The inverse of :meth:`take`."""
        points = Points(
            np.concatenate([share.points.x for share in shares]),
            np.concatenate([share.points.log_density for share in shares]),
            np.concatenate([share.points.gradient for share in shares]),
        )
        size = StepSize.joined([share.size for share in shares])
        return cls(points, size, [random for share in shares for random in share.randoms])

    def restarted(self) -> Chains:
        """The same chains with the step size sought anew, as after a change of the metric."""
        return replace(self, size=self.size.restarted())

    def pack(self) -> dict[str, Any]:
        """Arrays and plain values, for storing."""
        return {
            "x": self.points.x,
            "log_density": self.points.log_density,
            "gradient": self.points.gradient,
            "size": self.size.pack(),
            "randoms": [_packed(random) for random in self.randoms],
        }

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> Chains:
        """What :meth:`pack` described."""
        points = Points(packed["x"], packed["log_density"], packed["gradient"])
        return cls(
            points, StepSize.unpacked(packed["size"]), [_generator(state) for state in packed["randoms"]]
        )


def chain_randoms(seed: int, chains: int) -> list[np.random.Generator]:
    """A counter-based generator for each chain: chain ``i`` draws the same, however many others there are."""
    return [np.random.Generator(np.random.Philox(key=[seed, chain])) for chain in range(chains)]


def normals(randoms: list[np.random.Generator], dimension: int) -> Array:
    """Standard normal numbers ``(chains, dimension)``, each row from its own chain."""
    found = np.empty((len(randoms), dimension))
    for row, random in zip(found, randoms, strict=True):
        random.standard_normal(out=row)
    return found


def log_uniforms(randoms: list[np.random.Generator], count: int) -> Array:
    """Logarithms of uniform numbers in (0, 1], ``(chains, count)``."""
    found = np.empty((len(randoms), count))
    for row, random in zip(found, randoms, strict=True):
        random.random(out=row)
    return np.log(1.0 - found)


def _packed(random: np.random.Generator) -> dict[str, Any]:
    """The state of a Philox generator as lists of whole numbers."""
    state: Any = random.bit_generator.state
    return {
        "counter": state["state"]["counter"].tolist(),
        "key": state["state"]["key"].tolist(),
        "buffer": state["buffer"].tolist(),
        "rest": [state["buffer_pos"], state["has_uint32"], state["uinteger"]],
    }


def _generator(packed: dict[str, Any]) -> np.random.Generator:
    philox: Any = np.random.Philox()
    position, has_half, half = packed["rest"]
    philox.state = {
        "bit_generator": "Philox",
        "state": {name: np.array(packed[name], dtype=np.uint64) for name in ("counter", "key")},
        "buffer": np.array(packed["buffer"], dtype=np.uint64),
        "buffer_pos": position,
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(philox)
