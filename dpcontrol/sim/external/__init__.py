"""Simulators of others: functions in JAX, steps of PhiFlow, black boxes in another process."""

from dpcontrol.sim.external.black_box import BlackBox
from dpcontrol.sim.external.jax_function import JaxFunction
from dpcontrol.sim.external.phiflow import PhiFlowStep

__all__ = ["BlackBox", "JaxFunction", "PhiFlowStep"]
