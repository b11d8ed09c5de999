"""Auto and the plan: what is predicted before a gradient is what is measured while it is computed."""

from dataclasses import replace

import pytest
import torch

import dpcontrol as dp
from dpcontrol.catalogue import find
from dpcontrol.engine import Auto, Checkpointed, Full, scan
from dpcontrol.engine.memory import SavedBytes, available_bytes, choose, physical_bytes
from dpcontrol.engine.schedule import plan
from dpcontrol.problem.planning import in_words
from dpcontrol.sim import DiscreteLinear, FiniteVolumeBurgers, SemiLagrangianBurgers

F64 = torch.float64


def lorenz(x, u):
    a, b, c = x.unbind(-1)
    return torch.stack((10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c), -1) + u


def double_integrator():
    return DiscreteLinear([[1.0, 0.1], [0.0, 1.0]], [[0.0], [0.1]])


SYSTEMS = {
    "finite volumes": (lambda: FiniteVolumeBurgers(dt=0.002, viscosity=0.01, fused=False), 128, 128),
    "finite volumes, substeps": (
        lambda: dp.Substeps(FiniteVolumeBurgers(dt=0.002, viscosity=0.01, fused=False), 4),
        64,
        64,
    ),
    "semi-Lagrangian": (lambda: SemiLagrangianBurgers(dt=0.03, viscosity=0.003), 32, 32),
    "ODE": (lambda: dp.ODE(lorenz, dt=0.01), 3, 3),
    "linear": (double_integrator, 2, 1),
}


def posed(name, horizon=40, gradient=None):
    make, cells, inputs = SYSTEMS[name]
    generator = torch.Generator().manual_seed(0)
    return dp.control_problem(
        make(),
        initial_state=torch.rand(5, cells, generator=generator, dtype=F64),
        horizon=horizon,
        objective=dp.track(torch.zeros(horizon + 1, cells)) + dp.reach(torch.zeros(cells)) + dp.effort(),
        control=dp.ControlSequence(inputs),
        gradient=gradient or Full(),
    )


def measured(problem):
    """Bytes that the whole loss keeps for its backward sweep, and the loss of all scenarios."""
    z = {name: leaf.clone().requires_grad_() for name, leaf in problem.start().items()}
    beside = [*z.values(), *(leaf for leaf in problem.scenarios.data.values())]
    with SavedBytes(beside) as saved:
        loss = problem.loss(z).sum()
    return saved.total, torch.autograd.grad(loss, list(z.values()))


@pytest.mark.parametrize("name", SYSTEMS)
def test_full_keeps_what_the_plan_predicts(name):
    problem = posed(name)
    full, states, few = dp.plan_gradient(problem).costs
    kept, exact = measured(problem)
    assert full.bytes == pytest.approx(kept, rel=0.2)
    kept, again = measured(replace(problem, gradient=Checkpointed()))
    assert states.bytes == pytest.approx(kept, rel=0.2) and states.recomputed == problem.horizon
    torch.testing.assert_close(exact, again, rtol=1e-11, atol=1e-11)
    assert few.stored_states <= 20 and few.recomputed == plan(40, few.stored_states).recomputed


@pytest.mark.parametrize("name", ["burgers", "catalyst_mixing", "linear_quadratic", "pendulum_swingup"])
def test_the_prediction_holds_for_the_catalogue(name):
    problem = find(name).build(size="small")
    assert dp.plan_gradient(problem).costs[0].bytes == pytest.approx(measured(problem)[0], rel=0.2)


def test_the_plan_is_a_readable_text():
    text = str(dp.plan_gradient(posed("finite volumes", 1000)))
    for part in (
        "1,000 steps of 5 scenarios",
        "no step is run again",
        "every step run twice",
        "in use: Full()",
    ):
        assert part in text
    assert "20 stored states: " in text and f"{plan(1000, 20).recomputed:,} steps run again" in text
    assert in_words(1_300_000_000) == "1.3 GB" and in_words(80e6) == "80 MB" and in_words(12) == "12 B"


def test_auto_takes_what_fits():
    problem = posed("finite volumes", 100)
    planned = dp.plan_gradient(problem)
    full = planned.costs[0]
    for room, expected in (
        (2 * full.bytes, Full()),
        (full.bytes // 2, Checkpointed()),
        (24 * planned.state_bytes, Checkpointed(snapshots=24)),
    ):
        chosen = dp.plan_gradient(replace(problem, gradient=Auto(memory=room))).chosen
        assert chosen.mode == expected and chosen.bytes <= room
        assert measured(replace(problem, gradient=Auto(memory=room)))[0] <= 1.2 * room


def body(carry, row, constants, k):
    return carry + 0.1 * (row.sin() * constants - carry.cos()), None


@pytest.mark.parametrize("memory", ["1GB", "100 B", None])
def test_auto_is_exact_under_every_transform(memory):
    rows = torch.linspace(-1, 1, 12, dtype=F64).reshape(6, 2)
    start, constant = torch.ones(2, dtype=F64), torch.tensor(0.7, dtype=F64)

    def loss(mode):
        return lambda value: scan(body, start, value, 6, constants=constant, gradient=mode)[0].pow(3).sum()

    mode = Auto(memory)
    for transform in (torch.func.grad, torch.func.hessian):
        torch.testing.assert_close(transform(loss(mode))(rows), transform(loss(Full()))(rows))
    several = torch.stack([rows, -rows])
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(loss(mode)))(several),
        torch.func.vmap(torch.func.grad(loss(Full())))(several),
    )
    assert torch.autograd.gradcheck(loss(mode), rows.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(loss(mode), rows.clone().requires_grad_())


def test_auto_counts_the_whole_batch_of_vmap():
    found = []
    torch.func.vmap(lambda x: found.append(physical_bytes([x])) or x)(torch.zeros(7, 3, dtype=F64))
    assert found == [7 * 3 * 8]


def test_without_gradients_nothing_is_measured():
    calls = []

    def counted(carry, row, constants, k):
        calls.append(k)
        return carry, None

    with torch.no_grad():
        scan(counted, torch.zeros(1), None, 5, gradient=Auto("1 B"))
    assert calls == [0, 1, 2, 3, 4]


def test_auto_solves_like_full():
    exact, other = (dp.solve(posed("ODE", 12, mode), "lbfgs", iterations=5) for mode in (Full(), Auto("4kB")))
    torch.testing.assert_close(exact.value, other.value)


def test_available_memory_is_read(tmp_path, monkeypatch):
    import dpcontrol.engine.memory as memory

    assert 10**7 < available_bytes() < 10**14
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("50000000\n"), used.write_text("20000000\n")
    monkeypatch.setattr(memory, "GROUPS", ((limit, used),))
    assert available_bytes() == 30_000_000
    rows = [torch.ones(10_000, dtype=F64, requires_grad=True)] * 40
    start, constant = torch.ones(10_000, dtype=F64), torch.ones((), dtype=F64)
    assert choose(Auto(), body, start, rows, constant) == Full()
    used.write_text("49000000\n")  # 0.3 of what is left holds 3 states of 80 kB
    assert choose(Auto(), body, start, rows, constant) == Checkpointed(snapshots=3)


@pytest.mark.parametrize(
    "wrong", [{"memory": "much"}, {"fraction": 0}, {"fraction": 1.5}, {"fraction": "all"}]
)
def test_wrong_modes_are_refused(wrong):
    with pytest.raises(dp.UsageError):
        Auto(**wrong)


def test_too_little_memory_is_refused():
    with pytest.raises(dp.UsageError, match="holds no state"):
        measured(posed("finite volumes", 10, Auto("10 B")))
