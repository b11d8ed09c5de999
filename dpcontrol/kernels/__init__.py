"""Raw twins of simulators' steps, with hand-written or compiled adjoints, beside the eager definition."""

from dpcontrol.kernels.base import Kernel, Pulled, StepKernel, Wanted

__all__ = ["Kernel", "Pulled", "StepKernel", "Wanted"]
