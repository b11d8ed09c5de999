"""What was measured: of which part of the state, at which steps, with which noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dpcontrol.problem.noise import NoiseModel
from dpcontrol.problem.objective import Objective
from dpcontrol.problem.terms import misfit
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Sensor = Callable[[Tree], Tree]


@dataclass(frozen=True)
class Observation:
    """See :func:`observe`."""

    sensor: Sensor | None
    noise: NoiseModel | None
    steps: tuple[int, ...] | None
    times: tuple[float, ...] | None

    def misfit(self, data: Any, dt: float) -> Objective:
        """Minus the log-likelihood of data taken like this from a system with time step ``dt``.

        Raises:
            UsageError: if a time is no whole number of steps.
        """
        return misfit(data, self.noise, steps=self._rows(dt), of=self.sensor)

    def _rows(self, dt: float) -> tuple[int, ...] | None:
        if self.times is None:
            return self.steps
        found = []
        for t in self.times:
            k = round(t / dt)
            if abs(t - k * dt) > 1e-6 * dt * max(1, k):
                raise UsageError(
                    f"something was measured at time {t:g}, which is no whole number of steps of {dt:g}: choose a dt "
                    "that divides the times, or give steps=..."
                )
            found.append(k)
        return tuple(found)


def observe(
    sensor: Sensor | None = None,
    *,
    noise: NoiseModel | None = None,
    steps: Sequence[int] | None = None,
    times: Sequence[float] | None = None,
) -> Observation:
    """How data were taken: ``data_k ~ noise(sensor(x_k))``.

    Args:
        sensor: from a state ``(scenarios, ...)`` to a prediction ``(scenarios, ...)``: ``Points(...)``, ``Modes(...)``,
            ``Mask(...)``, ``Component(...)`` or any batched function; the whole state by default.
        noise: density of a measurement around its prediction, ``Gaussian(scale)`` say; without it least squares.
        steps: the steps at which the rows of the data were taken; all of ``0 .. horizon`` by default.
        times: the same in the simulator's time, instead of ``steps``.

    Raises:
        UsageError: for both steps and times, or something that is no noise model or function.
    """
    if steps is not None and times is not None:
        raise UsageError("observe() takes steps=... or times=..., not both: leave one out.")
    if noise is not None and not isinstance(noise, NoiseModel):
        raise UsageError(f"noise must be a noise model such as Gaussian(0.1); found {noise!r}.")
    if sensor is not None and not callable(sensor):
        raise UsageError(
            f"a sensor must be a function of the state, such as Points(...); found {sensor!r}: pass the noise by its "
            "name, observe(noise=Gaussian(0.1))."
        )
    rows = None if steps is None else tuple(int(k) for k in steps)
    return Observation(sensor, noise, rows, None if times is None else tuple(float(t) for t in times))
