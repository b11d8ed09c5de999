"""solve(): storing, interrupting, killing and resuming; what comes back is the same to the bit."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

import dpcontrol as dp
from dpcontrol import tree

F64 = torch.float64


def step(state, control):
    return state + 0.1 * (control - state.sin())


def posed(n=3):
    generator = torch.Generator().manual_seed(0)
    return dp.control_problem(
        step,
        initial_state=torch.randn(n, 2, generator=generator, dtype=F64),
        horizon=6,
        objective=dp.reach(torch.ones(2)) + 0.1 * dp.effort(),
        control=dp.ControlSequence(2, low=-2.0, high=2.0),
        baselines={"proportional": lambda state, t, scenario: 1.0 - state},
        metrics={"miss": lambda path, scenario: (path.states[-1] - 1).abs().sum(1)},
    )


def same(one, other):
    assert one.loss == other.loss and one.counts == other.counts and one.status == other.status
    assert torch.equal(tree.ravel(one.value), tree.ravel(other.value))
    assert torch.equal(one.losses, other.losses)
    for name in ("simulated_steps", "gradients", "loss"):
        assert one.history[name] == other.history[name]


STRATEGIES = {
    "adjoint": {"iterations": 60},
    "lbfgs": {},
    "cmaes": {"iterations": 40},
    "cem": {"iterations": 40},
    "baseline": {},
}


class StopAt:
    """A callback that interrupts like Ctrl-C at one evaluation."""

    def __init__(self, count):
        self.left = count

    def __call__(self, progress):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", STRATEGIES)
def test_same_seed_same_result_to_the_bit(name):
    first, second = (dp.solve(posed(), name, seed=3, **STRATEGIES[name]) for _ in range(2))
    same(first, second)
    assert first.reproducible and first.loss == pytest.approx(float(posed().loss(first.value).mean()))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "baseline"])
def test_an_interrupted_run_returns_its_best_and_resumes_to_the_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr("dpcontrol.folder.KEEP_EVERY_SECONDS", 0.0)
    options = {**STRATEGIES[name], "budget": dp.Budget(simulated_steps=18 * 400), "seed": 1}
    whole = dp.solve(posed(), name, **options)
    half = dp.solve(posed(), name, folder=tmp_path / "run", callback=StopAt(6), **options)
    assert half.status.kind == "interrupted"
    assert half.loss == pytest.approx(half.history["loss"][-1])
    rest = dp.solve(posed(), name, folder=tmp_path / "run", resume=True, **options)
    same(whole, rest)
    stored = dp.Solution.load(tmp_path / "run")
    same(whole, stored)
    assert stored.metrics == whole.metrics
    assert torch.equal(stored.trajectory().states, whole.trajectory().states)


def test_a_folder_holds_one_run(tmp_path):
    dp.solve(posed(), "baseline", folder=tmp_path / "run")
    with pytest.raises(dp.UsageError, match="holds a run already"):
        dp.solve(posed(), "baseline", folder=tmp_path / "run")
    with pytest.raises(dp.UsageError, match="strategy 'baseline', not 'lbfgs'"):
        dp.solve(posed(), "lbfgs", folder=tmp_path / "run", resume=True)
    with pytest.raises(dp.UsageError, match="holds no run to resume"):
        dp.solve(posed(), "lbfgs", folder=tmp_path / "other", resume=True)


def test_a_target_and_a_callback_end_a_run():
    target = 1.01 * dp.solve(posed(), "lbfgs").loss
    reached = dp.solve(posed(), "adjoint", budget=dp.Budget(target_loss=target))
    assert reached.status.kind == "target reached" and reached.loss <= target
    stopped = dp.solve(posed(), "adjoint", callback=lambda progress: progress.counts.gradients >= 9)
    assert stopped.status.kind == "stopped" and stopped.counts.gradients == 9


def test_a_budget_in_seconds_is_kept_and_told():
    begin = time.perf_counter()
    solution = dp.solve(posed(), "cem", budget=dp.Budget(seconds=0.3), iterations=10**6, tolerance=1e-300)
    assert time.perf_counter() - begin < 5 and solution.status.kind == "budget spent"
    assert not solution.reproducible and "0.3 seconds" in solution.status.sentence


def test_a_problem_that_always_fails_ends_as_data_with_the_place():
    def blow_up(state, control):
        return state * 1e200 + control

    problem = dp.control_problem(
        blow_up,
        initial_state=torch.ones(2, 1, dtype=F64),
        horizon=5,
        objective=dp.reach(torch.zeros(1)),
        control=dp.ControlSequence(1),
    )
    for name in ("lbfgs", "adjoint", "cmaes"):
        solution = dp.solve(problem, name, budget=dp.Budget(simulated_steps=2000))
        assert solution.status.kind == "diverged"
        assert (
            "from step 2 in scenario 0" in solution.status.sentence and "1e+200" in solution.status.sentence
        )
        assert solution.value["control"].isfinite().all() and not torch.tensor(solution.loss).isfinite()


def test_one_bad_scenario_does_not_cost_the_others(tmp_path):
    def step_or_fail(state, control):
        return state + 0.1 * control + torch.where(state > 50, state * 1e200, 0.0)

    problem = dp.control_problem(
        step_or_fail,
        initial_state=torch.tensor([[1.0], [100.0], [2.0]], dtype=F64),
        horizon=4,
        objective=dp.reach(torch.zeros(1)) + 0.1 * dp.effort(),
        control=dp.ControlSequence(1),
    )
    solution = dp.solve(problem, "lbfgs", folder=tmp_path / "run")
    assert solution.status.kind == "diverged" and "scenario 1" in solution.status.sentence
    assert solution.losses.isfinite().tolist() == [True, False, True]
    healthy = problem.scenarios.data["initial_state"][[0, 2]]
    alone = dp.solve(
        dp.control_problem(
            step_or_fail,
            initial_state=healthy,
            horizon=4,
            objective=dp.reach(torch.zeros(1)) + 0.1 * dp.effort(),
            control=dp.ControlSequence(1),
        )
    )
    torch.testing.assert_close(solution.losses[[0, 2]], alone.losses)
    assert dp.Solution.load(tmp_path / "run").status == solution.status


KILLED = textwrap.dedent(
    '''
    """A slow problem, so that it can be killed."""
    import time
    import torch
    import dpcontrol as dp

    def step(state, control):
        time.sleep(0.002)
        return state + 0.1 * (control - state.sin())

    def problem(*, size="full", seed=0):
        generator = torch.Generator().manual_seed(seed)
        return dp.control_problem(
            step,
            initial_state=torch.randn(2, 2, generator=generator, dtype=torch.float64),
            horizon=6,
            objective=dp.reach(torch.ones(2)) + 0.1 * dp.effort(),
            control=dp.ControlSequence(2),
        )
    '''
)


@pytest.mark.parametrize("name, fields", [("adjoint", "iterations=150"), ("cmaes", "iterations=60")])
def test_kill_9_loses_nothing_that_resume_does_not_bring_back(name, fields, tmp_path):
    path = tmp_path / "slow.py"
    path.write_text(KILLED)
    command = [sys.executable, "-m", "dpcontrol"]
    asked = ["solve", str(path), "--strategy", name, "--set", fields, "--simulated-steps", "60000", "--quiet"]
    process = subprocess.Popen(
        [*command, *asked, "--output", str(tmp_path / "run")], stdout=subprocess.DEVNULL
    )
    wanted = tmp_path / "run" / ("state.safetensors" if name == "adjoint" else "journal.bin")
    deadline = time.time() + 60
    while time.time() < deadline and (not wanted.exists() or wanted.stat().st_size < 2000):
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "run" / "solution.safetensors").exists()
    subprocess.run(
        [*command, "resume", str(tmp_path / "run"), "--quiet"], check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run(
        [*command, *asked, "--output", str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL
    )
    same(dp.Solution.load(tmp_path / "whole"), dp.Solution.load(tmp_path / "run"))
