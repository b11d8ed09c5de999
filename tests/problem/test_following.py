"""The relative norm as the loss of a step: its value, its scale, and its slope where there is no error left."""

import pytest
import torch

from dpcontrol.problem import relative_norm

F64 = torch.float64


def test_it_is_the_error_over_the_size_of_each_scenario_and_of_all_parts():
    reference = {"a": torch.full((2, 4), 3.0, dtype=F64), "b": torch.full((2, 2, 2), 4.0, dtype=F64)}
    state = {"a": reference["a"] + 0.3, "b": reference["b"] - 0.4, "forces": torch.ones(2)}
    torch.testing.assert_close(relative_norm(state, reference), torch.full((2,), 0.1, dtype=F64))
    small = {name: 1e-6 * value for name, value in reference.items()}
    shrunk = {name: 1e-6 * value for name, value in state.items()}
    torch.testing.assert_close(relative_norm(shrunk, small), torch.full((2,), 0.1, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_its_slope_is_finite_without_error_and_of_size_one_with_it(dtype):
    reference = torch.ones(2, 9, dtype=dtype)
    state = (reference + torch.tensor([[0.0], [0.5]], dtype=dtype)).requires_grad_()
    loss = relative_norm(state, reference)
    (slope,) = torch.autograd.grad(loss.sum(), state)
    assert bool((slope[0] == 0).all()) and float(loss[0].detach()) < 1e-6
    torch.testing.assert_close(slope[1], torch.full((9,), 1 / 9, dtype=dtype))
