"""Open-loop runs cost many steps together, and say what step by step says: values, gradients, residuals, paths."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.engine import Checkpointed, Full, TruncatedBPTT
from dpcontrol.kernels import Pulled, StepKernel
from dpcontrol.problem import Gaussian, stretches
from dpcontrol.problem.adjoint import adjoint
from dpcontrol.problem.again import arrangement
from dpcontrol.problem.environment import advance, reset
from dpcontrol.problem.rolling import roll
from dpcontrol.sim import Simulator

F64 = torch.float64
STEPS, SCENARIOS, SIZE = 9, 3, 2


class DriftKernel(StepKernel):
    """``x + a (u - sin x) + w`` in two fields, adjoint by hand."""

    def step(self, state, row, coefficients, k):
        control, noise = row
        assert not any(leaf.requires_grad for leaf in tree.leaves((state, row, coefficients)))
        rate = coefficients["rate"]
        return {n: state[n] + rate * (control - state[n].sin()) + (noise or {}).get(n, 0.0) for n in "ab"}

    def vjp(self, state, row, coefficients, k, cotangent, wanted):
        control, noise = row
        rate = coefficients["rate"]
        of_rate = sum((cotangent[n] * (control - state[n].sin())).sum() for n in "ab")
        return Pulled(
            {n: cotangent[n] * (1 - rate * state[n].cos()) for n in "ab"},
            (rate * (cotangent["a"] + cotangent["b"]), None if noise is None else dict(cotangent)),
            {"rate": of_rate},
        )


@dataclass(frozen=True)
class Drift(Simulator):
    fast: bool
    dt: float = 0.5

    @property
    def parameters(self):
        return {"rate": 0.1}

    def step(self, state, control, coefficients, noise, t):
        rate = coefficients["rate"]
        return {n: state[n] + rate * (control - state[n].sin()) + (noise or {}).get(n, 0.0) for n in "ab"}

    def kernel(self, state, control, noise, coefficients):
        return DriftKernel() if self.fast else None


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def branching(state, control, t):
    return state["a"].square().sum(1) * (2.0 if t > 2 else 1.0) + math.sin(t) * control.sum(1)


def timed(state, control, t, *, scenario):
    return (1 + t * state["a"]).square().sum(1) * scenario["weight"] + (t * control).sin().sum(1)


def peak():
    return dp.fold(
        lambda x: x["a"].amax(1), lambda m, x, u, t: torch.maximum(m, t * x["a"].amax(1)), lambda m, x: m
    )


def of_a(state):
    return state["a"] ** 2


ROWS = draw(STEPS + 1, SCENARIOS, SIZE, seed=1)
BOTH = {"a": ROWS, "b": ROWS + 1}
OBJECTIVES = {
    "reach and effort": lambda: dp.reach({n: torch.ones(SIZE) for n in "ab"}) + 0.3 * dp.effort(),
    "track": lambda: dp.track(BOTH) + 0.5 * dp.effort(),
    "track some, of": lambda: dp.track(ROWS[:3], steps=[9, 4, 0], of=of_a),
    "track, of a row": lambda: dp.track(ROWS, of=lambda x: x["a"] * torch.tensor([1.0, 2.0])),
    "misfit": lambda: dp.misfit(ROWS, Gaussian(0.3), of=of_a),
    "misfit, some": lambda: dp.misfit(ROWS[:2], Gaussian(torch.tensor([0.3, 0.5])), steps=[3, 7], of=of_a),
    "cost with time": lambda: dp.cost(timed, lambda x: x["b"].square().sum(1)),
    "cost that branches": lambda: dp.cost(branching),
    "peak": lambda: peak() + dp.penalty("control"),
    "closing": lambda: (
        dp.closing({n: torch.zeros(SIZE) for n in "ab"}, gain=0.1) + dp.effort() + dp.track(BOTH)
    ),
}


def posed(name, fast, mode=None, unknown=None, **rest):
    acting = OBJECTIVES[name]() if isinstance(name, str) else name
    return dp.control_problem(
        Drift(fast),
        initial_state={"a": draw(SCENARIOS, SIZE, seed=2), "b": draw(SCENARIOS, SIZE, seed=3)},
        horizon=STEPS,
        objective=acting,
        unknown=unknown or (dp.ControlSequence(SIZE), dp.Parameters("rate"), dp.InitialState()),
        scenarios={"weight": torch.tensor([1.0, 2.0, 3.0])},
        gradient=mode or Full(),
        **rest,
    )


def found(problem):
    z = tree.map(lambda leaf: (leaf + 0.1 * draw(*leaf.shape, seed=4)).requires_grad_(), problem.start())
    loss = problem.loss(z)
    gradient = torch.autograd.grad(loss.sum(), tree.leaves(z), materialize_grads=True)
    with torch.no_grad():
        alone = problem.loss(z)
    return [loss.detach(), alone, *gradient]


MODES = [
    Full(),
    Checkpointed(),
    *(Checkpointed(snapshots=n) for n in (3, 9, 10)),  # one by one; stretches of stretches; stretches
    dp.Auto(),
    dp.Auto("2kB"),
]
OPEN = [name for name in OBJECTIVES if name != "closing"]


@pytest.mark.parametrize("length", [4, 100])
@pytest.mark.parametrize("name", OPEN)
def test_stretches_are_the_loop(name, length, monkeypatch):
    monkeypatch.setattr(stretches, "STRETCH_BYTES", length * 2 * SCENARIOS * SIZE * 8)
    expected = found(posed(name, False, TruncatedBPTT(STEPS)))  # which goes step by step and cuts nothing
    for fast in (False, True):
        for mode in MODES:
            torch.testing.assert_close(found(posed(name, fast, mode)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["reach and effort", "track some, of", "track", "closing"])
def test_residuals_paths_and_products_are_the_same(name):
    results = []
    for fast, mode in (
        (False, TruncatedBPTT(STEPS)),
        (False, Full()),
        (True, Full()),
        (True, Checkpointed()),
    ):
        one = (dp.ControlSequence(SIZE), dp.Parameters("rate"))
        if name == "closing":
            problem = closed(fast, mode)
        else:
            problem = posed(name, fast, mode, one)
        z = tree.map(lambda leaf: (leaf + 0.1 * draw(*leaf.shape, seed=4)).requires_grad_(), problem.start())
        path = problem.simulate(z)
        residuals = None
        if name != "track some, of" or fast:  # step by step, rows that come and go cannot be stacked
            residuals = roll(problem, z, residuals=True).residuals
            torch.testing.assert_close(residuals.square().sum(1), problem.loss(z))
        first = torch.autograd.grad(problem.loss(z).sum(), tree.leaves(z), create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), tree.leaves(z))
        results.append([*tree.leaves(path), *second, *([residuals] if name != "track some, of" else [])])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-11, atol=1e-12)


def closed(fast, mode):
    @dataclass(frozen=True)
    class Row(Simulator):
        dt: float = 1.0

        @property
        def parameters(self):
            return {"rate": 0.1}

        def step(self, state, control, coefficients, noise, t):
            return state + coefficients["rate"] * (control - state.sin())

        def kernel(self, state, control, noise, coefficients):
            return RowKernel() if fast else None

    return dp.control_problem(
        Row(),
        initial_state=draw(SCENARIOS, SIZE),
        horizon=STEPS,
        objective=dp.closing(torch.zeros(SIZE), gain=0.1) + dp.effort() + dp.track(ROWS),
        unknown=(dp.ControlSequence(SIZE),),
        gradient=mode,
    )


class RowKernel(StepKernel):
    def step(self, state, row, coefficients, k):
        return state + coefficients["rate"] * (row[0] - state.sin())

    def vjp(self, state, row, coefficients, k, cotangent, wanted):
        rate = coefficients["rate"]
        return Pulled(cotangent * (1 - rate * state.cos()), (rate * cotangent, None), None)


def test_noise_comes_in_step_by_step():
    noise = {n: 0.1 * draw(SCENARIOS, STEPS, SIZE, seed=7) for n in "ab"}
    results = []
    for fast, mode in ((False, TruncatedBPTT(STEPS)), (False, Full()), (True, Full()), (True, dp.Auto())):
        problem = posed("track", fast, mode, dp.ControlSequence(SIZE))
        noisy = replace(
            problem, scenarios=replace(problem.scenarios, data={**problem.scenarios.data, "noise": noise})
        )
        results.append(found(noisy))
        assert not torch.allclose(results[-1][0], found(problem)[0])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(SIZE, SIZE, dtype=F64)

    def forward(self, state, t, scenario):
        return self.layer(state["a"]).tanh() * (1 + t)


@pytest.mark.parametrize(
    "mode", [Full(), Checkpointed(), Checkpointed(snapshots=2), dp.Auto("1kB")], ids=repr
)
def test_closed_loops_use_the_kernel_step_by_step(mode):
    torch.manual_seed(0)
    network = Net()
    calls = []

    class Counting(DriftKernel):
        def vjp(self, *arguments):
            calls.append(1)
            return super().vjp(*arguments)

    @dataclass(frozen=True)
    class Counted(Drift):
        def kernel(self, state, control, noise, coefficients):
            return Counting()

    plain = posed("track", False, Full(), dp.Policy(network))
    fast = replace(plain, simulator=Counted(True), gradient=mode)
    torch.testing.assert_close(found(fast), found(plain), rtol=1e-12, atol=1e-12)
    assert len(calls) == STEPS


def test_an_episode_with_a_kernel_earns_minus_the_loss():
    problem = posed("cost with time", True, unknown=dp.ControlSequence(SIZE))
    control = draw(SCENARIOS, STEPS, SIZE)
    episode, total = reset(problem), 0
    while not episode.done:
        episode, reward = advance(episode, control[:, episode.position.k])
        total = total + reward
    torch.testing.assert_close(-total, problem.loss({"control": control}))


def test_adjoints_and_diagnosis_do_not_mind_a_kernel():
    slow, fast = (posed("track", kernel, unknown=dp.ControlSequence(SIZE)) for kernel in (False, True))
    z = {"control": draw(SCENARIOS, STEPS, SIZE)}
    for one, two in zip(
        tree.leaves(adjoint(slow, z).states), tree.leaves(adjoint(fast, z).states), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_functions_that_look_at_their_numbers_are_called_step_by_step():
    seen = []

    def looking(state, control, t):
        seen.append(t)
        return float(t) * state["a"].sum(1) if control.abs().max() < 1e9 else control.sum(1)

    problem = posed(dp.cost(looking), False)
    together = posed("cost with time", False)
    assert not problem.objective.terms[0][1].at_once and together.objective.terms[0][1].at_once
    seen.clear()
    problem.loss(problem.start())
    assert seen == [0.5 * k for k in range(STEPS)]


def test_an_observation_that_mixes_its_batch_is_not_shown_many_steps_together():
    mean = posed(dp.track(ROWS, of=lambda x: x["a"] - x["a"].mean(0, keepdim=True)), False)
    assert not mean.objective.terms[0][1].at_once
    assert posed("misfit", False).objective.terms[0][1].at_once
    torch.testing.assert_close(
        found(mean), found(replace(mean, gradient=TruncatedBPTT(STEPS))), rtol=1e-12, atol=1e-12
    )


def test_a_value_alone_keeps_no_path():
    """A long run without gradient goes in stretches: of 4000 states of 80 kB never more than 32 MB are there."""
    problem = dp.control_problem(
        lambda x, u: x * 0.999 + u,
        initial_state=torch.ones(1, 10_000, dtype=F64),
        horizon=4000,
        objective=dp.cost(lambda x, u, t: x[:, 0] ** 2) + dp.effort(),
        control=dp.ControlSequence(1),
    )
    lengths = []
    original = stretches._costs
    stretches._costs = lambda course, path, *rest, **more: (
        lengths.append(path.length) or original(course, path, *rest, **more)
    )
    try:
        with torch.no_grad():
            problem.loss(problem.start())
    finally:
        stretches._costs = original
    assert sum(lengths) == 4000 and max(lengths) * 80_000 <= stretches.STRETCH_BYTES


def test_stretches_of_stretches_hold_what_they_promise():
    for steps in (2, 9, 40, 1000, 10_000):
        for states in (4, 8, 20, 100, 600):
            lengths = arrangement(steps, states)
            if lengths is None:
                continue
            held, inside = 2 * lengths[-1], steps
            for length in lengths:
                held += -(-inside // length)
                inside = length
            assert held <= states + 1
    assert arrangement(10_000, 600) == [34] and arrangement(9, 9) == [3, 1] and arrangement(9, 10) == [2]
    assert arrangement(9, 3) is None


def test_costs_and_steps_by_the_back_door_are_found_under_stored_states():
    hidden = torch.ones(SIZE, dtype=F64, requires_grad=True)
    for fast in (False, True):
        problem = posed(
            dp.cost(lambda x, u, t: (hidden * x["a"] * u).sum(1)),
            fast,
            Checkpointed(snapshots=10 if fast else None),
        )
        with pytest.raises(dp.UsageError, match="would silently get none"):
            problem.loss(tree.map(lambda leaf: leaf.requires_grad_(), problem.start()))


@pytest.mark.parametrize("mode", [Full(), Checkpointed(), Checkpointed(snapshots=10)], ids=repr)
def test_runs_that_nothing_enters(mode):
    results = []
    for fast in (False, True):
        problem = dp.control_problem(
            Drift(fast) if fast else (lambda x, u: x + 0.1 * -x.sin()),
            initial_state={"a": draw(SCENARIOS, SIZE), "b": draw(SCENARIOS, SIZE)}
            if fast
            else draw(SCENARIOS, SIZE),
            horizon=STEPS,
            objective=dp.cost(terminal=lambda x: tree.leaves(x)[0].square().sum(1)),
            unknown=(dp.InitialState(), dp.ControlSequence(SIZE)) if fast else dp.InitialState(),
            gradient=mode,
        )
        start = problem.start()
        z = tree.map(lambda leaf: leaf.requires_grad_(), start)
        gradient = torch.autograd.grad(problem.loss(z).sum(), tree.leaves(z["initial_state"])[0])[0]
        results.append(gradient)
    torch.testing.assert_close(*results)
