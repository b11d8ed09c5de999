"""Controllers on trial: each world is what it says, chance is shared, and what fails is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dpcontrol as dp
from dpcontrol.problem import from_law, play
from dpcontrol.trials import (
    ActuatorDelay,
    Disturbance,
    Mismatch,
    Nominal,
    Robustness,
    SensorNoise,
    Shifted,
    Together,
    robustness,
)
from dpcontrol.trials.worlds import Arrangement, state_size

A, B, RATE = 1.1, 0.5, 1.4


def step(state: torch.Tensor, control: torch.Tensor, *, parameters: Any) -> torch.Tensor:
    return parameters["growth"] * state + B * control


def unstable(scenes: int = 6, horizon: int = 15, **words: Any) -> dp.Problem:
    """``x+ = 1.1 x + 0.5 u`` from numbers around 1, scored by squares; fresh scenes can be drawn."""

    def draw(generator: torch.Generator, count: int) -> dict[str, torch.Tensor]:
        return {"initial_state": 0.5 + torch.rand(count, 1, generator=generator, dtype=torch.float64)}

    first = draw(torch.Generator().manual_seed(0), scenes)
    return dp.control_problem(
        step,
        initial_state=first["initial_state"],
        horizon=horizon,
        parameters={"growth": torch.tensor(A, dtype=torch.float64)},
        objective=dp.cost(
            stage=lambda x, u, t: x[:, 0] ** 2 + 0.1 * u[:, 0] ** 2, terminal=lambda x: x[:, 0] ** 2
        ),
        control=dp.ControlSequence(1),
        scenarios=dp.Scenarios({}, sampler=draw),
        baselines={"proportional": proportional},
        metrics={"end": lambda path, scenario: path.states[-1, :, 0].abs()},
        name="unstable",
        **words,
    )


def proportional(state: torch.Tensor, t: float, scenario: Any) -> torch.Tensor:
    return -RATE * state


def losses(problem: dp.Problem, growth: float, start: torch.Tensor) -> torch.Tensor:
    """Of the proportional law, in closed form."""
    ratio = (growth - B * RATE) ** 2
    series = (1 - ratio**problem.horizon) / (1 - ratio)
    return start**2 * ((1 + 0.1 * RATE**2) * series + ratio**problem.horizon)


@pytest.fixture(scope="module")
def problem() -> dp.Problem:
    return unstable()


@pytest.fixture(scope="module")
def plan(problem: dp.Problem) -> dp.Solution:
    return dp.solve(problem, "lbfgs")


@pytest.fixture(scope="module")
def found(problem: dp.Problem, plan: dp.Solution) -> Robustness:
    trials = [
        Nominal(),
        SensorNoise(0.0, dropout=0.0),
        SensorNoise(0.05),
        ActuatorDelay(1),
        Disturbance(0.1),
        Mismatch(growth=1.2),
        Shifted(count=8),
        Shifted(initial_state=2.0),
        Together(SensorNoise(0.05), Shifted(count=8)),
    ]
    return robustness(problem, {"plan": plan, "again": "lbfgs"}, trials, seeds=4)


def row(found: Robustness, controller: str, trial: str) -> Any:
    return found.row(controller, trial)


def test_nominal_is_the_closed_form_and_the_solutions_own_loss(
    found: Robustness, problem: dp.Problem, plan: dp.Solution
) -> None:
    x0 = problem.scenarios.data["initial_state"][:, 0]
    law = row(found, "law: proportional", "nominal").losses
    assert law.shape == (1, 6) and np.allclose(law[0], losses(problem, A, x0).numpy(), rtol=1e-12)
    assert np.allclose(row(found, "plan", "nominal").losses[0], plan.losses.numpy(), rtol=1e-10)
    assert found.worse(row(found, "plan", "nominal")) == 1.0


def test_no_noise_is_nominal_to_the_bit(found: Robustness) -> None:
    for label in found.controllers:
        silent = row(found, label, "sensor noise 0 %").losses
        assert np.array_equal(silent, row(found, label, "nominal").losses)


def test_a_plan_does_not_look_and_a_law_does(found: Robustness) -> None:
    assert row(found, "plan", "sensor noise 5 %").losses.shape == (1, 6)  # equal runs count once
    assert row(found, "law: proportional", "sensor noise 5 %").losses.shape == (4, 6)
    assert found.worse(row(found, "law: proportional", "sensor noise 5 %")) > 1
    assert row(found, "law: proportional", "sensor noise 5 %").estimate.interval is not None


def test_mismatch_is_the_closed_form_of_the_other_plant(found: Robustness, problem: dp.Problem) -> None:
    x0 = problem.scenarios.data["initial_state"][:, 0]
    got = row(found, "law: proportional", "growth × 1.2").losses[0]
    assert np.allclose(got, losses(problem, 1.2 * A, x0).numpy(), rtol=1e-12)
    # without looking, what was not foreseen grows
    assert found.worse(row(found, "plan", "growth × 1.2")) > 3


def test_feedback_forgets_pushes_and_a_plan_adds_them_up(found: Robustness) -> None:
    law, plan = (row(found, label, "pushes of 10 %") for label in ("law: proportional", "plan"))
    assert found.worse(plan) > found.worse(law) > 1


def test_other_scenes(found: Robustness, problem: dp.Problem) -> None:
    law = row(found, "law: proportional", "fresh scenes").losses
    drawn = problem.scenarios.draw(torch.Generator().manual_seed(1_000_003), 8).data["initial_state"]
    assert np.allclose(law[0], losses(problem, A, drawn[:, 0]).numpy(), rtol=1e-12)
    doubled = row(found, "law: proportional", "initial state × 2").losses
    assert np.allclose(doubled, 4 * row(found, "law: proportional", "nominal").losses, rtol=1e-12)
    assert row(found, "plan", "fresh scenes").note == "a plan for other scenes"
    assert math.isnan(found.worse(row(found, "law: proportional", "fresh scenes")))
    # a strategy plans anew; the optimum is no worse than the law, scene by scene
    anew = row(found, "again", "fresh scenes").losses
    assert anew.shape == law.shape and bool((anew <= law * (1 + 1e-9)).all())


def test_a_mistaken_parameter_is_hidden_from_the_controller() -> None:
    seen = []

    def law(state: torch.Tensor, t: float, scenario: Any) -> torch.Tensor:
        seen.append(float(scenario["growth"][0]))
        return -RATE * state

    own = dp.Scenarios({"growth": torch.full((6,), A, dtype=torch.float64)})
    varied = dp.control_problem(
        lambda state, control, *, parameters: parameters["growth"][:, None] * state + B * control,
        initial_state=torch.ones(6, 1, dtype=torch.float64),
        horizon=3,
        parameters={"growth": torch.tensor(1.0, dtype=torch.float64)},
        scenarios=own,
        objective=dp.effort(),
        control=dp.ControlSequence(1),
    )
    mistaken = Mismatch(growth=2.0).arrange(Arrangement(varied, from_law(law)), torch.Generator())
    path = play(mistaken.problem, mistaken.controller).trajectory
    assert set(seen) == {A}
    assert float(path.states[1, 0, 0]) == pytest.approx(2 * A - B * RATE)


def test_another_plant_stands_in(problem: dp.Problem) -> None:
    frozen = dp.FunctionSimulator(lambda state, control: state)
    found = robustness(problem, {}, [Mismatch(plant=frozen, words="nothing moves")])
    x0 = problem.scenarios.data["initial_state"][:, 0]
    wanted = x0**2 * (15 * (1 + 0.1 * RATE**2) + 1)
    got = row(found, "law: proportional", "nothing moves").losses[0]
    assert np.allclose(got, wanted.numpy(), rtol=1e-12)


def test_pushes_have_the_size_that_they_say() -> None:
    problem = unstable(scenes=4000, horizon=9)
    arranged = Disturbance(0.3).arrange(
        Arrangement(problem, from_law(proportional)), torch.Generator().manual_seed(5)
    )
    assert bool((arranged.pushes[0] == 0).all())
    sd = float(arranged.pushes[1:].std())
    assert sd == pytest.approx(0.3 / 3 * state_size(problem), rel=4 / (2 * 8 * 4000) ** 0.5)


def test_chance_is_shared_and_seeded(problem: dp.Problem) -> None:
    twins = {"one": proportional, "two": from_law(proportional)}
    trials = [Together(SensorNoise(0.1, dropout=0.2), Disturbance(0.1))]
    found = [robustness(problem, twins, trials, seeds=2, laws=False) for _ in range(2)]
    one, two = (row(found[0], label, trials[0].label).losses for label in ("one", "two"))
    assert np.array_equal(one, two) and np.array_equal(one, row(found[1], "one", trials[0].label).losses)
    assert not np.array_equal(one[0], one[1])


def test_trained_copies_are_put_together(problem: dp.Problem) -> None:
    gains = [0.8, 1.2, 1.6]
    copies = [lambda state, t, scenario, g=g: -g * state for g in gains]
    found = robustness(problem, {"copies": copies}, [Nominal(), SensorNoise(0.05)], seeds=2, laws=False)
    assert row(found, "copies", "nominal").losses.shape == (3, 6)
    assert row(found, "copies", "sensor noise 5 %").losses.shape == (6, 6)


def test_failures_are_counted_and_have_no_finite_price(problem: dp.Problem, tmp_path: Path) -> None:
    def fragile(state: torch.Tensor, t: float, scenario: Any) -> torch.Tensor:
        return torch.where(state.abs() > 1.3, torch.full_like(state, math.nan), -RATE * state)

    found = robustness(problem, {"fragile": fragile}, [Nominal(), Shifted(initial_state=1.3)])
    x0 = problem.scenarios.data["initial_state"][:, 0]
    wide = row(found, "fragile", "initial state × 1.3")
    assert wide.failures == int((1.3 * x0 > 1.3).sum()) > 0
    assert wide.estimate.value == math.inf and math.isfinite(wide.surviving)
    assert f"{wide.failures} of 6" in str(found) and "Not finite in some episodes: fragile" in str(found)
    found.save(tmp_path / "found.json")
    stored = json.loads((tmp_path / "found.json").read_text())
    worst = stored["rows"][2]
    assert worst["loss"] is None and worst["loss of those that did not fail"] == pytest.approx(wide.surviving)
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_the_table_says_it_all(found: Robustness) -> None:
    text = str(found)
    assert text.startswith("Trials of controllers on unstable")
    for words in (
        "sensor noise 5 % + fresh scenes",
        "commands 1 step late",
        "end",
        "a plan for other scenes",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) < 140
    assert len(found.record()["rows"]) == 9 * 3


def test_wrong_calls_are_one_sentence(problem: dp.Problem) -> None:
    for call, words in (
        (lambda: robustness(3, {}), "needs a Problem"),
        (lambda: robustness(problem, [proportional]), "must be a dict"),
        (lambda: robustness(problem, {"x": 3}), "'x' is no controller"),
        (lambda: robustness(problem, {"x": []}), "empty list"),
        (lambda: robustness(problem, {"x": "lbfsg"}), "did you mean lbfgs"),
        (lambda: robustness(problem, {}, laws=False), "nobody to try"),
        (lambda: robustness(problem, {}, seeds=0), "1 or more"),
        (lambda: robustness(problem, {}, [3]), "must be a list of trials"),
        (lambda: robustness(problem, {}, [Nominal(), Nominal()]), "two trials are called 'nominal'"),
        (lambda: robustness(problem, {}, [Mismatch(groth=2.0)]), "has no parameter groth"),
        (lambda: robustness(problem, {}, [Shifted(target=2.0)]), "have no entry target"),
        (lambda: Mismatch(), "needs a factor"),
        (lambda: Mismatch(plant=3), "must be a simulator"),
        (lambda: Mismatch(growth="large"), "is a factor"),
        (lambda: SensorNoise(-1.0), "0 or larger"),
        (lambda: SensorNoise(0.0, dropout=1.0), "below 1"),
        (lambda: ActuatorDelay(0), "1 or more"),
        (lambda: Disturbance(math.inf), "0 or larger"),
        (lambda: Shifted(count=0), "1 or more"),
        (lambda: Together(3), "needs trials"),
    ):
        with pytest.raises(dp.UsageError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
