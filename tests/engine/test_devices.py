"""Devices and dtypes follow the tensors.

With CUDA, everything is run there and compared with the CPU. Without, it is run on fake tensors that claim another
device: they have no numbers, so that an operation on tensors of two devices and every look at a number (``.item()``,
``if`` on a tensor) raise at once, in values and in gradients. External simulators and iterative linear solvers look at
numbers by their nature and are not asked.
"""

import copy
from dataclasses import replace

import pytest
import torch
from every_simulator import cases, moved
from torch._subclasses.fake_tensor import FakeTensorMode

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.catalogue import find, names
from dpcontrol.engine import Checkpointed, Full, TruncatedBPTT, scan
from dpcontrol.engine.fused import run_fused
from dpcontrol.engine.trajectory import eager_step, parameter_values, stepper, whole_run_kernel
from dpcontrol.linalg import poisson
from dpcontrol.problem.white import with_tensors

F64 = torch.float64
CASES = cases()
MODES = [Full(), Checkpointed(), Checkpointed(snapshots=2), TruncatedBPTT(2)]
STEPS, SCENARIOS = 3, 2
# (problem, why not): what looks at numbers between its steps, or leaves torch
ASIDE = {"brusselator", "burgers_phiflow", "fed_batch_reactor", "steady_source"}


def elsewhere(value):
    """The same tree on a device that is not this one."""
    return tree.map(lambda leaf: torch.empty_like(leaf, device="meta").requires_grad_(), value)


def gradient_of_a_run(simulator, initial, controls, mode):
    """As ``rollout`` does it, without its questions at the door, which look at numbers."""
    values = tree.map(
        lambda leaf: leaf.detach().requires_grad_(), parameter_values(simulator, {}, like=initial)
    )
    coefficients = simulator.prepare(values, {})
    start, inputs = simulator.start(initial, values), (controls, None)
    kernel = whole_run_kernel(simulator, start, inputs, coefficients, STEPS, mode)
    if kernel is not None:
        states = run_fused(kernel, eager_step(simulator), start, inputs, coefficients, STEPS)
    else:
        step = stepper(simulator)

        def body(carry, row, constants, k):
            carry = step(carry, row if row is not None else (None, None), constants, k)
            return carry, carry

        _, states = scan(body, start, inputs, STEPS, constants=coefficients, gradient=mode)
    loss = sum(leaf.square().sum() for leaf in tree.leaves(states))
    wanted = tree.leaves((initial, controls, values))
    return [loss, *torch.autograd.grad(loss, wanted, materialize_grads=True)]


@pytest.mark.parametrize("name", CASES)
def test_steps_and_gradients_stay_on_their_device_and_look_at_no_number(name):
    case = CASES[name]
    simulator = case.make()
    for mode in MODES:
        with FakeTensorMode(allow_non_fake_inputs=True):
            initial, controls = elsewhere(case.initial(SCENARIOS)), elsewhere(case.controls(STEPS, SCENARIOS))
            found = gradient_of_a_run(simulator, initial, controls, mode)
        assert all(leaf.device.type == "meta" and leaf.dtype == F64 for leaf in found)


@pytest.mark.parametrize("mistake", ["a tensor of the CPU", "a number"])
def test_the_fake_device_finds_mistakes(mistake):
    def step(state, control):
        if mistake == "a number":
            return state + control * float(state.max())
        return state + control * torch.ones(2, dtype=F64)

    state, controls = torch.zeros(SCENARIOS, 2, dtype=F64), torch.zeros(STEPS, SCENARIOS, 2, dtype=F64)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(Exception, match=r"devices|scalar"):
        gradient_of_a_run(dp.FunctionSimulator(step), elsewhere(state), elsewhere(controls), Full())


def on(problem, move):
    """A problem with its data elsewhere."""
    data = {name: move(value) for name, value in problem.scenarios.data.items()}
    parameters = {
        name: move(value) if isinstance(value, torch.Tensor) else value
        for name, value in problem.parameters.items()
    }
    there = replace(problem, scenarios=replace(problem.scenarios, data=data), parameters=parameters)
    if problem.prior is None:
        return there
    # as posed there; the white maps are not asked
    densities = {key: with_tensors(density, move) for key, density in problem.prior.densities.items()}
    prior = copy.copy(problem.prior)
    object.__setattr__(prior, "densities", densities)
    return replace(there, prior=prior)


LONG = {"cylinder_drag"}  # many steps, a minute without numbers


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in sorted(set(names()) - ASIDE)],
)
def test_losses_of_the_catalogue_stay_on_their_device_and_look_at_no_number(name):
    problem = find(name).build(size="small")
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = on(problem, lambda value: tree.map(lambda leaf: torch.empty_like(leaf, device="meta"), value))
        z = elsewhere(problem.start())
        loss = there.loss(z)
        found = torch.autograd.grad(loss.sum(), tree.leaves(z), materialize_grads=True)
    assert loss.device.type == "meta" and all(leaf.device.type == "meta" for leaf in found)


@pytest.mark.parametrize("name", CASES)
def test_every_simulator_gives_the_same_on_every_device(name, device):
    case = CASES[name]
    simulator = case.make()
    given = [case.initial(SCENARIOS), case.controls(STEPS, SCENARIOS)]
    expected = None
    # single precision on CUDA only: on the CPU the simulators' own tests have it
    single = [(device, torch.float32)] if device.type == "cuda" else []
    for where, dtype in (("cpu", F64), (device, F64), *single):
        leaves = [tree.map(lambda leaf: leaf.requires_grad_(), moved(part, where, dtype)) for part in given]
        path = dp.rollout(simulator, *leaves, length=STEPS)
        loss = sum(leaf.square().sum() for leaf in tree.leaves(path.states))
        found = [loss, *torch.autograd.grad(loss, tree.leaves(leaves), materialize_grads=True)]
        assert all(leaf.device.type == torch.device(where).type and leaf.dtype == dtype for leaf in found)
        found = [leaf.detach().to("cpu", F64) for leaf in found]
        expected = expected or found
        accuracy = 1e-9 if dtype == F64 else 2e-3
        for one, two in zip(expected, found, strict=True):
            torch.testing.assert_close(two, one, rtol=accuracy, atol=accuracy * (1 + float(one.abs().max())))


def drift(state, control):
    return state + 0.1 * (control - state.sin())


def posed(device, **rest):
    generator = torch.Generator().manual_seed(0)
    return dp.control_problem(
        drift,
        initial_state=torch.rand(3, 2, dtype=F64, generator=generator).to(device),
        horizon=5,
        objective=dp.reach(torch.ones(2)) + 0.1 * dp.effort() + dp.track(torch.zeros(6, 2)),
        control=dp.ControlSequence(2, low=-1.0, high=1.0),
        **rest,
    )


@pytest.mark.parametrize("strategy", ["adjoint", "lbfgs", "cem", "cmaes"])
def test_strategies_solve_on_every_device(strategy, device, tmp_path):
    budget = dp.Budget(simulated_steps=600)
    expected = dp.solve(posed("cpu"), strategy, budget=budget)
    found = dp.solve(posed(device), strategy, budget=budget, folder=tmp_path / "run")
    assert found.value["control"].device.type == device.type
    torch.testing.assert_close(found.losses.cpu(), expected.losses, rtol=1e-6, atol=1e-8)
    assert tree.leaves(found.trajectory().states)[0].device.type == device.type


@pytest.mark.parametrize("mode", [Full(), Checkpointed(), Checkpointed(snapshots=2), dp.Auto()], ids=repr)
def test_losses_and_gradients_in_every_mode_on_every_device(mode, device):
    results = []
    for where in ("cpu", device):
        problem = posed(where, gradient=mode)
        z = problem.start()["control"].requires_grad_()
        loss = problem.loss({"control": z})
        results.append([leaf.detach().cpu() for leaf in (loss, torch.autograd.grad(loss.sum(), z)[0])])
    torch.testing.assert_close(*results)


def test_poisson_solvers_on_every_device(device):
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(2, 8, 8, dtype=F64, generator=generator)
    solve = poisson((8, 8), (0.1, 0.1), ("periodic", "periodic"), device=device)
    expected, found = (
        poisson((8, 8), (0.1, 0.1), ("periodic", "periodic")).solve(right),
        solve.solve(right.to(device)),
    )
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), expected)
