"""Small steps as loops of scalar arithmetic equal the eager ones: every operation, system and scheme; what cannot be
traced falls back, and says why."""

import copy
import logging
import math
import pickle
import re
import sys

import pytest
import torch
from kernel_cases import compare_with_eager

import dpcontrol as dp
from dpcontrol import safe, tree
from dpcontrol.engine import rollout
from dpcontrol.kernels.scalar import ScalarKernel, Traces, scalar_kernel, source
from dpcontrol.sim import (
    EULER,
    HEUN,
    MIDPOINT,
    RK4,
    SYMPLECTIC_EULER,
    VERLET,
    CartPole,
    Compiled,
    FunctionSystem,
    LinearSystem,
    LotkaVolterra,
    Pendulum,
    Substeps,
    VanDerPol,
)

pytest.importorskip("numba")
F64, F32 = torch.float64, torch.float32


def random(*shape, seed=0, dtype=F64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


@pytest.fixture
def interpreted(monkeypatch):
    """The loops as Python reads them: what is written is the same, and nothing need be compiled."""
    monkeypatch.setattr(source, "compiled", source.function)


def kernel_of(simulator, state, control=None, parameters=None):
    values = {
        name: torch.as_tensor(value, dtype=F64)
        for name, value in (parameters or simulator.parameters).items()
    }
    return simulator.kernel(state, control, None, simulator.prepare(values, {}))


SYSTEMS = {
    "pendulum": (Pendulum(damping=0.1), 2, 1),
    "cart and pole": (CartPole(), 4, 1),
    "Lotka-Volterra": (LotkaVolterra(), 2, 2),
    "Van der Pol": (VanDerPol(), 2, 1),
    "linear": (
        LinearSystem([[0.0, 1.0, 0.2], [-1.0, -0.1, 0.0], [0.3, 0.0, -0.2]], [[0.0], [1.0], [0.5]]),
        3,
        1,
    ),
}


@pytest.mark.parametrize("scenarios", [1, 3])  # three: as many as the linear system has rows
@pytest.mark.parametrize("system", SYSTEMS)
def test_built_in_systems(system, scenarios, interpreted):
    of, size, inputs = SYSTEMS[system]
    simulator, state = dp.ODE(of, dt=0.05), 2 + 0.3 * random(scenarios, size)
    assert isinstance(kernel_of(simulator, state), ScalarKernel)
    compare_with_eager(simulator, state, 0.3 * random(5, scenarios, inputs, seed=1), steps=5, tolerance=1e-12)


@pytest.mark.parametrize(
    "scheme", [EULER, HEUN, MIDPOINT, RK4, SYMPLECTIC_EULER, VERLET], ids=lambda s: s.name
)
def test_every_scheme(scheme, interpreted):
    simulator = dp.ODE(Pendulum(damping=0.2), dt=0.05, scheme=scheme)
    compare_with_eager(
        simulator, random(2, 2), random(4, 2, 1, seed=1), steps=4, tolerance=1e-12, second=False
    )


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-12), (F32, 1e-5)])
def test_compiled_and_without_control(dtype, tolerance):
    simulator, state = dp.ODE(Pendulum(damping=0.1), dt=0.05), random(3, 2, dtype=dtype)
    compare_with_eager(simulator, state, None, steps=20, tolerance=tolerance, second=False)


def test_loops_that_stop_at_every_step_take_it_where_it_is_cheaper(interpreted, monkeypatch):
    taken = []
    inner = ScalarKernel.run
    monkeypatch.setattr(ScalarKernel, "run", lambda self, *rest: taken.append(self) or inner(self, *rest))
    for scheme, cheaper in ((RK4, True), (EULER, False)):
        simulator, state, force = (
            dp.ODE(Pendulum(), dt=0.05, scheme=scheme),
            random(2, 2),
            random(4, 2, 1, seed=1),
        )
        kernel = kernel_of(simulator, state, force[0])
        assert kernel.single_steps is cheaper and kernel.repeated(10).single_steps
        del taken[:]
        found = rollout(simulator, state, force, gradient=dp.TruncatedBPTT(2)).states
        assert len(taken) == (4 if cheaper else 0)
        torch.testing.assert_close(found, rollout(simulator, state, force).states, rtol=1e-13, atol=1e-13)


def test_the_dtype_is_the_states():
    simulator, state = dp.ODE(Pendulum(), dt=0.05), random(3, 2, dtype=F32)
    assert rollout(simulator, state, length=3).states.dtype == F32


def test_substeps_stay_in_the_loop():
    simulator = Substeps(dp.ODE(VanDerPol(), dt=0.02), 4)
    state, controls = random(3, 2), random(5, 3, 1, seed=1)
    assert kernel_of(simulator, state, controls[0]).substeps == 4
    compare_with_eager(simulator, state, controls, steps=5, tolerance=1e-12, second=False)


def test_parameters_of_each_scenario_and_of_all(interpreted):
    for mass in (torch.tensor([0.8, 1.0, 1.3], dtype=F64), torch.tensor(1.1, dtype=F64)):
        simulator = dp.ODE(Pendulum(mass=mass, length=torch.tensor([1.0], dtype=F64)), dt=0.05)
        assert isinstance(kernel_of(simulator, random(3, 2), random(3, 1)), ScalarKernel)
        compare_with_eager(
            simulator, random(3, 2), random(4, 3, 1, seed=1), steps=4, tolerance=1e-12, second=False
        )


# -- operations -----------------------------------------------------------------------------------------------------

HALF = torch.tensor([[0.5, -0.2], [0.1, 0.7]], dtype=F64)


def written_in_place(x):
    found = torch.zeros_like(x)
    found[:, 0] = x[:, 1] * 2
    found[:, 1] += x[:, 0]
    found.mul_(0.5).add_(x)
    return found


ONE = {
    "arithmetic": lambda x: (x + 1 - 2 * x) / (3 + x) - (-x) + 2 / (1 + x * x),
    "alpha": lambda x: torch.sub(torch.add(x, x * x, alpha=0.3), x, alpha=0.2) + torch.rsub(x, 1.0, alpha=2),
    "powers": lambda x: (
        x**2 + x**3 - x**4 + (1 + x * x) ** -1 + (2 + x.sin()) ** 1.7 + (3 + x) ** -0.5 + x.square()
    ),
    "power of a tensor": lambda x: (2.0 + x.cos()) ** x + 1.5**x,
    "exponentials": lambda x: torch.exp(x) + torch.log(4 + x) + torch.log1p(x * x) + torch.expm1(x),
    "circular": lambda x: (
        torch.sin(x) * torch.cos(x) + torch.tan(0.3 * x) + torch.atan(x) + torch.asin(0.1 * x)
    ),
    "hyperbolic": lambda x: torch.tanh(x) + torch.sinh(0.3 * x) - torch.cosh(0.3 * x) + torch.acos(0.1 * x),
    "roots": lambda x: torch.sqrt(4 + x) + torch.rsqrt(5 + x) + torch.reciprocal(6 + x),
    "angles": lambda x: torch.atan2(x[:, :1], 2 + x[:, 1:]) + torch.remainder(x, 1.3) + x % 0.7,
    "kinks": lambda x: (
        x.abs() + x.relu() + x.clamp(-0.5, 0.8) + x.clamp_min(0.1) + x.clamp(max=0.3) + torch.sign(x)
    ),
    "extremes": lambda x: (
        torch.maximum(x, x.flip(1)) - torch.minimum(x, 0.5 * x.flip(1)) + x.amax(1, keepdim=True)
    ),
    "activations": lambda x: (
        torch.sigmoid(x)
        + torch.nn.functional.softplus(x)
        + torch.nn.functional.silu(x)
        + torch.nn.functional.gelu(x)
        + torch.nn.functional.leaky_relu(x)
        + torch.nn.functional.elu(x)
    ),
    "choice": lambda x: torch.where((x > 0.1) & (x < 1) | ~(x >= -1), x * x, x.sin()) * (x != 0.3),
    "rounding": lambda x: (
        x + torch.floor(x) + torch.ceil(x) - torch.trunc(2 * x) + torch.round(torch.zeros(())) * 0
    ),
    "error function": lambda x: torch.erf(x) + torch.erfc(x),
    "sums": lambda x: x + x.sum(1, keepdim=True) + x.mean(-1)[:, None] + x.prod(1, keepdim=True),
    "products": lambda x: (
        x @ HALF + torch.nn.functional.linear(x, HALF, HALF[0]) + torch.einsum("si,ij->sj", x, HALF)
    ),
    "products of each": lambda x: ((x[:, :, None] * x[:, None, :]) @ x[:, :, None])[..., 0],
    "rearranging": lambda x: (
        torch.stack(x.unbind(1)[::-1], 1) + torch.cat([x[:, 1:], x[:, :1]], 1) + x.roll(1, 1)
    ),
    "shapes": lambda x: x.reshape(-1, 1, 2).expand(-1, 3, 2).mean(1) + x.T.T + x[..., None].squeeze(-1),
    "indices": lambda x: (
        x[:, [1, 0]] * x[:, torch.tensor([0, 0])] + x[..., 1:2] + x.index_select(1, torch.tensor([1, 0]))
    ),
    "constants": lambda x: x * torch.tensor([1.0, 2.0], dtype=F64) + torch.arange(2) + x.new_full((2,), 3.0),
    "in place": written_in_place,
    "logic": lambda x: torch.where(torch.logical_or(x > 1, torch.logical_not(x > -1)), x, 2 * x),
    "norms": lambda x: x / torch.sqrt(1 + (x * x).sum(-1, keepdim=True)) + torch.lerp(x, x * x, 0.3),
    "safe": lambda x: safe.norm(x, keepdim=True) * x + safe.sqrt(x) + safe.van_albada(x, x.flip(1), 1e-3),
}


@pytest.mark.parametrize("name", ONE)
def test_operations(name, interpreted):
    def step(x, u):
        return 0.7 * x + 0.1 * ONE[name](x) + 0.05 * ONE[name](u)

    simulator = Compiled(step)
    state, controls = 0.8 * random(3, 2), 0.8 * random(2, 3, 2, seed=1)
    kernel = kernel_of(simulator, state, controls[0])
    assert isinstance(kernel, ScalarKernel), simulator.traces.reasons
    compare_with_eager(simulator, state, controls, steps=2, tolerance=1e-12, second=False)


AT_KINKS = ("kinks", "extremes", "choice", "safe", "rounding", "in place")


@pytest.mark.parametrize("name", AT_KINKS)
def test_derivatives_at_kinks_are_those_of_torch(name, interpreted):
    simulator = Compiled(lambda x, u: ONE[name](x) + u)
    corners = torch.tensor([[0.0, 0.0], [-0.5, 0.8], [0.1, 0.1], [0.3, 0.3], [1.0, -1.0]], dtype=F64)
    compare_with_eager(
        simulator, corners, torch.zeros(1, 5, 2, dtype=F64), steps=1, tolerance=1e-14, second=False
    )


def test_what_is_detached_stays_so(interpreted):
    simulator = Compiled(lambda x, u: x.detach() * x + u)
    compare_with_eager(simulator, random(3, 2), random(2, 3, 2), steps=2, tolerance=1e-13, second=False)


# -- steps ----------------------------------------------------------------------------------------------------------


def oscillators(state, control, *, parameters, noise, t, scenario):
    """Two oscillators, coupled by a matrix, pushed at a time and with weights that differ between scenarios."""
    x, v = state["x"], state["v"]
    force = x @ parameters["springs"] - x**3 + (1 + t) * scenario["weight"][:, None] * control
    v = v + 0.1 * force + parameters["spread"] * noise
    return {"x": x + 0.1 * v, "v": v}


def posed(*, compile, gradient=None, count=3):
    return dp.control_problem(
        oscillators,
        initial_state={"x": random(count, 2), "v": random(count, 2, seed=1)},
        horizon=5,
        objective=dp.track({n: torch.ones(6, 2) for n in "xv"}) + 0.1 * dp.effort(),
        unknown=(dp.ControlSequence(2), dp.Parameters("springs", "spread"), dp.InitialState()),
        parameters={"springs": -torch.eye(2, dtype=F64), "spread": 0.2},
        scenarios={"weight": random(count, seed=2), "noise": random(count, 5, 2, seed=3)},
        gradient=gradient,
        compile=compile,
    )


def gradients(problem, scenarios=None):
    z = tree.map(lambda leaf: leaf.clone().requires_grad_(), problem.start(scenarios))
    loss = problem.loss(z, scenarios)
    found = torch.autograd.grad(loss.sum(), tree.leaves(z), retain_graph=True)
    first = torch.autograd.grad(loss.sum(), tree.leaves(z), create_graph=True)
    second = torch.autograd.grad(sum((g * g).sum() for g in first), tree.leaves(z))
    return [loss.detach(), *found, *(leaf.detach() for leaf in first), *second]


@pytest.mark.parametrize("count", [1, 2, 3])  # two: as many as the matrix has rows
def test_a_users_step_with_all_that_it_may_ask_for(count, interpreted):
    plain, fast = posed(compile=False, count=count), posed(compile=True, count=count)
    torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-12, atol=1e-12)
    assert fast.simulator.traces.reasons == [] and fast.simulator.compilations.count == 0
    (kernel,) = fast.simulator.traces.known.values()
    # other numbers of scenarios are no other step, unless they might be the rows of a matrix
    gradients(fast, torch.tensor([0, 0, 0, 0]))
    assert kernel in fast.simulator.traces.known.values() and len(fast.simulator.traces.known) == 1 + (
        count == 2
    )


@pytest.mark.parametrize("mode", [dp.Checkpointed(), dp.Checkpointed(snapshots=2), dp.Auto("1kB")], ids=repr)
def test_every_mode_takes_it(mode, interpreted):
    plain, fast = posed(compile=False), posed(compile=True, gradient=mode)
    torch.testing.assert_close(gradients(fast), gradients(plain), rtol=1e-12, atol=1e-12)


def test_copies_for_other_processes_trace_for_themselves(interpreted):
    problem = posed(compile=True)
    problem.loss(problem.start())
    traces = problem.simulator.traces
    assert (
        traces.known and copy.deepcopy(traces).known == {} and pickle.loads(pickle.dumps(traces)).known == {}
    )
    assert dp.ODE(Pendulum(), dt=0.1) == dp.ODE(Pendulum(), dt=0.1)


def test_tensors_from_outside_are_looked_up_at_every_run(interpreted):
    gain = torch.tensor([[0.5, 0.1], [0.0, 0.3]], dtype=F64)
    simulator = Compiled(lambda x, u: x.sin() @ gain + u)
    state, controls = random(3, 2), random(4, 3, 2, seed=1)
    compare_with_eager(simulator, state, controls, steps=4, tolerance=1e-13, second=False)
    gain.mul_(2)
    compare_with_eager(simulator, state, controls, steps=4, tolerance=1e-13, second=False)
    assert len(simulator.traces.known) == 1 and not simulator.traces.reasons
    gain.requires_grad_()
    with pytest.raises(dp.UsageError, match="silently get none"):
        rollout(simulator, state, controls)


def test_the_users_rate_under_a_built_in_scheme(interpreted):
    def rate(x, u, *, parameters, t):
        return parameters["pull"] * torch.tanh(x.flip(-1)) + u * torch.cos(torch.as_tensor(t, dtype=F64))

    inner = dp.ODE(FunctionSystem(rate, {"pull": torch.tensor([0.5, -0.4], dtype=F64)}), dt=0.1)
    state, controls = random(2, 2), random(5, 2, 2, seed=1)
    assert kernel_of(inner, state, controls[0]) is None  # it is not known to be pure: on demand
    simulator = Compiled(inner)
    compare_with_eager(simulator, state, controls, steps=5, tolerance=1e-12, second=False)
    assert not simulator.traces.reasons


def test_populations_run_in_the_loop(interpreted):
    simulator, start = dp.ODE(LotkaVolterra(), dt=0.1), torch.tensor([[30.0, 5.0], [20.0, 9.0]], dtype=F64)
    rates = torch.tensor([0.4, 0.5, 0.6, 0.7], dtype=F64)
    found = []
    for vectorised in (True, False):
        growth, state = rates.clone().requires_grad_(), start.clone().requires_grad_()

        def loss(value, state=state):
            return rollout(simulator, state, length=20, parameters={"prey_growth": value}).states.log().sum()

        values = torch.func.vmap(loss)(growth) if vectorised else torch.stack([loss(one) for one in growth])
        found.append([values.detach(), *torch.autograd.grad(values.square().sum(), (growth, state))])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    assert len(simulator.traces.known) == 1


def test_a_first_run_inside_of_a_transform(interpreted):
    """Nothing of the transform gets into the trace."""
    state = random(2, 2)
    for transform in (torch.func.vmap, lambda f: f, lambda f: torch.func.vmap(torch.func.grad(f))):
        simulator = dp.ODE(Pendulum(), dt=0.1)

        def loss(mass, simulator=simulator):
            return rollout(simulator, state, length=3, parameters={"mass": mass}).states.sum()

        if transform is torch.func.vmap:
            transform(loss)(torch.tensor([1.0, 2.0], dtype=F64))
        else:
            transform(loss)(
                torch.tensor(1.5, dtype=F64) if transform(loss) is loss else torch.ones(2, dtype=F64)
            )
        assert not simulator.traces.reasons and len(simulator.traces.known) == 1


def test_scenarios_do_not_change_each_others_bits():
    """Also where vectors and their rest are computed by different instructions, and in threads."""
    simulator, state = dp.ODE(CartPole(), dt=0.02), random(11, 4)
    force = random(30, 11, 1, seed=1)
    together = rollout(simulator, state, force).states
    apart = [rollout(simulator, state[s : s + 1], force[:, s : s + 1]).states for s in range(11)]
    assert torch.equal(together, torch.cat(apart, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so_in_its_scenario(value):
    simulator, state, force = dp.ODE(CartPole(), dt=0.02), random(4, 4), random(5, 4, 1, seed=1)
    force[1, 2] = value
    states = rollout(simulator, state, force).states
    fine = torch.isfinite(states).flatten(2).all(-1)
    assert not fine[2:, 2].any() and fine[:, [0, 1, 3]].all()


def test_steps_that_differ_in_numbers_share_their_loops():
    kernels = [
        kernel_of(dp.ODE(Pendulum(gravity=g), dt=dt), random(2, 2)) for g, dt in ((9.81, 0.1), (1.6, 0.03))
    ]
    sources = [(source.run_source(k.loops.program), source.pull_source(k.loops.program)) for k in kernels]
    for (one, numbers), (other, others) in zip(*sources, strict=True):
        assert one == other and numbers != others


@pytest.mark.parametrize("writable", [True, False])
def test_machine_code_is_kept_where_it_can_be(writable, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    if not writable:
        folder.write_text("a file is in the way")
    monkeypatch.setenv("DPCONTROL_CACHE", str(folder))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    text = "def run(constants, x):\n    return constants[0] * math.sin(x)\n"
    for hits in (0, 1):
        made = source.compiled.__wrapped__(text)
        assert made(torch.tensor([2.0]).numpy(), 0.5) == pytest.approx(2 * math.sin(0.5))
        assert sum(made.stats.cache_hits.values()) == (hits if writable else 0)


# -- what does not go this way --------------------------------------------------------------------------------------

HIDDEN = torch.ones(2, dtype=F64, requires_grad=True)


class Doubled(torch.autograd.Function):
    """A derivative of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, above):
        return 2 * above


REFUSED = {
    "looks at a number": (
        lambda x, u: x + u if float(x.sum()) > 0 else x - u,
        "taken out of a tensor",
    ),
    "asks whether": (lambda x, u: x + u if x[0, 0] > 0 else x, "taken out of a tensor"),
    "as a list": (lambda x, u: x + u * x.detach().tolist()[0][0], "it fails with"),
    "as an array": (lambda x, u: x + torch.as_tensor(u.numpy()), "it fails with"),
    "an unknown operation": (lambda x, u: torch.cumsum(torch.sort(x)[0], 1) + u, "the operation"),
    "an index": (lambda x, u: x.gather(1, (x > 0).long()) + u, "operation gather|cast"),
    "transforms": (lambda x, u: torch.fft.ifft(torch.fft.fft(x)).real + u, "the operation"),
    "scenarios": (lambda x, u: x - x.mean(0) + u, "looks at another scenario"),
    "too much": (lambda x, u: sum((torch.sin(i * x) for i in range(2000)), u), "more than"),
    "another shape": (lambda x, u: (x + u)[:, :1], "another shape"),
    "another structure": (lambda x, u: {"x": x + u}, "another structure"),
    "a back door": (lambda x, u: x * HIDDEN + u, "requires a gradient and is no argument"),
    "a derivative of its own": (lambda x, u: Doubled.apply(x) + u, "do not equal the step"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_goes_another_way_and_says_why(name, interpreted, caplog):
    caplog.set_level(logging.INFO, "dpcontrol.kernels.scalar")
    step, reason = REFUSED[name]
    traces, state = Traces(), random(3, 2)
    found = scalar_kernel(traces, lambda x, row, c, t: step(x, row[0]), 1.0, state, (random(3, 2), None), {})
    assert found is None
    assert len(traces.reasons) == 1 and re.search(reason, traces.reasons[0])
    assert traces.reasons[0] in caplog.text


def test_other_data_are_left_to_the_eager_step(monkeypatch):
    simulator, state = dp.ODE(VanDerPol(), dt=0.1), random(2, 2)
    assert kernel_of(simulator, state.float(), random(2, 1)) is None
    assert kernel_of(simulator, state.to("meta")) is None
    assert kernel_of(simulator, state[:0]) is None
    assert kernel_of(simulator, state, random(1, 1)) is None  # the eager step broadcasts
    assert "another number of scenarios" in simulator.traces.reasons[-1]
    assert kernel_of(simulator, state[0, 0]) is None and kernel_of(simulator, state, state[0, 0]) is None
    assert kernel_of(dp.ODE(VanDerPol(), dt=0.1, fused=False), state) is None
    assert rollout(simulator, state[:0], length=3).states.shape == (4, 0, 2)
    wide = LinearSystem(torch.eye(65), torch.ones(65, 1))
    assert kernel_of(dp.ODE(wide, dt=0.1), random(2, 65)) is None
    monkeypatch.setitem(sys.modules, "numba", None)
    assert kernel_of(dp.ODE(VanDerPol(), dt=0.1), state) is None
