"""Stored states: the gradient of ``Full`` to rounding, the planned recomputation, the promised memory."""

import functools
import os
import subprocess
import sys
import textwrap

import pytest
import torch

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.engine import Checkpointed, Full, StopGradient, TruncatedBPTT, scan
from dpcontrol.engine.schedule import plain_steps, plan, split

F64 = torch.float64


@functools.cache
def fewest(steps, states):
    """Oracle: the least number of plain steps by dynamic programming."""
    if steps <= 1:
        return 0
    if states == 1:
        return steps * (steps - 1) // 2
    return min(m + fewest(steps - m, states - 1) + fewest(m, states) for m in range(1, steps))


@pytest.mark.parametrize("states", [1, 2, 3, 4, 7])
def test_the_binomial_formula_and_its_splits_are_optimal(states):
    for steps in range(1, 70):
        assert plain_steps(steps, states) == fewest(steps, states)
        if steps > 1 and states > 1:
            m = split(steps, states)
            assert m + fewest(steps - m, states - 1) + fewest(m, states) == fewest(steps, states)


def test_known_values_of_the_formula():
    assert plain_steps(1000, 20) == 2747 and plain_steps(1000, 5) == 6284 - 0  # per step 2.75 and 6.28


def body(carry, row, constants, k):
    position, speed = carry
    speed = speed + 0.1 * (row["force"] - constants["stiffness"] * position.sin()) + 0.01 * k
    position = position + 0.1 * speed
    return (position, speed), {"energy": 0.5 * speed.square(), "where": (position,)}


def loss(mode, length, position, speed, force, stiffness):
    (x, v), out = scan(
        body,
        (position, speed),
        {"force": force},
        length,
        constants={"stiffness": stiffness, "name": "spring"},
        gradient=mode,
    )
    return (x * v).sum() + out["energy"].pow(1.5).sum() + (out["where"][0].cos() * force).sum()


def point(length, grad=True):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=F64)  # noqa: E731
    leaves = (draw(2), draw(2), draw(length, 2), draw(()).abs())
    return tuple(leaf.requires_grad_(grad) for leaf in leaves)


MODES = [Checkpointed(), *(Checkpointed(snapshots=n) for n in (1, 2, 3, 5, 30)), Checkpointed(memory="100 B")]


@pytest.mark.parametrize("mode", MODES, ids=repr)
@pytest.mark.parametrize("length", [1, 2, 9, 17])
def test_gradients_equal_full(mode, length):
    arguments = point(length)
    exact, other = (torch.autograd.grad(loss(m, length, *arguments), arguments) for m in (Full(), mode))
    for one, two in zip(exact, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)
    assert torch.equal(loss(Full(), length, *arguments), loss(mode, length, *arguments))


@pytest.mark.parametrize("snapshots", [1, 3, 30])
def test_it_composes_with_every_transform(snapshots):
    length, mode = 6, Checkpointed(snapshots=snapshots)
    arguments = point(length)
    assert torch.autograd.gradcheck(functools.partial(loss, mode, length), arguments)
    assert torch.autograd.gradgradcheck(functools.partial(loss, mode, length), arguments)
    plain = point(length, grad=False)
    of_force = lambda m: lambda force: loss(m, length, plain[0], plain[1], force, plain[3])  # noqa: E731
    for transform in (torch.func.grad, torch.func.hessian):
        torch.testing.assert_close(transform(of_force(mode))(plain[2]), transform(of_force(Full()))(plain[2]))
    direction = torch.ones_like(plain[2])
    for m in (mode, Full()):
        _, along = torch.func.jvp(of_force(m), (plain[2],), (direction,))
        torch.testing.assert_close(along, (torch.func.grad(of_force(Full()))(plain[2]) * direction).sum())
    several = torch.stack([plain[2], 2 * plain[2], -plain[2]])
    torch.testing.assert_close(
        torch.func.vmap(torch.func.grad(of_force(mode)))(several),
        torch.stack([torch.func.grad(of_force(Full()))(force) for force in several]),
    )


@pytest.mark.parametrize("length, snapshots", [(40, 4), (100, 9), (100, 99), (37, 1)])
def test_steps_are_run_again_as_often_as_planned(length, snapshots):
    calls = []

    def counted(carry, row, constants, k):
        calls.append(k)
        return carry + row.sin(), None

    start, rows = (
        torch.zeros(1, dtype=F64, requires_grad=True),
        torch.randn(length, 1, dtype=F64, requires_grad=True),
    )
    carry, _ = scan(counted, start, rows, length, gradient=Checkpointed(snapshots=snapshots))
    assert len(calls) == length + 1  # the probe for captured tensors is one more
    carry.sum().backward()
    expected = plan(length, snapshots)
    assert len(calls) - length - 1 == expected.recomputed and expected.states <= snapshots
    torch.testing.assert_close(rows.grad, rows.detach().cos())


@pytest.mark.parametrize("mode", MODES, ids=repr)
def test_what_steps_hand_on_unchanged_has_its_gradient(mode):
    """A running loss before its first cost, a memory that is written once."""

    def lazy(carry, row, constants, k):
        x, untouched, written = carry
        return (x * row + untouched, untouched, x if k == 2 else written), None

    start = tuple(torch.tensor(value, dtype=F64, requires_grad=True) for value in (1.5, 0.3, 2.0))
    rows = torch.linspace(0.5, 1.5, 9, dtype=F64).requires_grad_()

    def gradients(mode):
        (x, untouched, written), _ = scan(lazy, start, rows, 9, gradient=mode)
        return torch.autograd.grad(
            x * written.square() + untouched.exp(), (*start, rows), materialize_grads=True
        )

    torch.testing.assert_close(gradients(mode), gradients(Full()), rtol=1e-13, atol=1e-13)


def test_the_plan_is_close_to_the_optimum():
    for steps, snapshots in ((1000, 20), (1000, 5), (10_000, 30)):
        optimum = plain_steps(
            steps, snapshots
        )  # keeps states while running forward as well, so that it is one run less
        assert plan(steps, snapshots).recomputed <= 1.25 * optimum


def test_a_captured_tensor_that_wants_a_gradient_is_found():
    hidden = torch.ones(1, requires_grad=True)
    with pytest.raises(dp.UsageError, match="would silently get none"):
        scan(lambda c, r, _, k: (c * hidden, None), torch.ones(1), None, 3, gradient=Checkpointed())


@pytest.mark.parametrize(
    "wrong",
    [
        {"snapshots": 0},
        {"snapshots": 2, "memory": "1GB"},
        {"memory": "much"},
        {"memory": -3},
        {"memory": "1.2.3GB"},
    ],
)
def test_wrong_modes_are_refused(wrong):
    with pytest.raises(dp.UsageError):
        Checkpointed(**wrong)


def test_a_memory_too_small_for_one_state_is_refused():
    with pytest.raises(dp.UsageError, match="holds no state of 8000000 bytes"):
        scan(
            lambda c, r, _, k: (c, None),
            torch.zeros(10**6, dtype=F64),
            None,
            3,
            gradient=Checkpointed(memory="1MB"),
        )


def test_biased_modes_cut_the_path_and_say_so():
    def product(mode):
        x = torch.tensor(2.0, dtype=F64, requires_grad=True)
        rows = torch.full((4,), 3.0, dtype=F64, requires_grad=True)
        carry, _ = scan(lambda c, r, _, k: (c * r, None), x, rows, 4, gradient=mode)
        return torch.autograd.grad(carry, (rows, x), allow_unused=True)

    exact = product(Full())[0]
    assert exact.tolist() == [54.0] * 4
    assert product(TruncatedBPTT(2))[0].tolist() == [0.0, 0.0, 54.0, 54.0]
    assert product(StopGradient())[0].tolist() == [0.0, 0.0, 0.0, 54.0]
    assert product(TruncatedBPTT(4))[0].tolist() == exact.tolist()
    assert not TruncatedBPTT(2).exact and not StopGradient().exact


def posed(mode, unknown, horizon=12):
    def step(state, control, *, parameters):
        return state + 0.1 * (control - parameters["decay"] * state.sin())

    return dp.control_problem(
        step,
        initial_state=torch.linspace(0.2, 1.0, 6, dtype=F64).reshape(3, 2),
        horizon=horizon,
        objective=dp.closing(torch.zeros(2), gain=0.1)
        + dp.effort()
        + 0.1 * dp.track(torch.ones(horizon + 1, 2)),
        unknown=unknown,
        parameters={"decay": 0.7},
        gradient=mode,
    )


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2, dtype=F64)

    def forward(self, state, t, scenario):
        return self.layer(state).tanh()


@pytest.mark.parametrize("name", ["control", "everything", "policy"])
def test_problems_solve_alike_in_every_exact_mode(name):
    torch.manual_seed(0)
    slots = {
        "control": (dp.ControlSequence(2),),
        "everything": (dp.ControlSequence(2), dp.Parameters("decay"), dp.InitialState()),
        "policy": (dp.Policy(Net()),),
    }[name]
    exact = dp.solve(posed(Full(), slots), "adjoint", iterations=5)
    other = dp.solve(posed(Checkpointed(snapshots=3), slots), "adjoint", iterations=5)
    torch.testing.assert_close(tree.ravel(exact.value), tree.ravel(other.value))


def test_biased_modes_are_refused_where_exactness_is_needed():
    problem = posed(TruncatedBPTT(3), dp.ControlSequence(2))
    with pytest.raises(dp.UsageError, match="needs an exact gradient"):
        dp.solve(problem, "lbfgs")
    with pytest.raises(dp.UsageError, match="no exact gradient"):
        dp.check_gradient(problem)
    assert dp.solve(problem, "adjoint", iterations=3).loss < float(problem.loss(problem.start()).mean())


def test_memory_is_what_was_promised():
    script = textwrap.dedent(
        """
        import pathlib, re, torch
        from dpcontrol.engine import Checkpointed, scan
        torch.set_num_threads(1)
        def body(c, r, _, k):
            for _ in range(2):
                c = c + 0.1 * c.sin() * r.cos()
            return c, None
        def peak(length, mode):
            state = torch.ones(125_000, dtype=torch.float64, requires_grad=True)
            rows = torch.ones(length, 1, dtype=torch.float64, requires_grad=True)
            carry, _ = scan(body, state, rows, length, gradient=mode)
            carry.sum().backward()
            # not ru_maxrss, which a process inherits from its parent
            return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
        base = peak(2, Checkpointed())
        print(peak(80, Checkpointed(memory="20MB")) - base)
        """
    )
    # glibc would keep freed blocks of this size for later; handed back at once, they show what is really held
    honest = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=honest
    )
    assert float(found.stdout) < 20 + 6  # all 80 states would be 80 MB, their graph 0.5 GB
