"""Controllers with memory, what goes wrong between them and the world, and the loop that scores them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dpcontrol.problems import burgers, linear_quadratic

import dpcontrol as dp
from dpcontrol.problem import (
    Acting,
    Delayed,
    Outset,
    Policy,
    Sensed,
    from_law,
    from_solution,
    from_value,
    play,
)
from dpcontrol.problem.observing import controller
from dpcontrol.problem.policy_slot import MemoryNetwork

RATE = 0.4


def integrator(horizon: int = 12, **words: Any) -> dp.Problem:
    """``x+ = x + u`` from 1 and from -2, scored by the squares of states and controls."""
    return dp.control_problem(
        lambda state, control: state + control,
        initial_state=torch.tensor([[1.0], [-2.0]], dtype=torch.float64),
        horizon=horizon,
        objective=dp.track(torch.zeros(horizon + 1, 1, dtype=torch.float64)) + dp.effort(),
        control=dp.ControlSequence(1, **words),
        name="integrator",
    )


def proportional(state: torch.Tensor, t: float, scenario: Any) -> torch.Tensor:
    return -RATE * state


class Summing:
    """An integral controller: its memory is the sum of what it saw."""

    def init(self, outset: Outset) -> torch.Tensor:
        return torch.zeros(outset.count, 1, dtype=torch.float64)

    def act(self, memory: torch.Tensor, state: torch.Tensor, t: float, scenario: Any) -> Any:
        memory = memory + state
        return -0.5 * state - 0.1 * memory, memory


def test_a_law_in_closed_loop_has_the_closed_form_of_a_geometric_series() -> None:
    problem = integrator()
    played = play(problem, from_law(proportional))
    x0 = problem.scenarios.data["initial_state"][:, 0]
    ratio = (1 - RATE) ** 2
    states = (1 - ratio**13) / (1 - ratio)
    controls = RATE**2 * (1 - ratio**12) / (1 - ratio)
    assert torch.allclose(played.losses, x0**2 * (states + controls), rtol=1e-13)
    assert played.trajectory.states.shape == (13, 2, 1) and played.trajectory.controls.shape == (12, 2, 1)
    assert played.loss == pytest.approx(float(played.losses.mean())) and played.seconds >= 0


def test_a_memory_rides_along() -> None:
    problem = integrator()
    controller: Acting = Summing()
    played = play(problem, controller)
    matrix = torch.tensor([[1 - 0.5 - 0.1, -0.1], [1.0, 1.0]], dtype=torch.float64)  # of (x, sum before x)
    pair = torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    for k in range(13):
        assert torch.allclose(played.trajectory.states[k, :, 0], pair[0], rtol=1e-13, atol=1e-15)
        pair = matrix @ pair
    assert torch.allclose(played.memory[:, 0], played.trajectory.states[:12, :, 0].sum(0))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_delay_on_an_integrator_is_the_recurrence_with_the_delay(steps: int) -> None:
    problem = integrator(20)
    played = play(problem, Delayed(from_law(proportional), steps))
    x = [1.0]
    for k in range(20):
        x.append(x[-1] - (RATE * x[k - steps] if k >= steps else 0.0))
    expected = torch.tensor(x, dtype=torch.float64)
    assert torch.allclose(played.trajectory.states[:, 0, 0], expected, rtol=1e-12)
    assert torch.allclose(played.trajectory.states[:, 1, 0], -2 * expected, rtol=1e-12)


def test_before_the_first_command_the_actuator_plays_what_it_was_told() -> None:
    played = play(integrator(low=-0.2, high=0.2), Delayed(from_law(proportional), 2, before=-5.0))
    assert torch.equal(played.trajectory.controls[:2], torch.full((2, 2, 1), -0.2, dtype=torch.float64))


def test_a_sensor_without_noise_changes_no_bit_and_one_with_noise_is_seeded() -> None:
    problem = burgers.problem(size="small")
    law = from_law(next(iter(problem.baselines.values())))
    nominal = play(problem, law)
    assert torch.equal(play(problem, Sensed(law)).losses, nominal.losses)
    noisy = [play(problem, Sensed(law, 0.1), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(noisy[0].losses, noisy[1].losses)
    assert not torch.equal(noisy[0].losses, noisy[2].losses)


def test_sensor_noise_adds_the_variance_that_it_should() -> None:
    count, sigma, steps = 4000, 0.3, 6
    problem = dp.control_problem(
        lambda state, control: state + control,
        initial_state=torch.zeros(count, 1, dtype=torch.float64),
        horizon=steps,
        objective=dp.reach(torch.zeros(1, dtype=torch.float64)),
        control=dp.ControlSequence(1),
    )
    played = play(problem, Sensed(from_law(proportional), sigma))
    # x+ = (1 - r) x - r xi: the variance is a geometric series
    ratio = (1 - RATE) ** 2
    expected = (RATE * sigma) ** 2 * (1 - ratio**steps) / (1 - ratio)
    assert played.loss == pytest.approx(expected, rel=4 * (2 / count) ** 0.5)


def test_a_lost_measurement_is_replaced_by_the_last_one() -> None:
    class Recording:
        def init(self, outset: Outset) -> list[torch.Tensor]:
            return []

        def act(self, memory: list[torch.Tensor], state: torch.Tensor, t: float, scenario: Any) -> Any:
            return torch.ones_like(state), [*memory, state]

    problem = dp.control_problem(
        lambda state, control: state + control,
        initial_state=torch.zeros(500, 1, dtype=torch.float64),
        horizon=20,
        objective=dp.effort(),
        control=dp.ControlSequence(1),
    )
    seen = torch.stack(play(problem, Sensed(Recording(), dropout=0.3)).memory[0])[..., 0]
    fresh = seen == torch.arange(20, dtype=seen.dtype)[:, None]
    assert bool(fresh[0].all())
    assert bool((fresh[1:] | (seen[1:] == seen[:-1])).all())
    assert float(fresh[1:].double().mean()) == pytest.approx(0.7, abs=4 * (0.21 / 9500) ** 0.5)


@pytest.mark.parametrize("module", [burgers, linear_quadratic])
def test_a_replayed_plan_has_the_loss_and_metrics_of_its_solution(module: Any) -> None:
    problem = module.problem(size="small")
    solution = dp.solve(problem, "lbfgs", budget=dp.Budget(gradients=40 * problem.scenarios.count))
    played = play(problem, from_solution(solution))
    assert torch.allclose(played.losses, solution.losses, rtol=1e-10)
    assert played.metrics == pytest.approx(solution.metrics, rel=1e-9, abs=1e-12)
    kept = solution.trajectory()
    assert torch.allclose(played.trajectory.states, kept.states, rtol=1e-9, atol=1e-12)
    assert torch.allclose(played.trajectory.controls, kept.controls, rtol=1e-9, atol=1e-12)


def test_a_networks_answer_acts_with_the_weights_that_were_found() -> None:
    problem = burgers.problem(size="small")
    posed = problem.with_unknown(Policy(controller(problem, lambda i, o: torch.nn.Linear(i, o))))
    z = dp.tree.map(lambda leaf: 0.05 * torch.randn_like(leaf), posed.start())
    played = play(problem, from_value(posed, z))
    assert torch.allclose(played.losses, posed.judge(z), rtol=1e-10)
    fresh = problem.scenarios.draw(torch.Generator().manual_seed(3), 5)
    elsewhere = play(problem, from_value(posed, z), scenarios=fresh)
    assert torch.allclose(elsewhere.losses, posed.with_scenarios(fresh).judge(z), rtol=1e-10)


def test_a_network_with_a_memory_remembers() -> None:
    class Leaky(MemoryNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def begin(self, state: torch.Tensor, scenario: Any) -> torch.Tensor:
            return torch.zeros_like(state)

        def forward(self, memory: torch.Tensor, state: torch.Tensor, t: float, scenario: Any) -> Any:
            memory = 0.5 * memory + state
            return -self.gain * memory, memory

    posed = integrator().with_unknown(Policy(Leaky()))
    z = {"policy": {"gain": torch.tensor(0.3, dtype=torch.float64)}}
    assert torch.allclose(play(posed, from_value(posed, z)).losses, posed.judge(z), rtol=1e-12)
    assert not torch.allclose(posed.judge(z), posed.judge(posed.start()))


def test_another_plant_answers_where_it_is_given() -> None:
    problem = integrator()
    weak = dp.FunctionSimulator(lambda state, control: state + 0.5 * control)
    played = play(problem, from_law(proportional), plant=weak)
    assert torch.allclose(played.trajectory.states[:, 0, 0], (1 - 0.5 * RATE) ** torch.arange(13.0).double())


def test_pushes_are_added_before_the_controller_sees_the_state() -> None:
    problem = integrator()
    pushes = torch.zeros(12, 2, 1, dtype=torch.float64)
    pushes[4, 0] = 3.0
    path = play(problem, from_law(proportional), pushes=pushes).trajectory
    assert float(path.states[4, 0, 0]) == pytest.approx((1 - RATE) ** 4 + 3)
    assert float(path.controls[4, 0, 0]) == pytest.approx(-RATE * float(path.states[4, 0, 0]))


def test_controls_are_clipped_to_the_bounds() -> None:
    path = play(integrator(low=-0.1, high=0.3), from_law(proportional)).trajectory
    assert float(path.controls.min()) == -0.1 and float(path.controls.max()) == 0.3


def test_what_is_not_finite_becomes_a_loss() -> None:
    played = play(integrator(60), from_law(lambda state, t, scenario: 1e12 * state.pow(3)))
    assert not bool(torch.isfinite(played.losses).any())


def test_wrong_calls_are_one_sentence() -> None:
    problem = integrator()
    with pytest.raises(dp.UsageError, match="init\\(outset\\) and act"):
        play(problem, proportional)  # type: ignore[arg-type]
    with pytest.raises(dp.UsageError, match="init\\(outset\\) and act"):
        Delayed(proportional, 1)  # type: ignore[arg-type]
    with pytest.raises(dp.UsageError, match="is real, of shape \\(2, 1\\); the controller gave"):
        play(problem, from_law(lambda state, t, scenario: state[:, 0]))
    with pytest.raises(dp.UsageError, match="whole number, 0 or more"):
        Delayed(from_law(proportional), -1)
    with pytest.raises(dp.UsageError, match="standard deviation"):
        Sensed(from_law(proportional), -0.1)
    with pytest.raises(dp.UsageError, match="probability"):
        Sensed(from_law(proportional), 0.1, dropout=1.0)
    with pytest.raises(dp.UsageError, match="a law is a function"):
        from_law(3)  # type: ignore[arg-type]
    plan = from_value(problem, problem.start())
    other = dp.Scenarios({name: value[:1] for name, value in problem.scenarios.data.items()})
    with pytest.raises(dp.UsageError, match="made for other scenarios"):
        play(problem, plan, scenarios=other)
    with pytest.raises(dp.UsageError, match="does not act step by step"):
        from_value(problem.with_unknown(dp.InitialState()), {"initial_state": None})
    priced = dp.control_problem(
        lambda state, control: state + control,
        initial_state=torch.ones(1, 1),
        horizon=3,
        objective=dp.reach(torch.zeros(1)) + dp.penalty("control"),
        control=dp.ControlSequence(1),
    )
    with pytest.raises(dp.UsageError, match="penalty"):
        play(priced, from_law(proportional))
