"""One BLAS thread for many small problems."""

from __future__ import annotations

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def one_blas_thread() -> AbstractContextManager[object]:
    """While it is open, numpy's and scipy's linear algebra runs on one thread; torch keeps its own setting.

    The matrices of a quasi-Newton or evolution step have some ten rows: waking further threads for them costs several
    times the work (a run of L-BFGS-B with 100 searches of 992 unknowns: 6.1 s, 2.3 s on one thread), and sums would
    depend on the number of cores.
    """
    return threadpool_limits(limits=1, user_api="blas")
