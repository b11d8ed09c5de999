"""Steps written with PhiFlow: layouts of its grids, gradients, and what it says to wrong use."""

import math

import pytest
import torch
from taylor import taylor_rates

from dpcontrol.engine import rollout
from dpcontrol.problem import ControlSequence, control_problem, reach
from dpcontrol.problem.base import View
from dpcontrol.results import UsageError
from dpcontrol.sim import FunctionSimulator, PhiFlowStep
from dpcontrol.sim.external.phiflow import require_phiflow

pytest.importorskip("jax")
pytest.importorskip("phi")
require_phiflow("jax")

from phi.field import CenteredGrid, StaggeredGrid  # noqa: E402
from phi.geom import Box  # noqa: E402
from phi.math import Solve, extrapolation, vec  # noqa: E402
from phi.physics import diffuse, fluid  # noqa: E402

F64 = torch.float64


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def square(cells=16):
    return CenteredGrid(0.0, extrapolation.PERIODIC, x=cells, y=cells, bounds=Box(x=1, y=1))


def heated(field, control, *, parameters):
    return diffuse.explicit(field, parameters["diffusivity"], 0.01) + control * 0.01


def simulator(backend):
    step = PhiFlowStep(heated, like=square, control=square, backend=backend)
    return FunctionSimulator(step, dt=0.01, defaults={"diffusivity": 0.02})


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_mode_decays_as_the_scheme_says_for_each_scenario_and_its_own_diffusivity(backend):
    x = (torch.arange(16, dtype=F64) + 0.5) / 16
    start = torch.sin(2 * math.pi * x)[None, :, None].expand(2, 16, 16)
    diffusivity = torch.tensor([0.02, 0.05], dtype=F64)
    still = torch.zeros(5, 2, 16, 16, dtype=F64)
    end = rollout(simulator(backend), start, still, parameters={"diffusivity": diffusivity}).states[-1]
    factor = 1 - diffusivity * 0.01 * 256 * 4 * math.sin(math.pi / 16) ** 2
    torch.testing.assert_close(end, start * factor[:, None, None] ** 5, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_taylor_in_state_control_and_parameters(backend):
    step = simulator(backend)
    point = {"u": random(2, 16, 16), "c": random(3, 2, 16, 16, seed=1), "k": torch.tensor(0.02, dtype=F64)}

    def loss(z):
        return rollout(step, z["u"], z["c"], parameters={"diffusivity": z["k"]}).states[-1].pow(3).sum()

    rates = taylor_rates(loss, point, largest=1e-3)
    assert min(rates) > 1.9 and max(rates) < 2.1


@pytest.mark.parametrize("boundary", [extrapolation.PERIODIC, 0.0])
def test_staggered_vector_and_scalar_fields_pass_through_unchanged(boundary):
    like = {
        "marker": CenteredGrid(0.0, boundary, x=6, y=4),
        "wind": CenteredGrid(vec(x=0.0, y=0.0), boundary, x=6, y=4),
        "velocity": StaggeredGrid(0.0, boundary, x=6, y=4),
    }
    closed = boundary == 0.0
    state = {
        "marker": random(3, 6, 4),
        "wind": random(3, 2, 6, 4, seed=1),
        "velocity": {"x": random(3, 6 - closed, 4, seed=2), "y": random(3, 6, 4 - closed, seed=3)},
    }
    found = PhiFlowStep(lambda fields, _: fields, like=like)(state, None)
    torch.testing.assert_close(found, state, rtol=0, atol=0)
    doubled = PhiFlowStep(lambda fields, _: {k: 2 * v for k, v in fields.items()}, like=like)(state, None)
    torch.testing.assert_close(doubled["velocity"]["y"], 2 * state["velocity"]["y"])


def test_a_few_inputs_act_as_a_named_dimension():
    def pushed(field, control):
        return field + control.inputs[0] - 2.0 * control.inputs[1]

    found = PhiFlowStep(pushed, like=square(4))(random(3, 4, 4), random(3, 2, seed=1))
    u = random(3, 2, seed=1)
    torch.testing.assert_close(found, random(3, 4, 4) + (u[:, 0] - 2 * u[:, 1])[:, None, None])


@pytest.mark.filterwarnings("ignore")  # PhiFlow tells of its own solver
def test_a_pressure_projection_is_a_black_box_on_torch():
    def projected(velocity, _):
        return fluid.make_incompressible(velocity, (), Solve("CG", 1e-5, 1e-5))[0]

    step = PhiFlowStep(projected, like=StaggeredGrid(0.0, 0.0, x=6, y=6), backend="torch")
    state = {"x": random(2, 5, 6, dtype=torch.float32), "y": random(2, 6, 5, dtype=torch.float32)}
    found = step(state, None)
    x, y = (torch.nn.functional.pad(found[a], pad) for a, pad in (("x", (0, 0, 1, 1)), ("y", (1, 1))))
    assert (x.diff(dim=1) + y.diff(dim=2)).abs().max() < 1e-3
    box = FunctionSimulator(lambda s, u: step(s, None), differentiable=False)
    problem = control_problem(
        box,
        initial_state=state,
        horizon=1,
        objective=reach(torch.zeros(2, 5, 6), of=lambda s: s["x"]),
        control=ControlSequence(1),
    )
    assert View.GRADIENT not in problem.offers


def test_wrong_use_is_one_sentence(monkeypatch):
    def through(field, _):
        return field

    with pytest.raises(UsageError, match="backend must be 'jax' or 'torch'"):
        PhiFlowStep(through, like=square(), backend="numpy")
    with pytest.raises(UsageError, match="like is a CenteredGrid or StaggeredGrid of PhiFlow, .* found int"):
        PhiFlowStep(through, like=3)
    with pytest.raises(UsageError, match=r"3 axes; found \(2, 4\)"):
        PhiFlowStep(through, like=square(4))(random(2, 4), None)
    with pytest.raises(UsageError, match="dict with the entries x, y"):
        PhiFlowStep(through, like=StaggeredGrid(0.0, 0.0, x=4, y=4))(random(2, 4, 4), None)
    with pytest.raises(UsageError, match="returns fields like its state; found Tensor|found Dense"):
        PhiFlowStep(lambda field, _: field.values, like=square(4))(random(2, 4, 4), None)
    with pytest.raises(UsageError, match=r"control of a PhiFlow step is a tensor \(scenarios, inputs\)"):
        PhiFlowStep(through, like=square(4))(random(2, 4, 4), random(2, 4, 4))
    monkeypatch.setitem(__import__("sys").modules, "phi.jax", None)
    with pytest.raises(UsageError, match=r"need PhiFlow, .* pip install 'dpcontrol\[external\]'"):
        PhiFlowStep(through, like=square())
