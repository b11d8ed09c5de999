"""Model and sampler under criticism: failing parameters, calibration by simulation, and the time step."""

from dpcontrol.criticism.calibration import load as load_calibration
from dpcontrol.criticism.calibration import sbc
from dpcontrol.criticism.findings import Calibration
from dpcontrol.criticism.stress import StressTest, stress_test

__all__ = ["Calibration", "StressTest", "load_calibration", "sbc", "stress_test"]
