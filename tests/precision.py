"""float64 as torch's default for the tests of one module, and float32 again for all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def in_double() -> Iterator[None]:
    """For what a module makes when it is imported."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """For the tests of a module that imports this fixture."""
    with in_double():
        yield
