"""Pyro: a problem as an ordinary Pyro model, and simulators inside models of one's own.

Pyro is imported when one of these is called.
"""

from dpcontrol.pyro_bridge.model import pyro_model
from dpcontrol.pyro_bridge.plates import impossible_where_failed, pyro_simulate

__all__ = ["impossible_where_failed", "pyro_model", "pyro_simulate"]
