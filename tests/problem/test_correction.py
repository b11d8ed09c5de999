"""Corrections posed: what is sought, what it costs, biased gradients by hand, the answer at work, long rollouts."""

from dataclasses import replace

import pytest
import torch
from correction_cases import CELLS, DT, F64, NETWORK, posed, reference, trajectories
from dpcontrol.problems.advection_diffusion_correction import Upwind
from taylor import taylor_rates

import dpcontrol as dp
from dpcontrol import tree
from dpcontrol.engine import StopGradient, TruncatedBPTT, rollout
from dpcontrol.problem import (
    Reference,
    View,
    corrected,
    correction_problem,
    evaluate,
    spectrum,
    training_scenarios,
    without_solver,
)
from dpcontrol.problem.hybrids import fresh_weights
from dpcontrol.results import UsageError
from dpcontrol.sim import Still


def moved(problem, amount=1.0, seed=0):
    """Weights of an untrained network whose last layer says something."""
    generator = torch.Generator().manual_seed(seed)
    return tree.map(
        lambda leaf: leaf + 0.3 * amount * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype),
        problem.start(),
    )


def loss_by_hand(problem, z, *, stopped=False):
    """The loss of a corrected step, step by step."""
    data, simulator = problem.scenarios.data, problem.simulator
    size = float(problem.objective.terms[0][1].sizes[0])
    parameters = {"velocity_0": data["velocity_0"], "correction": z["parameters"]["correction"]}
    x, total = data["initial_state"], 0.0
    for k in range(1, problem.horizon + 1):
        x = x.detach() if stopped else x
        x = rollout(simulator, x, length=1, parameters=parameters).states[-1]
        total = total + ((x - data["reference"][:, k]) / size).square().mean(1)
    return total


def gradients(loss, z):
    return torch.autograd.grad(loss.mean(), tree.leaves(z))


def trained(z):
    return tree.map(lambda leaf: leaf.detach().clone().requires_grad_(), z)


def test_the_loss_is_the_relative_mean_square_of_every_step():
    problem = posed()
    z = trained(moved(problem))
    found, wanted = problem.loss(z), loss_by_hand(problem, z)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=0)
    for one, other in zip(gradients(found, z), gradients(wanted, z), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    states = reference().states
    assert float(problem.objective.terms[0][1].sizes[0]) == pytest.approx(
        float(states[:, :6].square().mean().sqrt()), rel=0.3
    )


@pytest.mark.parametrize("where", ["after", "before", "force", "source"])
def test_stopped_gradients_are_those_of_steps_from_constants(where):
    problem = posed(where=where)
    z = trained(moved(problem))
    stopped = replace(problem, gradient=StopGradient())
    wanted = gradients(loss_by_hand(problem, z, stopped=True), z)
    whole = gradients(problem.loss(z), z)
    found = gradients(stopped.loss(z), z)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert any(
        float((a - b).abs().max()) > 1e-4 * float(a.abs().max()) for a, b in zip(found, whole, strict=True)
    )
    for one, other in zip(
        gradients(replace(problem, gradient=TruncatedBPTT(4)).loss(z), z), whole, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["after", "before", "force", "source"])
def test_the_gradient_in_the_weights_is_right(where):
    problem = posed(where=where)
    rates = taylor_rates(lambda z: problem.loss(z).sum(), moved(problem), largest=1e-2)
    assert all(rate > 1.9 for rate in rates[-2:]), rates


def test_check_gradient_takes_it():
    assert dp.check_gradient(posed()).passed


def test_a_loss_of_ones_own_and_an_objective():
    problem = posed(loss=lambda x, r: (x - r).abs().pow(3).sum(1))
    data, z = problem.scenarios.data, problem.start()
    states = problem.simulate(z).states
    wanted = (states - data["reference"].transpose(0, 1)).abs().pow(3)[1:].sum((0, 2))
    torch.testing.assert_close(problem.loss(z), wanted)
    tracked = posed(loss=dp.track("reference"))
    wanted = (states - data["reference"].transpose(0, 1)).square().sum((0, 2))
    torch.testing.assert_close(tracked.loss(z), wanted)
    with pytest.raises(UsageError, match=r"loss is a function loss\(state, reference\)"):
        posed(loss=3.0)


def test_it_is_judged_on_test_trajectories_and_draws_from_training_ones():
    problem, whole = posed(), reference()
    speeds = whole.parameters["velocity_0"]

    def of(values):
        return {int(torch.nonzero(speeds == value)) for value in values}

    assert of(problem.scenarios.data["velocity_0"]) == {8, 9}
    drawn = problem.scenarios.draw(torch.Generator().manual_seed(0), 50)
    assert of(drawn.data["velocity_0"]) == set(range(6))
    assert of(training_scenarios(problem, "validation").data["velocity_0"]) == {6, 7}
    assert View.REFERENCE in problem.offers and View.EXACT_GRADIENT in problem.offers


def test_outputs_are_in_units_of_what_the_solver_misses():
    problem, whole = posed(), reference()
    layout, solver = problem.simulator.layout, Upwind(DT)
    states, speeds = whole.states[:-1, :6], whole.parameters["velocity_0"][:6]
    after = torch.stack(
        [rollout(solver, x, length=1, parameters={"velocity_0": speeds}).states[-1] for x in states]
    )
    missed = float((after - whole.states[1:, :6]).square().mean().sqrt())
    assert layout.corrections[0] == pytest.approx(missed, rel=0.3)
    centre, width = layout.inputs["velocity_0"]
    assert centre == pytest.approx(float(speeds.mean()), rel=0.1)
    assert width == pytest.approx(float(speeds.std(correction=0)), rel=0.3)
    assert posed(where="source").simulator.layout.corrections[0] == pytest.approx(layout.corrections[0] / DT)


def test_metrics_are_ratios_to_the_reference_and_to_the_coarse_solver():
    problem = posed()
    zero = tree.map(torch.zeros_like, problem.start())
    assert problem.metrics(zero)["error_ratio"] == pytest.approx(1.0, rel=1e-12)
    data, states = problem.scenarios.data, problem.simulate(zero).states
    difference = (states - data["reference"].transpose(0, 1))[1:].abs().mean()
    assert problem.metrics(zero)["relative_error"] == pytest.approx(
        float(difference / data["reference"][:, 1:].abs().mean())
    )


def test_fresh_weights_are_drawn_and_those_of_a_module_are_kept():
    problem = posed()
    first, again, other = (fresh_weights(problem, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(first), tree.leaves(again), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(tree.leaves(first), tree.leaves(other), strict=True))
    assert tree.describe(first) == tree.describe(problem.start())
    module = NETWORK(2, 1)
    own = posed(network=module)
    assert fresh_weights(own, torch.Generator()) is None
    kept = own.start()["parameters"]["correction"]
    assert all(torch.equal(kept[key], value.double()) for key, value in module.named_parameters())


def test_the_answer_is_a_simulator_that_can_be_rolled_out_further_and_controlled():
    problem = posed()
    z = moved(problem)
    hybrid, data = corrected(problem, z), problem.scenarios.data
    longer = rollout(hybrid, data["initial_state"], length=9, parameters={"velocity_0": data["velocity_0"]})
    torch.testing.assert_close(longer.states[:5], problem.simulate(z).states, rtol=1e-12, atol=1e-13)
    start = problem.start()["parameters"]["correction"]
    assert any(not torch.equal(start[key], value) for key, value in hybrid.parameters["correction"].items())
    target = longer.states[3] + 0.05
    steered = dp.control_problem(
        hybrid,
        initial_state=data["initial_state"],
        horizon=3,
        objective=dp.reach(target),
        control=dp.ControlSequence(CELLS),
        scenarios={"velocity_0": data["velocity_0"]},
    )
    solution = dp.solve(steered, "lbfgs", iterations=30)
    assert solution.loss < 1e-3 * float(steered.loss(steered.start()).mean())
    # the speed of the stream through the same hybrid, from what it does
    found = dp.control_problem(
        hybrid,
        initial_state=data["initial_state"][:1],
        horizon=4,
        objective=dp.track(longer.states[:5, :1]),
        unknown=dp.Parameters("velocity_0", start={"velocity_0": 0.6}),
    )
    speed = dp.solve(found, "lbfgs", iterations=40).value["parameters"]["velocity_0"]
    assert float(speed) == pytest.approx(float(data["velocity_0"][0]), rel=1e-3)


def test_a_network_alone_has_no_solver_and_the_scale_of_the_whole_step():
    problem = posed()
    alone = without_solver(problem)
    assert isinstance(alone.simulator.coarse, Still)
    states = reference().states[:, :6]
    change = float((states[1:] - states[:-1]).square().mean().sqrt())
    assert alone.simulator.layout.corrections[0] == pytest.approx(change, rel=0.3)
    zero = tree.map(torch.zeros_like, problem.start())
    still = alone.simulate(zero).states
    assert torch.equal(still[-1], still[0])
    rates = taylor_rates(lambda z: alone.loss(z).sum(), moved(alone), largest=1e-2)
    assert all(rate > 1.9 for rate in rates[-2:]), rates


def test_an_evaluation_is_that_of_the_trajectories_themselves():
    problem = posed()
    z, whole = moved(problem), reference()
    found = evaluate(problem, z, steps=30)
    values = {"velocity_0": whole.parameters["velocity_0"][[8, 9]], **z["parameters"]}
    states = rollout(problem.simulator, whole.states[0, [8, 9]], length=12, parameters=values).states
    truth = whole.states[:, [8, 9]]
    wanted = (states - truth).abs().sum(2) / truth.abs().sum(2)
    torch.testing.assert_close(found.errors, wanted, rtol=1e-10, atol=1e-12)
    assert found.error(5) == pytest.approx(float(wanted[1:6].mean()))
    assert tuple(found.stable.shape) == (31, 2) and tuple(found.errors.shape) == (13, 2)
    record = found.record((3, 12, 50))
    assert set(record) == {"error_3", "error_12", "stable", "seconds_per_step"}
    alone = evaluate(problem)
    zero = evaluate(problem, tree.map(torch.zeros_like, problem.start()))
    torch.testing.assert_close(alone.errors, zero.errors, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(evaluate(without_solver(problem)).errors, alone.errors)
    with pytest.raises(UsageError, match="known for 1 to 12 steps; found 13"):
        found.error(13)


def test_what_grows_without_bounds_is_not_stable_and_its_error_is_infinite():
    problem = posed()
    blown = tree.map(lambda leaf: 30.0 * torch.ones_like(leaf), problem.start())
    found = evaluate(problem, blown, steps=60)
    assert bool(found.stable[0].all()) and not bool(found.stable[-1].any())
    assert bool(torch.isinf(found.errors[-1]).all()) and found.record((12,))["stable"] == 0.0


def test_other_trajectories_may_be_asked_about():
    problem = posed()
    states, speeds = trajectories(count=4, steps=6, seed=9)
    other = Reference(states, {"velocity_0": speeds}, {"train": (0,), "validation": (1,), "test": (2, 3)})
    found = evaluate(problem, reference=other)
    wanted = rollout(Upwind(DT), states[0, 2:], length=6, parameters={"velocity_0": speeds[2:]}).states
    error = (wanted - states[:, 2:]).abs().sum(2) / states[:, 2:].abs().sum(2)
    torch.testing.assert_close(found.errors, error, rtol=1e-10, atol=1e-12)


def test_a_spectrum_holds_the_energy_of_each_wave():
    n = 16
    x = torch.arange(n, dtype=F64) / n
    row = 2.0 + 3.0 * torch.sin(2 * torch.pi * 4 * x)
    wanted = torch.zeros(n // 2 + 1, dtype=F64)
    wanted[0], wanted[4] = 4.0, 4.5
    torch.testing.assert_close(spectrum(row, 1), wanted, rtol=0, atol=1e-12)
    plane = row[None, :].expand(n, n).clone()
    torch.testing.assert_close(spectrum(plane, 2), wanted, rtol=0, atol=1e-12)
    noise = torch.randn(3, n, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(spectrum(noise, 1).sum(1), noise.square().mean(1))  # Parseval


def test_the_figure_of_long_rollouts():
    matplotlib = pytest.importorskip("matplotlib.figure")
    problem = posed()
    solution = dp.solve(problem, "unrolled", iterations=2, batch=4)
    figure = matplotlib.Figure(layout="constrained")
    problem.plots["long rollouts"](figure, {"unrolled": solution})
    left, right = figure.axes
    assert len(left.lines) == 2 and len(right.lines) == 3


def test_what_does_not_fit_is_refused_in_a_sentence():
    states, _ = trajectories()
    with pytest.raises(UsageError, match="needs a network, a module or a function"):
        posed(network=None)
    with pytest.raises(UsageError, match="shall see height, which is no parameter of the reference"):
        posed(inputs=("height",))
    with pytest.raises(UsageError, match="network made a int"):
        posed(network=lambda inputs, outputs: 3)
    with pytest.raises(UsageError, match="from 1 to the 12 steps"):
        posed(horizon=13)
    plain = dp.control_problem(
        lambda x, u: x + u,
        initial_state=states[0],
        horizon=1,
        objective=dp.effort(),
        control=dp.ControlSequence(CELLS),
    )
    with pytest.raises(UsageError, match="no reference trajectories to cut windows from"):
        training_scenarios(plain)
    with pytest.raises(UsageError, match="needs reference trajectories to learn a correction from"):
        dp.solve(plain, "unrolled")


def test_a_hybrid_of_ones_own_is_taken_as_it_is():
    hybrid = replace(posed().simulator, where="before")
    problem = correction_problem(hybrid, reference=reference(), horizon=4)
    assert problem.simulator is hybrid and problem.name == "Upwind corrected before"


def test_windows_go_to_the_device_and_trajectories_stay(device):
    problem = posed(device=device)
    assert {leaf.device.type for leaf in tree.leaves(dict(problem.scenarios.data))} == {device.type}
    drawn = problem.scenarios.draw(torch.Generator().manual_seed(0), 3)
    assert drawn.data["reference"].device.type == device.type
    solution = dp.solve(problem, "noisy", iterations=3, batch=4)
    assert bool(evaluate(problem, solution.value, steps=14).stable[0].all())


class Frozen(torch.nn.Module):
    """A kernel of three cells, of which the first layer is not trained; its buffer is in single precision."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular").requires_grad_(False)
        self.last = torch.nn.Conv1d(2, 1, 1)
        self.register_buffer("size", torch.tensor(0.01))

    def forward(self, x):
        return self.size * self.last(self.first(x))


def test_frozen_weights_stay_and_buffers_follow_the_precision():
    network = Frozen()
    problem = posed(network=network)
    assert set(problem.start()["parameters"]["correction"]) == {"last.weight", "last.bias"}
    solution = dp.solve(problem, "supervised", iterations=3, batch=4)
    answer = corrected(problem, solution.value)
    assert torch.equal(answer.network.first.weight.float(), network.first.weight)
    assert not torch.equal(answer.network.last.weight.float(), network.last.weight)
    assert network.size.dtype == torch.float32  # the user's own module is not touched


def made_of(*layers):
    return lambda inputs, outputs: torch.nn.Sequential(torch.nn.Conv1d(inputs, outputs, 1), *layers)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"network": torch.nn.Identity()}, "has no weights to train"),
        ({"network": lambda: None}, "network, called with .* raised TypeError"),
        (
            {"network": lambda i, o: torch.nn.Conv1d(i + 1, o, 1)},
            "asked about channels of shape .* raised Runtime",
        ),
        ({"network": lambda i, o: torch.nn.Conv1d(i, o + 1, 1)}, "must return"),
        ({"network": made_of(torch.nn.Dropout(0.5))}, "two different things"),
        ({"network": made_of(torch.nn.BatchNorm1d(1))}, "running_mean"),
        ({"inputs": "nu"}, "inputs are names"),
    ],
)
def test_networks_are_asked_at_the_door(fields, words):
    with pytest.raises(UsageError, match=words):
        posed(**fields)


def test_a_network_that_plays_no_role_is_refused():
    with pytest.raises(UsageError, match="plays no role in a step: with where='force'"):
        correction_problem(
            lambda state, control: 0.9 * state, reference=reference(), network=made_of(), where="force"
        )


def test_windows_must_fit_before_anything_is_trained():
    with pytest.raises(UsageError, match=r"Unrolled\(unroll=50\) is longer than the 12 steps"):
        dp.solve(posed(), "unrolled", unroll=50)


def test_only_answers_become_simulators():
    problem = posed()
    for wrong in (3, {"weights": 1}, {"parameters": {"correction": {}}}):
        with pytest.raises(UsageError, match="needs an answer of"):
            corrected(problem, wrong)
