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


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
    "pipeline_class": Distinct,
}
"""Contraction to fused multiply-adds changes rounding only: NaN stays NaN, by which lost runs are found.

The interpreter's lock is released, so that groups of scenarios can run in threads.
"""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call; the machine code is kept in Numba's cache on disk."""
    return njit(cache=True, **OPTIONS)(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled ones call, and that makes no arrays: without counts of references.

    Where Numba does not see that they cancel, a call with ten arrays costs twenty atomic instructions, which is a third
    of a sweep over a hundred cells. Without the wrappers for Python it takes less time to compile. The machine code is
    kept with that of the function that calls it.
    """
    without: dict[str, Any] = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(**OPTIONS, **without)(function)
