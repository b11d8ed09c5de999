"""Raw twins of simulators' steps, with hand-written or compiled adjoints, beside the eager definition."""

from dpcontrol.kernels.base import Kernel, Pulled, StepKernel, Wanted
from dpcontrol.kernels.spectral import HalfSpectrum
from dpcontrol.kernels.spectral_exponential import ExponentialKernel, Stages
from dpcontrol.kernels.spectral_split import SplitStepKernel
from dpcontrol.kernels.spectral_terms import Advection, Reaction, Square

__all__ = [
    "Advection",
    "ExponentialKernel",
    "HalfSpectrum",
    "Kernel",
    "Pulled",
    "Reaction",
    "SplitStepKernel",
    "Square",
    "Stages",
    "StepKernel",
    "Wanted",
]
