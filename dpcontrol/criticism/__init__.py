"""Model and sampler under criticism: failing parameters, calibration by simulation, and the time step."""

from dpcontrol.criticism.stress import StressTest, stress_test

__all__ = ["StressTest", "stress_test"]
