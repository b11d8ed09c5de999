"""The engine: one time loop, how it is differentiated, and rollouts. It has never heard of any physical system."""

from dpcontrol.engine.gradients import (
    Auto,
    Checkpointed,
    Full,
    GradientMode,
    StopGradient,
    Tail,
    TruncatedBPTT,
)
from dpcontrol.engine.scan import scan
from dpcontrol.engine.trajectory import Trajectory, rollout

__all__ = [
    "Auto",
    "Checkpointed",
    "Full",
    "GradientMode",
    "StopGradient",
    "Tail",
    "Trajectory",
    "TruncatedBPTT",
    "rollout",
    "scan",
]
