"""A simulator in another process: the same numbers, refusals, and every way in which it can fail."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch

from dpcontrol import tree
from dpcontrol.engine import rollout
from dpcontrol.meter import Budget
from dpcontrol.problem import ControlSequence, control_problem, effort, reach
from dpcontrol.problem.base import View
from dpcontrol.results import SimulationFailed, UsageError
from dpcontrol.run import run
from dpcontrol.sim import BlackBox, FunctionSimulator, Substeps
from dpcontrol.solving import solve
from dpcontrol.strategies.evolving.evolution import CMAES

F64 = torch.float64

# by name they would be imported there from this file, and torch with them
cloudpickle.register_pickle_by_value(sys.modules[__name__])
STATE = {"a": torch.arange(6, dtype=F64).reshape(3, 2), "b": torch.zeros(3, dtype=F64)}
CONTROLS = torch.linspace(-1, 1, 24, dtype=F64).reshape(4, 3, 2)
DECAY = torch.tensor([0.1, 0.2, 0.3], dtype=F64)

PROGRAM = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    how = asked["parameters"].get("how", 0.0)
    if how == 1.0:
        print("Segmentation fault or so", flush=True)
    elif how == 2.0:
        print(json.dumps({"error": "did not converge"}), flush=True)
    else:
        a = [asked["parameters"]["decay"] * x + u for x, u in zip(asked["state"]["a"], asked["control"])]
        print(json.dumps({"state": {"a": a, "b": asked["state"]["b"] + asked["t"]}}), flush=True)
"""
COMMAND = [sys.executable, "-c", PROGRAM]


def step(state, control, *, parameters, t):
    decay = np.asarray(parameters["decay"])[..., None]
    return {"a": state["a"] * decay + control, "b": state["b"] + t}


def twin(state, control, *, parameters, t):
    return {"a": state["a"] * parameters["decay"][:, None] + control, "b": state["b"] + t}


@pytest.mark.parametrize(
    ("program", "options"),
    [
        (step, {}),
        (step, {"workers": 2}),
        (step, {"batched": False}),
        (step, {"batched": False, "workers": 2}),
        (COMMAND, {"batched": False, "workers": 2}),
    ],
)
def test_it_is_the_same_simulator_as_here(program, options):
    box = BlackBox(program, 0.1, {"decay": 0.5}, **options)
    found, wanted = (
        rollout(simulator, STATE, CONTROLS, parameters={"decay": DECAY}).states
        for simulator in (box, FunctionSimulator(twin, 0.1, {"decay": 0.5}))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-15, atol=1e-15)
    box.close()


def push(x, u):
    return x + 0.1 * u


def posed(box, **options):
    return control_problem(
        box,
        initial_state=torch.zeros(1, 2, dtype=F64),
        horizon=3,
        objective=10 * reach(torch.ones(2, dtype=F64)) + 0.01 * effort(),
        control=ControlSequence(2),
        name="box",
        **options,
    )


def test_gradients_are_refused_by_name_and_a_search_without_them_finds_the_optimum():
    problem = posed(Substeps(BlackBox(push), 2))
    assert View.GRADIENT not in problem.offers
    with pytest.raises(UsageError, match=r"lbfgs needs an exact gradient, .* that fit: .*cmaes"):
        solve(problem, "lbfgs")
    solution = run(problem, CMAES(), budget=Budget(simulated_steps=3000))
    best = (
        2 * 10 * 0.01 / (0.01 + 10 * 3 * 0.04)
    )  # both components; a ridge regression on the sum of controls
    assert solution.loss == pytest.approx(best, rel=1e-3)
    with pytest.raises(UsageError, match="a black box has no gradient"):
        problem.loss(tree.map(lambda leaf: leaf.requires_grad_(), problem.start()))


def misbehaving(x, u):
    """Does as the first number of the control says."""
    how = round(float(u[0]))
    if how == 1:
        raise ArithmeticError("no solution")
    if how == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == 3:
        time.sleep(60)
    if how == 4:
        return np.zeros(7)
    if how == 5:
        return lambda: None
    if how == 6:
        os._exit(5)
    if how == 7:
        print("a word to the user")
    return x


FAILURES = {
    1: r"failed with ArithmeticError: no solution \(line \d+ of test_black_box.py\), at t = 0 in scenario 1",
    2: r"misbehaving was killed by signal 11 \(SIGSEGV\), at t = 0 in scenario 1",
    3: "misbehaving did not answer within 0.7 s",
    4: r"answered with an array \(7,\) float64, where \(2,\) float64 was expected",
    5: "answered with function",
    6: "ended with exit code 5",
}


@pytest.fixture(scope="module")
def box():
    made = BlackBox(misbehaving, batched=False, timeout=0.7)
    yield made
    made.close()


@pytest.mark.parametrize("how", FAILURES)
def test_every_failure_is_one_sentence_and_the_next_call_works(box, how):
    x, u = torch.ones(3, 2, dtype=F64), torch.zeros(3, 2, dtype=F64)
    u[1, 0] = how
    with pytest.raises(SimulationFailed, match=FAILURES[how]):
        box.step(x, u, box.prepare({}, {}), None, 0.0)
    u[1, 0] = 7
    assert torch.equal(box.step(x, u, box.prepare({}, {}), None, 0.0), x)


def test_only_the_scenario_that_failed_is_lost_to_the_tolerant():
    made = BlackBox(misbehaving, batched=False, timeout=0.7, tolerant=True)
    x, u = torch.ones(4, 2, dtype=F64), torch.zeros(4, 2, dtype=F64)
    u[1, 0], u[3, 0] = 2, 1
    found = made.step(x, u, made.prepare({}, {}), None, 0.0)
    assert torch.isnan(found).all(1).tolist() == [False, True, False, True]
    made.close()


@pytest.mark.parametrize(
    ("how", "said"),
    [(1.0, "a line that is no JSON, 'Segmentation fault or so'"), (2.0, "said 'did not converge'")],
)
def test_a_program_that_talks_nonsense(how, said):
    made = BlackBox(COMMAND, defaults={"how": how, "decay": 1.0}, batched=False)
    with pytest.raises(SimulationFailed, match=said):
        rollout(made, STATE, CONTROLS)
    made.close()


def brittle(x, u):
    if float(np.abs(u).max()) > 0.5:
        raise ArithmeticError("too hard")
    return x + u


def test_a_failure_in_a_search_is_a_status_with_the_best_so_far_or_a_count():
    solution = run(posed(BlackBox(brittle)), CMAES(), budget=Budget(simulated_steps=3000))
    assert (
        solution.status.kind == "failed" and "brittle failed with ArithmeticError" in solution.status.sentence
    )
    assert solution.loss <= 20.0 and solution.counts.simulated_steps >= 3
    tolerant = run(
        posed(BlackBox(brittle, batched=False, tolerant=True)), CMAES(), budget=Budget(simulated_steps=1500)
    )
    assert tolerant.counts.failures > 0 and "not finite" in tolerant.status.sentence
    assert tolerant.loss < solution.loss


def test_a_failure_at_the_door_is_an_exception():
    with pytest.raises(UsageError, match="brittle failed with ArithmeticError"):
        control_problem(
            BlackBox(brittle),
            initial_state=torch.zeros(1, 2, dtype=F64),
            horizon=1,
            objective=effort(),
            control=ControlSequence(2, low=0.9, high=1.0, start=torch.full((1, 1, 2), 0.95)),
        )


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def wait_until_gone(pids):
    deadline = time.monotonic() + 10
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.05)


def tell_pid(x, u):
    time.sleep(float(u[0, 0]))
    return x * 0 + os.getpid()


def test_processes_end_with_their_simulator_and_are_not_shared_by_copies():
    made = BlackBox(tell_pid)
    x, u = torch.zeros(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    pids = [int(made.step(x, u, made.prepare({}, {}), None, 0.0)) for _ in range(2)]
    assert pids[0] == pids[1] != os.getpid()
    copy = cloudpickle.loads(cloudpickle.dumps(made))
    pids.append(int(copy.step(x, u, copy.prepare({}, {}), None, 0.0)))
    assert pids[2] != pids[0]
    del made, copy
    wait_until_gone(pids)


def test_ctrl_c_ends_a_busy_process_and_another_takes_its_place():
    made = BlackBox(tell_pid)
    x, quick, slow = (torch.full((1, 1), s, dtype=F64) for s in (0.0, 0.0, 60.0))
    first = int(made.step(x, quick, made.prepare({}, {}), None, 0.0))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        made.step(x, slow, made.prepare({}, {}), None, 0.0)
    assert time.monotonic() - began < 10
    wait_until_gone([first])
    assert int(made.step(x, quick, made.prepare({}, {}), None, 0.0)) != first
    made.close()


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_is_left_when_the_program_ends(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, torch
        from dpcontrol.sim import BlackBox

        def tell(x, u):
            return x * 0 + os.getpid()

        box = BlackBox(tell)
        state = torch.zeros(1, 1, dtype=torch.float64)
        print(int(box.step(state, None, box.prepare({{}}, {{}}), None, 0.0)), flush=True)
        {ending}
        """)
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert found.stderr == ""
    wait_until_gone([int(found.stdout)])


def test_wrong_use_is_one_sentence():
    for program in (3, "solver --serve", [], ["a", 1]):
        with pytest.raises(UsageError, match="program is a function step"):
            BlackBox(program)
    with pytest.raises(UsageError, match="'no_such_solver' cannot be found"):
        BlackBox(["no_such_solver"])
    with pytest.raises(UsageError, match="workers is a whole number"):
        BlackBox(push, workers=0)
    with pytest.raises(UsageError, match="timeout must be positive"):
        BlackBox(push, timeout=0.0)
