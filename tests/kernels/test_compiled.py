"""Compiled steps equal the eager ones, in every gradient mode; what cannot be compiled is refused in one sentence."""

import copy
import logging
import pickle

import pytest
import torch
from kernel_cases import compare_with_eager

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.kernels import compiled
from dpcontrol.kernels.scalar import tracing
from dpcontrol.sim import Compiled, Pendulum

F64 = torch.float64
STEPS, SCENARIOS = 5, 3


@pytest.fixture(autouse=True)
def graphs_of_few(monkeypatch):
    """Two steps in a graph: five steps then need the filling up of the last one, and compiling takes less.

    No state is small: those go through loops of their own, see test_scalar.py.
    """
    monkeypatch.setattr(compiled, "TOGETHER", 2)
    monkeypatch.setattr(tracing, "LARGEST_STATE", 0)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def oscillators(state, control, *, parameters, noise, t, scenario):
    """Two coupled oscillators, pushed at a time and with weights that differ between scenarios."""
    x, v = state["x"], state["v"]
    turned = torch.cat([x[:, 1:], x[:, :1]], 1)
    force = parameters["stiffness"] * (turned - x) - x**3 + (1 + t) * scenario["weight"][:, None] * control
    v = v + 0.1 * force + noise
    return {"x": x + 0.1 * v, "v": v}


def posed(*, compile, unknown=None, gradient=None, count=SCENARIOS, step=oscillators):
    return dp.control_problem(
        step,
        initial_state={"x": draw(count, 2), "v": draw(count, 2, seed=1)},
        horizon=STEPS,
        objective=dp.track({n: torch.ones(STEPS + 1, 2) for n in "xv"}) + 0.1 * dp.effort(),
        unknown=unknown or (dp.ControlSequence(2), dp.Parameters("stiffness"), dp.InitialState()),
        parameters={"stiffness": 1.3},
        scenarios={"weight": draw(count, seed=2), "noise": 0.1 * draw(count, STEPS, 2, seed=3)},
        gradient=gradient,
        compile=compile,
    )


def gradients(problem, scenarios=None):
    z = tree.map(lambda leaf: leaf.clone().requires_grad_(), problem.start(scenarios))
    loss = problem.loss(z, scenarios)
    first = torch.autograd.grad(loss.sum(), tree.leaves(z), create_graph=True)
    found = torch.autograd.grad(loss.sum(), tree.leaves(z), retain_graph=True)  # the kernel's own
    second = torch.autograd.grad(sum((g * g).sum() for g in first), tree.leaves(z))
    return [loss.detach(), *first, *found, *second]


def test_a_users_step_compiled_is_the_same_step(caplog):
    caplog.set_level(logging.INFO, "dpcontrol.kernels.graphs")
    plain, fast = (posed(compile=value) for value in (False, True))
    torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-12, atol=1e-12)
    assert "compiled 2 steps for" in caplog.text and "adjoint of 2 steps" in caplog.text
    graphs = fast.simulator.compilations
    assert graphs.count == 1
    # fewer scenarios are filled up, gradients of what they share included
    some = torch.tensor([2, 0])
    torch.testing.assert_close(gradients(fast, some), gradients(plain, some), rtol=1e-12, atol=1e-12)
    assert graphs.count == 1
    # a copy for another process compiles for itself
    assert copy.deepcopy(graphs).count == 0 and pickle.loads(pickle.dumps(graphs)).count == 0


def small(state, control):
    return state + 0.1 * (control - state.sin())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [dp.Checkpointed(), dp.Checkpointed(snapshots=2), dp.Auto("1kB")], ids=repr)
def test_every_mode_takes_it(mode):
    plain, fast = posed(compile=False), posed(compile=True, gradient=mode)
    torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-12, atol=1e-12)


def test_strategies_and_the_check_take_it():
    def of(compile):
        return dp.control_problem(
            small,
            initial_state=draw(SCENARIOS, 2),
            horizon=2,
            objective=dp.reach(torch.ones(2)) + 0.1 * dp.effort(),
            control=dp.ControlSequence(2),
            compile=compile,
        )

    fast = of(True)
    assert dp.check_gradient(fast).passed
    one, two = (dp.solve(problem, "lbfgs", iterations=10) for problem in (of(False), fast))
    torch.testing.assert_close(one.losses, two.losses, rtol=1e-6, atol=1e-9)
    assert fast.simulator.compilations.count <= 2


@pytest.mark.slow
def test_a_simulator_compiled_equals_it():
    """A Runge-Kutta scheme over a pendulum, with respect to its parameters too."""
    compare_with_eager(
        Compiled(dp.ODE(Pendulum(), dt=0.05, fused=False)),
        draw(2, 2),
        draw(3, 2, 1),
        steps=3,
        tolerance=1e-12,
    )


@pytest.mark.parametrize(
    "step, sentence",
    [
        (lambda x, u: x + u if float(x.detach().abs().max()) < 1e9 else x - u, "looks at no numbers"),
        (lambda x, u, *, t: x + u * (1.0 if t > 0.5 else 2.0), "looks at no numbers"),
        (lambda x, u: x + u if x.detach().tolist()[0][0] < 1e9 else x, "looks at no numbers"),
        (lambda x, u: x + torch.as_tensor(u.detach().numpy()) * 0 + u, "cannot be compiled"),
    ],
)
def test_what_looks_at_its_numbers_is_refused(step, sentence):
    problem = dp.control_problem(
        step,
        initial_state=draw(1, 2),
        horizon=3,
        objective=dp.effort() + dp.reach(torch.zeros(2)),
        control=dp.ControlSequence(2),
        compile=True,
    )
    with pytest.raises(dp.UsageError, match=sentence):
        problem.loss(problem.start())


def test_a_tensor_by_the_back_door_is_found():
    hidden = torch.ones(2, dtype=F64, requires_grad=True)
    simulator = Compiled(lambda x, u: x * hidden + u)
    with pytest.raises(dp.UsageError, match="silently get none"):
        dp.rollout(simulator, draw(1, 2), draw(3, 1, 2))


def test_without_a_compiler_one_sentence(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(dp.UsageError, match=r"needs a C\+\+ compiler.* leave out compile=True"):
        dp.rollout(Compiled(small), draw(1, 2), draw(2, 1, 2))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None
    )  # without numba there is no other way: at the door
    with pytest.raises(dp.UsageError, match="CXX=no-such-compiler was not found"):
        posed(compile=True)


def test_a_black_box_stays_one_and_a_kernel_stays():
    box = dp.FunctionSimulator(small, differentiable=False)
    assert Compiled(box).kernel(draw(1, 2), draw(1, 2), None, box.prepare({}, {})) is None
