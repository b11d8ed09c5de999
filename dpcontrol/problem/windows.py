"""Windows of reference trajectories: what a correction learns from, and what it is judged on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.examination import Examination
from dpcontrol.problem.reference import PARTS, Reference
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree


@dataclass(frozen=True)
class Windows:
    """Windows of the trajectories of one part: the distribution that training draws its scenarios from.

    As a sampler of :class:`~dpcontrol.problem.scenarios.Scenarios` it draws trajectories and beginnings alike.

    Attributes:
        reference: where they are cut from.
        steps: their length.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        unroll: how many steps a training is meant to go through the solver.
        sizes: root mean square of every leaf of the states of the training part.
        device: where the windows go.
        examination: what answers are asked beside windows of the test part.
    """

    reference: Reference
    steps: int
    part: str = "train"
    unroll: int = 4
    sizes: tuple[float, ...] = ()
    device: torch.device | None = None
    examination: Examination = field(default_factory=Examination)

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"a part of a reference is one of {', '.join(PARTS)}; found {self.part!r}.")
        for name in ("steps", "unroll"):
            value = getattr(self, name)
            if (
                not isinstance(value, int)
                or isinstance(value, bool)
                or not 1 <= value <= self.reference.steps
            ):
                raise UsageError(
                    f"the {name} of a window must be a whole number from 1 to the {self.reference.steps} steps of the "
                    f"reference; found {value!r}."
                )

    def __call__(self, generator: torch.Generator, count: int) -> dict[str, Tree]:
        own = torch.tensor(self.reference.split[self.part])
        chosen = own[torch.randint(len(own), (count,), generator=generator)]
        firsts = torch.randint(self.reference.steps - self.steps + 1, (count,), generator=generator)
        return self._cut(chosen, firsts)

    def of(self, part: str, steps: int) -> Windows:
        """Windows of another part or length."""
        return replace(self, part=part, steps=steps)

    def spread(self, most: int) -> dict[str, Tree]:
        """At most so many windows that do not overlap, evenly spread over trajectories and time; always the same."""
        own, places = self.reference.split[self.part], self.reference.steps // self.steps
        every = [(index, place * self.steps) for place in range(places) for index in own]
        count = min(most, len(every))
        kept = torch.tensor([every[(2 * i + 1) * len(every) // (2 * count)] for i in range(count)])
        return self._cut(*kept.unbind(1))

    def _cut(self, trajectories: Tensor, firsts: Tensor) -> dict[str, Tree]:
        return tree.to(self.reference.windows(trajectories, firsts, self.steps), device=self.device)
