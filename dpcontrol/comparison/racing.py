"""What a step of each solver costs: everybody in turn, again and again, on one thread; the least counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.comparison.marks import Timing
from dpcontrol.engine.trajectory import rollout
from dpcontrol.problem.evaluating import Setting

ROUNDS = 7
LONG_ENOUGH = 0.03  # seconds of one turn, so that the clock's own error is small
MOST_STEPS, MOST_BYTES = 2000, 2**26  # of one turn: its states are all kept


def race(
    settings: Mapping[str, Setting], batches: tuple[int, ...], tell: Callable[[str], Any] = lambda _: None
) -> Timing:
    """Time some steps of each, from the first of its trajectories.

    On a CPU the clock is that of the process, which other programs do not stretch; elsewhere it is the wall's.
    """
    device = tree.leaves(next(iter(settings.values())).initial)[0].device
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {
            (label, batch): _Racer(setting, batch, device)
            for label, setting in settings.items()
            for batch in batches
        }
        for turn in range(ROUNDS):
            tell(f"timing, round {turn + 1} of {ROUNDS}")
            for racer in found.values():
                racer.run()
    finally:
        torch.set_num_threads(before)
    seconds = {label: tuple(min(found[label, batch].taken) for batch in batches) for label in settings}
    noise = [median(racer.taken) / min(racer.taken) - 1 for racer in found.values()]
    clock = "time of the process" if device.type == "cpu" else "time on the wall"
    return Timing(batches, seconds, ROUNDS, sum(noise) / len(noise), clock)


class _Racer:
    """A solver with some trajectories, and how long its turns took."""

    def __init__(self, setting: Setting, batch: int, device: torch.device) -> None:
        rows = torch.arange(batch, device=device) % len(tree.leaves(setting.initial)[0])
        self._simulator = setting.simulator
        self._initial = tree.take(setting.initial, rows)
        self._parameters = {
            name: value[rows] if isinstance(value, torch.Tensor) and value.ndim == 1 else value
            for name, value in setting.parameters.items()
        }
        self._scenario = {name: tree.take(value, rows) for name, value in setting.scenario.items()}
        self._batch, self._device, self._steps = batch, device, 1
        self.taken: list[float] = []
        size = tree.nbytes(self._initial)
        most = max(1, min(MOST_STEPS, MOST_BYTES // max(size, 1)))
        self._turn()  # compiles and warms up what there is to warm up
        while (spent := self._turn()) < LONG_ENOUGH and self._steps < most:
            wanted = 1.2 * LONG_ENOUGH / max(spent, 1e-6)
            self._steps = min(most, max(2 * self._steps, round(self._steps * wanted)))

    def run(self) -> None:
        self.taken.append(self._turn() / (self._steps * self._batch))

    def _turn(self) -> float:
        began = self._now()
        with torch.no_grad():
            rollout(
                self._simulator,
                self._initial,
                length=self._steps,
                parameters=self._parameters,
                scenario=self._scenario,
            )
        return self._now() - began

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()
