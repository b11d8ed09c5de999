"""Trees: taken apart and put together again without loss."""

from dataclasses import dataclass

import pytest
import torch

from dpcontrol import tree


@tree.register
@dataclass(frozen=True)
class Pair:
    first: object
    second: object


def sample():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return {"a": draw(3, 2), "b": (draw(3), [draw(3, 1, 4), None]), "c": Pair(draw(3, 5), None)}


@pytest.mark.parametrize("batch", [0, 1])
def test_ravel_and_unravel_are_inverse(batch):
    vector = tree.ravel(sample(), batch)
    assert vector.shape == ((3, 2 + 1 + 4 + 5) if batch else (36,))
    back = tree.unravel(vector, sample(), batch)
    assert isinstance(back["c"], Pair) and back["b"][1][1] is None
    for one, other in zip(tree.leaves(back), tree.leaves(sample()), strict=True):
        assert torch.equal(one, other)


def test_unravel_follows_the_batch_of_the_vector():
    like = sample()
    vector = tree.ravel(like, 1)[[0, 0, 2, 1, 1]]
    assert tree.unravel(vector, like, 1)["b"][1][0].shape == (5, 1, 4)


def test_stack_inverts_unbind_also_around_none():
    rows = tree.unbind(sample())
    assert len(rows) == 3 and rows[1]["c"].second is None
    again = tree.stack(rows)
    assert torch.equal(tree.ravel(again), tree.ravel(sample()))


def test_numbers_become_tensors_without_passing_through_single_precision():
    assert float(tree.to(0.003, dtype=torch.float64)) == 0.003
    kept = tree.to({"index": torch.tensor([1, 2]), "x": 1.0}, dtype=torch.float64)
    assert kept["index"].dtype == torch.int64 and kept["x"].dtype == torch.float64


def test_finiteness_is_told_per_entry_of_the_batch():
    values = {"a": torch.ones(3, 2), "b": torch.ones(3)}
    values["b"][1] = float("nan")
    assert tree.all_finite(values, 1).tolist() == [True, False, True]


def test_inner_product_and_norm_agree():
    assert torch.allclose(tree.norm(sample()) ** 2, tree.dot(sample(), sample()))


def test_paths_and_shapes_can_be_read():
    assert [path for path, _ in tree.named_leaves({"u": [torch.ones(1)]})] == ["['u'][0]"]
    assert tree.describe({"u": torch.ones(2, 3)}) == "{u: (2, 3) float32}"
