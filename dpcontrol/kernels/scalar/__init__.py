"""Small steps as scalar arithmetic: traced once, differentiated, written as loops over steps and scenarios."""

from dpcontrol.kernels.scalar.door import Traces, scalar_kernel
from dpcontrol.kernels.scalar.kernel import ScalarKernel

__all__ = ["ScalarKernel", "Traces", "scalar_kernel"]
