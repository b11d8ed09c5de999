"""Functions written in JAX: the same numbers and derivatives as in torch, of every order and in every mode."""

import math
import pickle

import pytest
import torch
from taylor import taylor_rates

from dpcontrol import tree
from dpcontrol.engine import Checkpointed, rollout
from dpcontrol.problem import ControlSequence, control_problem, effort, reach
from dpcontrol.results import UsageError
from dpcontrol.run import run
from dpcontrol.sim import ODE, FunctionSimulator, JaxFunction, Steady
from dpcontrol.strategies.minimising.newton import NewtonKrylov

jax = pytest.importorskip("jax")
jnp = jax.numpy

F64 = torch.float64


@pytest.fixture(autouse=True)
def single_precision_by_default():
    """JAX as it comes; other packages in the same process (PhiFlow) switch it to double precision for good."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


def step(state, control, *, parameters, t):
    x = state["x"] + 0.1 * jnp.sin(state["x"]) * parameters["k"] + control * jnp.cos(t)
    return {"x": x, "energy": state["energy"] + jnp.sum(x**2, -1)}


def twin(state, control, *, parameters, t):
    x = state["x"] + 0.1 * state["x"].sin() * parameters["k"] + control * math.cos(t)
    return {"x": x, "energy": state["energy"] + x.square().sum(-1)}


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


POINT = {"x": random(3, 4), "control": random(5, 3, 4, seed=1), "k": torch.tensor(0.7, dtype=F64)}


@pytest.fixture(scope="module")
def simulators():
    return [FunctionSimulator(f, dt=0.1, defaults={"k": 1.0}) for f in (JaxFunction(step), twin)]


def loss(simulator, z, gradient=None):
    start = {"x": z["x"], "energy": torch.zeros(3, dtype=z["x"].dtype)}
    path = rollout(simulator, start, z["control"], parameters={"k": z["k"]}, gradient=gradient).states
    return path["energy"][-1].sum() + path["x"].pow(3).sum()


def test_taylor_in_state_control_and_parameters(simulators):
    rates = taylor_rates(lambda z: loss(simulators[0], z), POINT)
    assert min(rates) > 1.95 and max(rates) < 2.05


@pytest.mark.parametrize("mode", [None, Checkpointed(), Checkpointed(snapshots=2)])
def test_first_and_second_derivatives_are_those_of_torch(simulators, mode):
    found = []
    for simulator in simulators:
        z = tree.map(lambda leaf: leaf.clone().requires_grad_(), POINT)
        first = torch.autograd.grad(loss(simulator, z, mode), tree.leaves(z), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tree.leaves(z))
        found.append([*first, *second])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_forward_mode_batches_of_gradients_and_hessians(simulators):
    def of_k(simulator):
        return lambda k: loss(simulator, {**POINT, "k": k})

    k = torch.linspace(0.2, 1.0, 3, dtype=F64)
    for transform in (
        lambda f: torch.func.jvp(f, (k[0],), (torch.ones((), dtype=F64),)),
        lambda f: torch.func.vmap(torch.func.grad(f))(k),
        lambda f: torch.func.hessian(f)(k[1]),
    ):
        ours, theirs = (transform(of_k(simulator)) for simulator in simulators)
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacfwd, torch.func.hessian])
def test_the_very_first_call_may_be_inside_a_transform(transform):
    fresh = JaxFunction(lambda x: jnp.sum(x**3))
    x = random(4)
    torch.testing.assert_close(transform(fresh)(x), transform(lambda y: y.pow(3).sum())(x))


def test_double_precision_needs_no_switch_and_single_stays_single():
    assert not jax.config.jax_enable_x64
    third = JaxFunction(lambda x: x / 3)
    assert third(torch.ones(1, dtype=F64)).item() == 1 / 3
    assert third(torch.ones(1)).dtype == torch.float32
    assert not jax.config.jax_enable_x64


def test_digits_that_were_lost_before_are_not_passed_off_as_double():
    weights = jnp.asarray([1 / 3, 2 / 3])  # made in single precision
    scaled = JaxFunction(lambda x: weights * x)
    assert scaled(torch.ones(2)).dtype == torch.float32
    with pytest.raises(UsageError, match="captured arrays of float32"):
        scaled(torch.ones(2, dtype=F64))


def test_numbers_are_no_constants_of_the_compiled_code():
    at = JaxFunction(lambda x, t: x + t)
    assert [at(torch.zeros(1), t).item() for t in (0.5, 1.5)] == [0.5, 1.5]


def test_results_never_share_memory_with_inputs_or_each_other():
    def through(a, b):
        return a, a, a + b

    a, b = random(4, 3), random(4, 3, seed=1)
    found = [*JaxFunction(through)(a, b), a, b]
    assert len({tensor.data_ptr() for tensor in found}) == 5
    leaves = [x.clone().requires_grad_() for x in (a, b)]
    out = JaxFunction(lambda x, y: x + y)(*leaves)
    first, second = torch.autograd.grad(out, leaves, torch.ones_like(a))  # both are the cotangent itself
    first += 1.0
    assert torch.equal(second, torch.ones_like(a))


def test_strided_expanded_and_integer_inputs():
    base = random(6, 4)
    take = JaxFunction(lambda x, index: x[index] * 2.0)
    index = torch.tensor([2, 0])
    for x in (base.T, base[::2], base[:1].expand(4, 4)):
        torch.testing.assert_close(take(x, index), 2 * x[index])
    x = base.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(take(x, index).sum(), x)
    assert gradient[[2, 0]].eq(2).all() and gradient.sum() == 16


def test_it_is_a_rate_a_solver_and_a_step_of_a_problem_for_newton():
    rate = JaxFunction(lambda x, u: -x + u)
    path = rollout(ODE(rate, 0.1), torch.ones(1, 1, dtype=F64), torch.zeros(10, 1, 1, dtype=F64)).states
    assert path[-1].item() == pytest.approx(0.3678798, abs=1e-6)  # exp(-1)
    solve = JaxFunction(lambda parameters: (2.0 * parameters["k"])[None, None])
    assert Steady(solve, {"k": 3.0}).start(torch.zeros(2, 1), {"k": torch.tensor(3.0)}).tolist() == [
        [6.0],
        [6.0],
    ]
    problem = control_problem(
        JaxFunction(lambda x, u: x + 0.1 * jnp.sin(x) + u),
        initial_state=torch.ones(2, 3, dtype=F64),
        horizon=3,
        objective=10 * reach(torch.zeros(3, dtype=F64)) + effort(),
        control=ControlSequence(3),
    )
    solution = run(problem, NewtonKrylov())
    assert solution.status.kind == "converged"


def test_what_is_compiled_stays_behind_when_it_travels():
    doubled = JaxFunction(_double)
    doubled(torch.ones(2))
    again = pickle.loads(pickle.dumps(doubled))
    assert again == doubled and again(torch.ones(1)).item() == 2.0


def _double(x):
    return 2 * x


def test_wrong_use_is_one_sentence(monkeypatch):
    with pytest.raises(UsageError, match="wraps a function written in JAX; found int"):
        JaxFunction(3)
    with pytest.raises(UsageError, match="real and imaginary parts"):
        JaxFunction(lambda x: x)(torch.ones(1, dtype=torch.complex64))
    with pytest.raises(UsageError, match="at least one tensor"):
        JaxFunction(lambda: jnp.ones(1))()
    with pytest.raises(UsageError, match="found str"):
        JaxFunction(lambda x: {"x": x, "y": "no"})(torch.ones(1))
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(UsageError, match=r"need JAX, .* pip install 'dpcontrol\[external\]'"):
        JaxFunction(lambda x: x)
