"""Sixty and more wrong calls: each gets one clear sentence and exit code 2, before any work, never a traceback."""

import re
import textwrap

import pytest

from dpcontrol.cli import main

HEAD = '''
"""A broken problem."""
import math
import torch
import dpcontrol as dp
from dpcontrol.sim import FiniteVolumeBurgers, FunctionSimulator, ODE, Pendulum, SemiLagrangianBurgers
F64 = torch.float64
X = torch.linspace(0.1, 1.0, 8, dtype=F64).reshape(2, 4)
def step(state, control):
    return state + 0.1 * control
def pose(simulator=step, **changes):
    asked = dict(initial_state=X, horizon=3, objective=dp.reach(torch.zeros(4)), control=dp.ControlSequence(4))
    return dp.control_problem(simulator, **{**asked, **changes})
def problem(*, size="full", seed=0):
    return BODY
'''
BODIES = {
    "not batched": ("pose(lambda x, u: x - x.mean() + u)", "not batched"),
    "detached": ("pose(lambda x, u: x.detach() + u)", "wrong gradient"),
    "in place": ("pose(lambda x, u: x.add_(u))", "in place"),
    "random": ("pose(lambda x, u: x + u * torch.rand(()))", "two different answers"),
    "cut state": ("pose(lambda x, u: x[:, 1:])", "must return a state"),
    "single precision": ("pose(lambda x, u: (x + u).float())", "must return a state"),
    "returns None": ("pose(lambda x, u: None)", "must return a state"),
    "step raises": ("pose(lambda x, u: x + missing_name)", "NameError"),
    "step takes one": ("pose(lambda x: x)", "step functions take"),
    "step is no function": ("pose(7)", "a simulator is"),
    "unknown keyword": ("pose(lambda x, u, *, wind: x)", "step functions take"),
    "nan state": ("pose(initial_state=X * math.nan)", "not finite"),
    "infinite state": ("pose(initial_state=X / 0)", "not finite"),
    "integer state": ("pose(initial_state=torch.ones(2, 4, dtype=torch.int64))", "floating point"),
    "no scenario axis": ("pose(initial_state=torch.tensor(1.0))", "leading axis"),
    "no scenarios": ("pose(initial_state=torch.zeros(0, 4))", "leading axis"),
    "empty state": ("pose(initial_state={})", "initial_state is empty"),
    "word as state": ("pose(initial_state='zero')", "initial_state must be made of tensors"),
    "horizon 0": ("pose(horizon=0)", "horizon must be"),
    "horizon -3": ("pose(horizon=-3)", "horizon must be"),
    "horizon 2.5": ("pose(horizon=2.5)", "horizon must be"),
    "horizon None": ("pose(horizon=None)", "horizon must be"),
    "control too wide": ("pose(control=dp.ControlSequence(5))", "make them fit"),
    "control not a sequence": ("pose(control=4)", "ControlSequence"),
    "control of shape 0": ("pose(control=dp.ControlSequence(0))", "positive whole numbers"),
    "bounds exchanged": ("pose(control=dp.ControlSequence(4, low=1, high=-1))", "lies above high"),
    "bounds of wrong shape": ("pose(control=dp.ControlSequence(4, low=[0, 0]))", "does not broadcast"),
    "nothing sought": ("pose(control=None)", "nothing is sought"),
    "unknown slot": ("pose(control=None, unknown='viscosity')", "made of slots"),
    "unknown parameter": ("pose(control=None, unknown=dp.Parameters('viscosity'))", "no parameter is called"),
    "target of wrong shape": ("pose(objective=dp.reach(torch.zeros(5)))", "target has shape"),
    "target nan": ("pose(objective=dp.reach(torch.full((4,), math.nan)))", "not finite"),
    "target unknown": ("pose(objective=dp.reach('goal'))", "no entry of the scenarios"),
    "reference too short": ("pose(objective=dp.track(torch.zeros(3, 4)))", "expected \\(4, 2, 4\\)"),
    "data beyond the horizon": (
        "pose(objective=dp.track(torch.zeros(1, 4), steps=[9]))",
        "lengthen the horizon",
    ),
    "objective a function": ("pose(objective=lambda x: x.sum())", "objective must be built"),
    "cost a scalar": ("pose(objective=dp.cost(terminal=lambda x: x.sum()))", "one number per scenario"),
    "cost raises": ("pose(objective=dp.cost(stage=lambda x, u, t: x @ u))", "the objective failed"),
    "cost empty": ("pose(objective=dp.cost())", "found neither"),
    "weight nan": ("pose(objective=math.nan * dp.effort())", "finite numbers"),
    "closing with a wrong gain": (
        "pose(objective=dp.closing(torch.zeros(4), gain=2.0))",
        "does not do for gain",
    ),
    "closing without full actuation": (
        "pose(lambda x, u: x + u, control=dp.ControlSequence(1), objective=dp.closing(torch.zeros(4)))",
        "a control on every entry",
    ),
    "two closings": ("pose(objective=dp.closing(torch.zeros(4)) + dp.closing(torch.ones(4)))", "keep one"),
    "parameters not taken": ("pose(parameters={'gain': 1.0})", "does not take the keyword parameters"),
    "parameter nan": (
        "pose(lambda x, u, *, parameters: x + parameters['g'] * u, parameters={'g': math.nan})",
        "parameter g is not finite",
    ),
    "parameter of another system": (
        "pose(SemiLagrangianBurgers(0.1, 0.01), parameters={'mass': 1.0})",
        "has no parameter mass",
    ),
    "noise not given": ("pose(lambda x, u, *, noise: x + u + noise)", "takes noise"),
    "scenarios of different length": ("pose(scenarios={'a': torch.zeros(3)})", "same leading axis"),
    "scenarios without axis": ("pose(scenarios={'a': torch.tensor(3.0)})", "same leading axis"),
    "baseline of wrong shape": ("pose(baselines={'law': lambda x, t, s: x[:, :1]})", "must return a control"),
    "baseline raises": ("pose(baselines={'law': lambda x, t, s: s['goal']})", "baseline 'law' failed"),
    "metric raises": ("pose(metrics={'m': lambda path, s: s['goal']})", "metric 'm' failed"),
    "metric of wrong shape": ("pose(metrics={'m': lambda path, s: path.states})", "metric 'm' must return"),
    "gradient mode": ("pose(gradient='full')", "gradient mode"),
    "constraints nobody honours": (
        "pose(constraints=[lambda path: path.states[-1]])",
        "cannot honour the constraints",
    ),
    "negative viscosity": ("pose(SemiLagrangianBurgers(0.1, -0.01))", "viscosity must be"),
    "dt zero": ("pose(SemiLagrangianBurgers(0.0, 0.01))", "dt must be positive"),
    "unstable dt": ("pose(FiniteVolumeBurgers(1.0, 0.01))", "needs dt <="),
    "state of another system": ("pose(ODE(Pendulum(), dt=0.1))", "angle"),
    "black box without gradient": (
        "pose(FunctionSimulator(step, differentiable=False))",
        "needs an exact gradient",
    ),
    "ODE rate detached": ("pose(dp.ODE(lambda x, u: x.detach() + u, dt=0.1))", "wrong gradient in state"),
    "ODE rate not batched": ("pose(dp.ODE(lambda x, u: x - x.mean() + u, dt=0.1))", "not batched"),
    "ODE rate in place": ("pose(dp.ODE(lambda x, u: x.mul_(2) + u, dt=0.1))", "in place"),
    "ODE rate a number": ("pose(dp.ODE(lambda x, u: 3, dt=0.1))", "does not depend on what is sought"),
    "cost detached": (
        "pose(objective=dp.cost(terminal=lambda x: (x.detach() ** 2).sum(1)))",
        "objective has a wrong",
    ),
    "cost half detached": (
        "pose(objective=dp.cost(terminal=lambda x: (x * x.detach()).sum(1)))",
        "objective has a",
    ),
    "cost a count": ("pose(objective=dp.cost(terminal=lambda x: (x > 0).sum(1)))", "floating-point"),
    "cost complex": ("pose(objective=dp.cost(terminal=lambda x: x.sum(1) * 1j))", "floating-point"),
    "cost nan": ("pose(objective=dp.cost(terminal=lambda x: x.sum(1) * math.nan))", "not a number"),
    "plant of another shape": ("pose(plant=lambda x, u: x[:, 1:])", "the plant does not fit"),
    "plant no function": ("pose(plant=5)", "a simulator is"),
    "exit in the file": ("__import__('sys').exit(3)", "SystemExit"),
    "exit in the step": ("pose(lambda x, u: __import__('sys').exit(7))", "SystemExit"),
    "baseline nan": ("pose(baselines={'law': lambda x, t, s: x * math.nan})", "not finite"),
    "baselines a list": ("pose(baselines=[step])", "baselines must be a dict"),
    "plot no function": ("pose(plots={'a': 3})", "plots must be a dict"),
    "name a number": ("pose(name=7)", "name must be"),
    "name a path": ("pose(name='../../elsewhere')", "name must be"),
    "name of two lines": ("pose(name='a\\nb')", "name must be"),
    "control shape true": ("pose(control=dp.ControlSequence(True))", "positive whole numbers"),
    "control shape 4.0": ("pose(control=dp.ControlSequence(4.0))", "positive whole numbers"),
    "scenarios a word": ("pose(scenarios='x')", "scenarios must be a dict"),
    "step needs a control": ("pose(control=None, unknown=dp.InitialState())", "control is None"),
    "policy of one argument": (
        "pose(control=None, unknown=dp.Policy(torch.nn.Linear(4, 4).double()))",
        "network\\(state, t, scenario\\)",
    ),
    "returns no problem": ("3", "return a Problem"),
    "problem raises": ("1 / 0", "ZeroDivisionError"),
}
FILES = {
    "syntax error": ("def problem(:\n", "SyntaxError in line 1"),
    "import error": ('"""A."""\nimport no_such_package\n', "ModuleNotFoundError"),
    "no problem": ('"""A."""\n', "no function problem"),
    "no docstring": ("def problem(*, size='full', seed=0):\n    return None\n", "no docstring"),
    "no size": ('"""A."""\ndef problem(*, seed=0):\n    return None\n', "must take the keywords"),
}
CALLS = {
    "no command": ([], "required: command"),
    "unknown command": (["sovle", "burgers"], "invalid choice"),
    "no problem": (["solve"], "required: problem"),
    "unknown problem": (["solve", "burgrs"], "did you mean burgers"),
    "no such file": (["solve", "./nowhere.py"], "no problem file"),
    "unknown size": (["solve", "burgers", "--size", "huge"], "invalid choice"),
    "negative problem seed": (["solve", "burgers", "--problem-seed", "-1"], "seed must be"),
    "word as problem seed": (["solve", "burgers", "--problem-seed", "one"], "invalid int"),
    "unknown strategy": (["solve", "burgers", "--size", "small", "--strategy", "lbfsg"], "lbfgs"),
    "unknown option": (["solve", "burgers", "--size", "small", "--set", "learning_rate=1"], "no option"),
    "broken option": (["solve", "burgers", "--size", "small", "--set", "iterations"], "NAME=VALUE"),
    "option out of range": (["solve", "burgers", "--size", "small", "--set", "iterations=-5"], "at least 1"),
    "option of wrong kind": (
        ["solve", "burgers", "--size", "small", "--set", "iterations=many"],
        "at least 1",
    ),
    "no seconds": (["solve", "burgers", "--size", "small", "--seconds", "0"], "positive number"),
    "nan seconds": (["solve", "burgers", "--size", "small", "--seconds", "nan"], "positive number"),
    "negative steps": (["solve", "burgers", "--size", "small", "--simulated-steps", "-3"], "positive number"),
    "no gradients": (["solve", "burgers", "--size", "small", "--gradients", "0"], "positive number"),
    "negative seed": (["solve", "burgers", "--size", "small", "--seed", "-1"], "seed must be"),
    "no strategies": (["compare", "burgers", "--size", "small", "--strategies", ","], "strateg"),
    "unknown among strategies": (
        ["compare", "burgers", "--size", "small", "--strategies", "lbfgs,foo"],
        "foo",
    ),
    "no seeds": (["compare", "burgers", "--size", "small", "--seeds", "0"], "seeds"),
    "negative workers": (["compare", "burgers", "--size", "small", "--workers", "-1"], "workers"),
    "resume nothing": (["resume", "nowhere"], "holds no run"),
    "report nothing": (["report", "nowhere"], "nowhere"),
    "resume something else": (["resume", "."], "lacks|holds no run"),
    "check without problem": (["check"], "required: problem"),
}


def refused(capsys, arguments, sentence):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("dpcontrol: "), shown.err
    assert len(lines[0]) < 400
    assert re.search(sentence, lines[0]), lines[0]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BODIES)
def test_broken_problems(name, capsys, outside):
    body, sentence = BODIES[name]
    path = outside / "broken.py"
    path.write_text(textwrap.dedent(HEAD).replace("BODY", body))
    refused(capsys, ["solve", str(path), "--quiet", "--output", "run"], sentence)
    assert not (outside / "run" / "solution.safetensors").exists()


@pytest.mark.parametrize("name", FILES)
def test_broken_files(name, capsys, outside):
    text, sentence = FILES[name]
    (outside / "broken.py").write_text(text)
    refused(capsys, ["solve", "./broken.py"], sentence)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls(name, capsys, outside):
    arguments, sentence = CALLS[name]
    refused(capsys, arguments, sentence)
    assert not (outside / "runs").exists() or not any((outside / "runs").rglob("*.safetensors"))


def test_a_folder_that_cannot_be_written(capsys, outside):
    (outside / "file").write_text("not a folder")
    refused(capsys, ["solve", "burgers", "--size", "small", "--output", "file/run"], "cannot be written")


def test_a_folder_that_holds_a_run(capsys, outside):
    asked = ["solve", "burgers", "--size", "small", "--strategy", "baseline", "--output", "run", "--quiet"]
    assert main(asked) == 0
    capsys.readouterr()
    refused(capsys, asked, "holds a run already")
