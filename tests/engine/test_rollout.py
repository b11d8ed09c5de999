"""What a rollout refuses at the door."""

import pytest
import torch

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import Disc, FunctionSimulator, Grid, IncompressibleFlow, Inflow, Outflow, Substeps

F64 = torch.float64
START = torch.ones(2, 3, dtype=F64)


def shrinking(x, u, *, parameters):
    rates = sum(parameters[name] for name in sorted(parameters))
    return x * (1 - rates)


def test_a_misspelt_parameter_is_refused_with_the_known_ones():
    grid = Grid((32, 16), (4.0, 2.0), ((Inflow(1.0), Outflow()), ("free_slip", "free_slip")))
    flow = IncompressibleFlow(grid, 0.05, 0.02, bodies=(Disc((1.0, 1.0), 0.3),))
    start = {"velocity_x": torch.ones(1, 32, 16, dtype=F64)}
    with pytest.raises(
        UsageError, match="has no parameter center_x; it has centre_x, .*, walls: use one"
    ) as told:
        rollout(flow, start, length=1, parameters={"center_x": torch.tensor(1.2)})
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match="no parameter center_x"):
        rollout(Substeps(flow, 2), start, length=1, parameters={"center_x": torch.tensor(1.2)})
    rows = rollout(flow, start, length=1, parameters={"centre_x": torch.tensor([1.2], dtype=F64)})
    assert bool(torch.isfinite(rows.states["velocity_x"]).all())


def test_a_function_without_defaults_takes_any_parameter():
    found = rollout(FunctionSimulator(shrinking), START, length=2, parameters={"a": 0.25, "b": 0.25}).states
    torch.testing.assert_close(found[-1], START / 4)
    with pytest.raises(UsageError, match="FunctionSimulator has no parameter b; it has a: use"):
        rollout(FunctionSimulator(shrinking, defaults={"a": 0.5}), START, length=2, parameters={"b": 0.25})
