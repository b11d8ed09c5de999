"""Controllers on trial: sensor noise, late commands, pushes, another plant, other scenes."""

from dpcontrol.trials.elsewhere import Mismatch, Shifted
from dpcontrol.trials.table import Robustness, Row
from dpcontrol.trials.trying import robustness
from dpcontrol.trials.worlds import (
    ActuatorDelay,
    Disturbance,
    Nominal,
    SensorNoise,
    Together,
    Trial,
)

__all__ = [
    "ActuatorDelay",
    "Disturbance",
    "Mismatch",
    "Nominal",
    "Robustness",
    "Row",
    "SensorNoise",
    "Shifted",
    "Together",
    "Trial",
    "robustness",
]
