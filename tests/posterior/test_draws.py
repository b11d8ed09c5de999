"""Draws: what is taken in, what is refused, and that files keep every bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpcontrol import store
from dpcontrol.posterior import Draws
from dpcontrol.results import UsageError


def test_arrays_and_tensors_become_double_tensors():
    draws = Draws(np.ones((2, 3, 4), "f4"), torch.ones(2, 3), divergent=np.eye(2, 3), steps=[[1, 2, 3]] * 2)
    assert draws.free.dtype == draws.log_density.dtype == torch.float64
    assert draws.divergent.dtype == torch.bool and draws.steps.dtype == torch.int64
    assert (draws.chains, draws.count, draws.dimension, draws.divergences) == (2, 3, 4, 2)
    assert draws.flat().shape == (6, 4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"free": np.ones((3, 4))}, r"\(chains, draws, dimension\); found \(3, 4\)"),
        ({"free": np.ones((2, 0, 4))}, r"found \(2, 0, 4\)"),
        ({"log_density": np.ones(3)}, r"log_density of draws .* here \(2, 3\); found \(3,\)"),
        ({"energy": np.ones((2, 4))}, r"energy of draws"),
        ({"kind": "chain"}, "found 'chain'"),
    ],
)
def test_what_does_not_fit_is_refused(fields, said):
    with pytest.raises(UsageError, match=said):
        Draws(**{"free": np.ones((2, 3, 4)), "log_density": np.zeros((2, 3)), **fields})


def test_files_keep_every_bit(tmp_path):
    generator = np.random.default_rng(0)
    free = generator.standard_normal((2, 3, 4))
    draws = Draws(
        free, np.full((2, 3), -np.inf), kind="independent", notes={"step": 0.1, "mass": np.array([1.0, 2.0])}
    )
    store.save(tmp_path / "draws.safetensors", draws.to_tree())
    again = Draws.from_tree(store.load(tmp_path / "draws.safetensors")[0])
    assert torch.equal(again.free, draws.free) and torch.equal(again.log_density, draws.log_density)
    assert (
        again.kind == "independent"
        and again.notes == {"step": 0.1, "mass": [1.0, 2.0]}
        and again.divergent is None
    )
