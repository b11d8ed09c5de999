"""How loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.compiler import Compiler


class Distinct(Compiler):
    """Compiles functions of which no argument that is written overlaps with another argument.

    Without that promise LLVM compares addresses before every loop, and gives up vector instructions where there are
    many arrays. The flag is Numba's; its decorator does not offer it.
    """

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call; the machine code is kept in Numba's cache on disk.

    Contraction to fused multiply-adds changes rounding only: NaN stays NaN, by which lost runs are found. The
    interpreter's lock is released, so that groups of scenarios can run in threads.
    """
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}, "pipeline_class": Distinct}
    return njit(cache=True, nogil=True, **options)(function)
