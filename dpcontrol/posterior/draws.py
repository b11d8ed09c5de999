"""What a sampler or an approximation hands back: draws of the free numbers, and what it noted on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dpcontrol.results import UsageError

Kind = Literal["mcmc", "independent", "ensemble"]
Note = float | str | list[Any]
PER_DRAW = {
    "log_density": torch.float64,
    "divergent": torch.bool,
    "energy": torch.float64,
    "accepted": torch.float64,
    "steps": torch.int64,
    "log_proposal": torch.float64,
}


@dataclass(frozen=True)
class Draws:
    """Draws of a posterior in *free* numbers (:meth:`Unknown.natural` leads to natural ones), as CPU tensors.

    numpy arrays and tensors of any dtype and device are taken in; they are kept in float64 (``divergent`` as bool,
    ``steps`` as int64).

    Attributes:
        free: ``(chains, draws, dimension)``, without warm-up.
        log_density: ``(chains, draws)``, of the free numbers (with Jacobian), up to a constant. Of an approximation,
            too, this is the log-density of the *problem*, not that of the approximation.
        kind: ``mcmc`` where the chains are correlated and converge to the posterior; ``independent`` where the draws
            are independent ones from an approximation (laplace, svi; one chain); ``ensemble`` where they are particles
            that moved together (ensemble Kalman inversion; one chain).
        divergent: ``(chains, draws)``, whether the transition to this draw diverged.
        energy: ``(chains, draws)``, the Hamiltonian at the start of the transition (kinetic energy minus log-density).
        accepted: ``(chains, draws)``, the acceptance probability of the transition (averaged over its tree in NUTS).
        steps: ``(chains, draws)``, gradients (leapfrogs), or densities without gradients, of the transition.
        log_proposal: ``(chains, draws)``, for kind ``independent``: log-density of the approximation itself at its
            draws, in free numbers; with it the approximation is checked by importance weights.
        notes: plain values that belong to the method: step size, mass, length of the warm-up, evidence bound ...

    Raises:
        UsageError: if shapes do not agree or there are no draws.
    """

    free: Tensor
    log_density: Tensor
    kind: Kind = "mcmc"
    divergent: Tensor | None = None
    energy: Tensor | None = None
    accepted: Tensor | None = None
    steps: Tensor | None = None
    log_proposal: Tensor | None = None
    notes: Mapping[str, Note] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"draws are of the kind {', '.join(get_args(Kind))}; found {self.kind!r}.")
        free = torch.as_tensor(self.free).detach().to("cpu", torch.float64)
        if free.ndim != 3 or 0 in free.shape:
            raise UsageError(f"draws have the shape (chains, draws, dimension); found {tuple(free.shape)}.")
        object.__setattr__(self, "free", free)
        plain = {name: _plain(note) for name, note in self.notes.items()}
        object.__setattr__(self, "notes", plain)
        for name, dtype in PER_DRAW.items():
            given = getattr(self, name)
            if given is None and name != "log_density":
                continue
            found = torch.as_tensor(given).detach().to("cpu", dtype)
            if found.shape != free.shape[:2]:
                raise UsageError(
                    f"{name} of draws has the shape (chains, draws), here {tuple(free.shape[:2])}; found "
                    f"{tuple(found.shape)}."
                )
            object.__setattr__(self, name, found)

    @property
    def chains(self) -> int:
        """How many chains there are."""
        return self.free.shape[0]

    @property
    def count(self) -> int:
        """Draws of each chain."""
        return self.free.shape[1]

    @property
    def dimension(self) -> int:
        """How many free numbers are sought."""
        return self.free.shape[2]

    @property
    def divergences(self) -> int:
        """How many transitions diverged."""
        return 0 if self.divergent is None else int(self.divergent.sum())

    def flat(self) -> Tensor:
        """All chains behind each other, ``(chains * draws, dimension)``."""
        return self.free.reshape(-1, self.dimension)

    def to_tree(self) -> dict[str, Any]:
        """A tree of tensors and plain values that :mod:`dpcontrol.store` can keep."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {**found, "notes": dict(self.notes)}

    @classmethod
    def from_tree(cls, stored: Mapping[str, Any]) -> Draws:
        """The draws that :meth:`to_tree` described."""
        return cls(**stored)


def _plain(note: Any) -> Note:
    """Arrays as lists, so that notes can be stored and printed."""
    return note.tolist() if isinstance(note, (Tensor, np.ndarray, np.generic)) else note
