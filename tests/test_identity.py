"""Under which name data are kept: another one as soon as anything that makes them was edited, and only then."""

import functools
import importlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch

from dpcontrol.problem import reach
from dpcontrol.sim import FiniteVolumeBurgers
from dpcontrol.store import identity

FILE = '''
"""A user's own solver."""
import functools
import math
from dataclasses import dataclass, field

import torch

import own_parts
import own_package.inner

SCALES = {"u": (1.0, 2.0)}
DT = 0.1


def flux(u):
    return 0.5 * u * u


def called(u):
    return even(u, 3)


def even(u, n):
    return u if n == 0 else odd(u, n - 1)


def odd(u, n):
    return 2 * even(u, n - 1)


def twice(f):
    @functools.wraps(f)
    def wrapper(u):
        return f(f(u))
    return wrapper


@twice
def decorated(u):
    return 2 * u


@torch.no_grad()
def quiet(u):
    return 3 * u


@functools.lru_cache
def remembered(n):
    return n + 1


class Base:
    factor = 2.0

    def scaled(self, u):
        return self.factor * u


class Scheme(Base):
    def __init__(self, n):
        self.n = n

    @staticmethod
    def rate():
        return 1.5

    @classmethod
    def made(cls):
        return cls(3)

    @property
    def order(self):
        return 2

    def advance(self, u):
        return self.scaled(u) - self.n * flux(u)


@dataclass(frozen=True)
class Law:
    gain: float = 1.0
    table: list = field(default_factory=lambda: [4.0])

    def act(self, u):
        return -self.gain * u


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = 7.0
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.layer.weight, 1.0)
        torch.nn.init.constant_(self.layer.bias, 0.0)

    def forward(self, u):
        return self.slope * self.layer(u)


NET, LAW = Net(), Law()


def step(u, control):
    def body(v):
        return [flux(w) for w in v]

    import own_later

    v = own_parts.shift(u) + own_package.inner.bend(u) + own_later.late(u)
    v = v + Scheme.made().advance(u) + DT * SCALES["u"][0] + LAW.act(u) + math.sin(0.1)
    return v + sum(body(u)) + called(u) + decorated(u) + quiet(u) + remembered(1) + NET(u)


def alone(u, control):
    return torch.sin(u)
'''
PARTS = "def shift(u):\n    return u + offset()\n\ndef offset():\n    return 5.0\n\ndef other(u):\n    return 9.0\n"
FILES = {
    "own_solver.py": FILE,
    "own_parts.py": PARTS,
    "own_later.py": "def late(u):\n    return 8.0 * u\n",
    "own_package/__init__.py": "",
    "own_package/inner.py": "from own_parts import shift\n\ndef bend(u):\n    return shift(u) ** 6.0\n",
}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Writes a user's files, one text replaced by another, and imports them anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(old="", new=""):
        assert any(old in text for text in FILES.values())
        for name in [name for name in sys.modules if name.startswith("own_")]:
            del sys.modules[name]
        for path, text in FILES.items():
            file = tmp_path / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.replace(old, new) if old else text)
        importlib.invalidate_caches()
        solver = importlib.import_module("own_solver")
        importlib.import_module("own_later")
        return solver

    yield imported
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


EDITS = {
    "a function called inside of a list in a function inside": ("0.5 * u * u", "0.25 * u * u"),
    "functions that call each other": ("2 * even(u, n - 1)", "3 * even(u, n - 1)"),
    "what a decorator wraps": ("return 2 * u", "return 3 * u"),
    "a decorator": ("f(f(u))", "f(f(f(u)))"),
    "what a decorator of a library wraps": ("return 3 * u", "return 4 * u"),
    "what a memory of a library wraps": ("n + 1", "n + 2"),
    "a global dict": ("(1.0, 2.0)", "(1.5, 2.0)"),
    "a global number": ("DT = 0.1", "DT = 0.2"),
    "a method": ("self.scaled(u) - self.n", "self.scaled(u) + self.n"),
    "a static method": ("return 1.5", "return 1.6"),
    "a class method": ("cls(3)", "cls(4)"),
    "a property": ("return 2\n", "return 3\n"),
    "a method of a base": ("self.factor * u", "self.factor + u"),
    "an attribute of a base": ("factor = 2.0", "factor = 3.0"),
    "a method of a dataclass": ("-self.gain * u", "self.gain * u"),
    "a default of a dataclass": ("gain: float = 1.0", "gain: float = 1.1"),
    "a default that is made": ("[4.0]", "[4.1]"),
    "the forward of a module of torch": ("self.slope * self.layer", "self.slope + self.layer"),
    "an attribute of a module of torch": ("self.slope = 7.0", "self.slope = 7.1"),
    "weights of a global module of torch": ("layer.weight, 1.0", "layer.weight, 1.1"),
    "what a function of another file calls": ("return 5.0", "return 5.1"),
    "a file inside of a package": ("** 6.0", "** 6.1"),
    "a file that is imported inside": ("8.0 * u", "8.1 * u"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_whatever_a_step_comes_to_is_another_thing(user, edit):
    before = identity(user().step)
    assert identity(user().step) == before
    assert identity(user(*EDITS[edit]).step) != before


def test_an_edit_elsewhere_is_the_same_thing(user):
    before = identity([user().step, user().alone])
    for edit in (("return 9.0", "return 9.1"), ("def alone(", "def apart(u):\n    return 1\n\n\ndef alone(")):
        solver = user(*edit)
        assert identity([solver.step, solver.alone]) == before
    alone = identity(user().alone)
    assert all(identity(user(*edit).alone) == alone for edit in EDITS.values())
    assert identity(user().step) != alone


def test_objects_of_own_classes_go_by_what_they_hold_and_do(user):
    solver = user()
    before = identity(solver.Scheme(3)), identity(solver.Law()), identity(solver.Scheme(3).advance)
    assert identity(solver.Scheme(4)) != before[0] and identity(solver.Law(2.0)) != before[1]
    again = user()
    assert (identity(again.Scheme(3)), identity(again.Law()), identity(again.Scheme(3).advance)) == before
    other = user(*EDITS["a method"])
    assert identity(other.Scheme(3)) != before[0] and identity(other.Scheme(3).advance) != before[2]
    assert identity(user(*EDITS["a method of a dataclass"]).Law()) != before[1]


def test_another_process_finds_the_same(user, tmp_path):
    here = identity(user().step)
    told = (
        "import own_solver, own_later\nfrom dpcontrol.store import identity\nprint(identity(own_solver.step))"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == here
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    solver, _ = (importlib.import_module(name) for name in ("own_solver", "own_later"))
    assert solver.__cached__ and Path(solver.__cached__).is_file()
    assert identity(solver.step) == here


def test_a_process_that_cannot_import_the_file_finds_the_same(user, tmp_path):
    solver = user(" + remembered(1)", "")  # which cannot be sent
    cloudpickle.register_pickle_by_value(solver)  # as is done with problem files
    asked = [solver.step, solver.Scheme(3), solver.LAW, solver.NET, solver.decorated]
    (tmp_path / "asked.pickle").write_bytes(cloudpickle.dumps(asked))
    cloudpickle.unregister_pickle_by_value(solver)
    (tmp_path / "own_solver.py").unlink()
    told = (
        "import pickle, own_later\nfrom dpcontrol.store import identity\n"
        "print([identity(each) for each in pickle.load(open('asked.pickle', 'rb'))])"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    found = subprocess.run(
        [sys.executable, "-c", told],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    assert found.stdout.strip() == str([identity(each) for each in asked])


def test_what_a_library_made_of_a_function_goes_by_what_it_closes_over():
    assert identity(reach(torch.ones(2))) == identity(reach(torch.ones(2)))
    assert identity(reach(torch.ones(2))) != identity(reach(torch.zeros(2)))
    doubled, halved = (functools.partial(torch.mul, other=factor) for factor in (2.0, 0.5))
    assert identity(torch.func.vmap(doubled)) != identity(torch.func.vmap(halved))
    assert identity(torch.func.vmap(doubled, 0)) != identity(torch.func.vmap(doubled, 1))


def test_names_of_libraries_are_told_apart():
    rows = [
        torch.sin,
        np.sin,
        torch.stack,
        np.stack,
        torch,
        np,
        torch.Tensor,
        np.ndarray,
        dict,
        FiniteVolumeBurgers,
    ]
    assert len({identity(row) for row in rows}) == len(rows)
    first, second = {"a": 1}, {"a": 2}
    assert identity(first.get) != identity(second.get)


def test_objects_that_tell_an_address_only_are_never_the_same():
    first, second = threading.Lock(), threading.Lock()
    assert identity(first) == identity(first) != identity(second)


def test_circles_end():
    held = [1]
    held.append(held)

    @dataclass
    class Node:
        next: object = None
        seen: list = field(default_factory=list)

    node = Node()
    node.next = Node(node)
    assert identity(held) == identity(held) and identity(node) == identity(node)
