"""Iteration counts of a field's inference do not grow as the mesh is refined."""

from __future__ import annotations

import pytest
from refined_heat import gradients_needed, inferred, initial_temperature


def test_white_numbers_need_as_many_iterations_on_any_mesh():
    needed = []
    for cells in (32, 64, 128, 256, 512):
        found = inferred(initial_temperature(cells, white=True))
        needed.append(gradients_needed(found, found.loss))
    assert max(needed) <= 1.3 * min(needed), needed


def test_plain_numbers_find_the_same_field_and_need_more_as_the_mesh_is_refined():
    needed = []
    for cells in (32, 128):
        white, plain = (inferred(initial_temperature(cells, white=white)) for white in (True, False))
        lowest = min(white.loss, plain.loss)
        assert white.loss == pytest.approx(lowest, abs=1e-3)
        assert plain.loss == pytest.approx(lowest, abs=1e-3)
        difference = (white.value["initial_state"] - plain.value["initial_state"]).abs().max()
        assert float(difference) < 0.02
        needed.append(gradients_needed(plain, lowest))
    assert needed[1] > 4 * needed[0], needed
