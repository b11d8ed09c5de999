"""Small problems with known answers, and a run that is interrupted and resumed."""

import torch

from dpcontrol import folder as folders
from dpcontrol.folder import RunFolder
from dpcontrol.problem import ControlSequence, control_problem, cost
from dpcontrol.run import run
from dpcontrol.sim import DiscreteLinear

F64 = torch.float64


def scalar_lqr(horizon):
    """``x+ = x + u`` from 1, ``sum (x^2 + u^2) + x_N^2``."""
    return control_problem(
        DiscreteLinear(A=[[1.0]], B=[[1.0]]),
        initial_state=torch.ones(1, 1, dtype=F64),
        horizon=horizon,
        objective=cost(
            stage=lambda x, u, t: x.square().sum(1) + u.square().sum(1), terminal=lambda x: x.square().sum(1)
        ),
        control=ControlSequence((1,)),
        name="lqr",
    )


def double_integrator(count=1):
    """The double integrator of 50 steps, from multiples of (1, 0): losses are proportional to their squares."""
    start = torch.zeros(count, 2, dtype=F64)
    start[:, 0] = torch.arange(1, count + 1)
    return control_problem(
        DiscreteLinear(A=[[1.0, 0.1], [0.0, 1.0]], B=[[0.005], [0.1]]),
        initial_state=start,
        horizon=50,
        objective=cost(
            stage=lambda x, u, t: x.square().sum(1) + 0.1 * u.square().sum(1),
            terminal=lambda x: x.square().sum(1),
        ),
        control=ControlSequence((1,)),
        name="double_integrator",
    )


def static(function, size, *, count=1, low=None, high=None, start=0.0, spy=None):
    """Minimise ``function(u, scenario number)`` of one control: ``x+ = x + u`` from zero, one step."""

    def step(state, control):
        if spy is not None:
            spy(control.detach())
        return state + control

    return control_problem(
        step,
        initial_state=torch.zeros(count, size, dtype=F64),
        horizon=1,
        objective=cost(terminal=lambda x, *, scenario: function(x, scenario["number"])),
        control=ControlSequence((size,), low=low, high=high, start=start),
        scenarios={"number": torch.arange(count, dtype=F64)},
        name="static",
    )


class BoxQuadratic:
    """``u A u / 2 - b u`` in the box [-1, 1]^n, whose solution is known by its Karush-Kuhn-Tucker conditions."""

    def __init__(self, size=6, seed=3):
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=generator, dtype=F64)
        self.A = root @ root.T / size + torch.eye(size, dtype=F64)
        self.solution = 1.6 * torch.rand(size, generator=generator, dtype=F64) - 0.8
        self.solution[0], self.solution[1] = 1.0, -1.0
        slope = torch.zeros(size, dtype=F64)
        slope[0], slope[1] = -0.7, 0.4  # pushes outwards at both active bounds
        self.b = self.A @ self.solution - slope
        self.seen = []
        self.loss = float(self(self.solution[None])[0])

    def __call__(self, u, number=None):
        return 0.5 * torch.einsum("bi,ij,bj->b", u, self.A, u) - u @ self.b

    def problem(self):
        return static(self, len(self.b), low=-1.0, high=1.0, spy=self.seen.append)


def wells(u, number):
    """Two minima in each coordinate; the one near -1 is lower. The tilt differs by scenario."""
    return ((u.square() - 1).square() + (0.3 + 0.05 * number[:, None]) * u).sum(1)


def rosenbrock(u, number):
    """Rosenbrock's valley, minimum 0 at ones."""
    return (100 * (u[:, 1:] - u[:, :-1].square()).square() + (1 - u[:, :-1]).square()).sum(1)


def same(first, second):
    """Equal to the bit: values, losses, counts, and the history but for its seconds."""
    assert torch.equal(first.value["control"], second.value["control"])
    assert torch.equal(first.losses, second.losses)
    assert first.counts == second.counts
    assert first.status.kind == second.status.kind
    for column in ("simulated_steps", "gradients", "loss"):
        assert list(first.history[column]) == list(second.history[column]), column


def interrupted_and_resumed(problem, strategy, path, monkeypatch, *, after, budget=None, seed=5):
    """The solution of a run that Ctrl-C ended at its evaluation ``after``, and that was then resumed."""
    monkeypatch.setattr(folders, "KEEP_EVERY_SECONDS", 0.0)
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if len(seen) == after:
            raise KeyboardInterrupt

    first = run(
        problem,
        strategy,
        budget=budget,
        seed=seed,
        callback=interrupt,
        folder=RunFolder(path, {"seed": seed}),
    )
    assert first.status.kind == "interrupted"
    again = RunFolder(path, {"seed": seed}, resume=True)
    return run(problem, strategy, budget=budget, seed=seed, folder=again)
