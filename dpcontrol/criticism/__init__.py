"""Model and sampler under criticism: failing parameters, calibration by simulation, and the time step."""

from dpcontrol.criticism.calibration import load as load_calibration
from dpcontrol.criticism.calibration import question as calibration_question
from dpcontrol.criticism.calibration import sbc
from dpcontrol.criticism.calibration import stored_in as calibration_in
from dpcontrol.criticism.findings import Calibration
from dpcontrol.criticism.half_step import HalfStep, at_half_step, posterior_at_half_step
from dpcontrol.criticism.stress import StressTest, stress_test

__all__ = [
    "Calibration",
    "HalfStep",
    "StressTest",
    "at_half_step",
    "calibration_in",
    "calibration_question",
    "load_calibration",
    "posterior_at_half_step",
    "sbc",
    "stress_test",
]
