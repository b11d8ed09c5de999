"""Do user functions say of many steps together what they say of each? Asked at the door, of trial paths."""

from __future__ import annotations

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.problem.objective import Frame, Selector, Term
from dpcontrol.problem.path import Path


def agree(plain: Term, at_once: Term, path: Path, frame: Frame) -> bool:
    """Whether all steps together cost what they cost one by one.

    What a user's function raises when it sees them together is no error: it is shown them one by one then.
    """
    expected = plain.along(None, path, frame)[1]
    try:
        found = at_once.along(None, path, frame)[1]
    except Exception:
        return False
    return _near(expected, found)


def sees_together(of: Selector, path: Path) -> bool:
    """Whether an observation of all steps together is that of each step."""
    expected = tree.stack([of(moment.state) for moment in path.moments()])
    try:
        found = path.over_scenarios(of, path.states)
    except Exception:
        return False
    return tree.same_structure(expected, found) and all(
        _near(a, b) for a, b in zip(tree.leaves(expected), tree.leaves(found), strict=True)
    )


def _near(expected: Tensor | None, found: Tensor | None) -> bool:
    if expected is None or found is None or expected.shape != found.shape:
        return expected is found
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(expected, found)
    tolerance = 1000 * torch.finfo(expected.dtype).eps
    return torch.allclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True)
