"""Explicit limits of the spectral simulators: a step beyond them is refused before it is taken, good ones are not."""

import math

import pytest
import torch
from rolled import roll

from dpcontrol.engine import rollout
from dpcontrol.results import UsageError
from dpcontrol.sim import (
    ETDRK2,
    ETDRK4,
    GrayScott,
    KuramotoSivashinsky,
    PlaneBurgers,
    SpectralBurgers,
    Substeps,
    VorticityFlow,
)

F64 = torch.float64


def wave(n):
    return torch.sin(2 * math.pi * torch.arange(n, dtype=F64) / n)[None]


def stirred(n):
    x = 2 * math.pi * torch.arange(n, dtype=F64) / n
    return (torch.cos(x)[:, None] + torch.cos(2 * x))[None]


CASES = {
    "burgers": (lambda dt: SpectralBurgers(dt, 64, viscosity=1e-4), wave(64), 2.83 / (2 * math.pi * 21)),
    "burgers, two stages": (
        lambda dt: SpectralBurgers(dt, 64, viscosity=1e-6, scheme=ETDRK2),
        wave(64),
        0.8 / (2 * math.pi * 21),
    ),
    "plane": (
        lambda dt: PlaneBurgers(dt, (32, 32), 1e-5),
        wave(32)[:, None, :, None].expand(1, 2, 32, 32),
        2.83 / (2 * math.pi * 10 * 2),
    ),
    "vorticity": (
        lambda dt: VorticityFlow(dt, (32, 32), 1e-6, scheme=ETDRK4),
        stirred(32),
        2.83 / (10 * 2**0.5 * 1.25),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_where_the_linear_theory_has_it(name):
    make, start, limit = CASES[name]
    roll(make(0.7 * limit), start, 1)
    with pytest.raises(UsageError, match="is unstable for the initial state of scenario 0") as refusal:
        roll(make(2 * limit), start, 1)
    told = float(str(refusal.value).split("up to ")[1].split(";")[0])
    assert 0.75 * limit < told < 1.35 * limit


def test_diffusion_and_damping_are_counted():
    """Strong damping at the end of the spectrum lets steps through that would blow up without it."""
    roll(SpectralBurgers(0.05, 64, viscosity=0.05), wave(64), 1)
    with pytest.raises(UsageError):
        roll(SpectralBurgers(0.05, 64, viscosity=1e-4), wave(64), 1)
    roll(KuramotoSivashinsky(0.25, 128, 32 * math.pi), 3 * wave(128), 1)  # Kassam and Trefethen's step


def test_the_worst_scenario_is_named_also_where_viscosities_differ():
    states = torch.cat((0.1 * wave(64), wave(64), 0.5 * wave(64)))
    with pytest.raises(UsageError, match="scenario 1"):
        roll(SpectralBurgers(0.06, 64, viscosity=1e-4), states, 1)
    with pytest.raises(UsageError, match="scenario 2"):
        values = torch.tensor([1e-4, 0.3, 1e-4], dtype=F64)
        roll(SpectralBurgers(0.06, 64, viscosity=1e-4), states, 1, viscosity=values)


def test_wrappers_ask_what_they_wrap_and_searches_are_not_interrupted():
    with pytest.raises(UsageError, match="is unstable"):
        roll(Substeps(SpectralBurgers(0.06, 64, viscosity=1e-4), 2), wave(64), 1)
    candidate = wave(64).requires_grad_()
    rollout(SpectralBurgers(0.06, 64, viscosity=1e-4), candidate, length=1)
    torch.func.grad(lambda u: roll(SpectralBurgers(0.06, 64, viscosity=1e-4), u, 1).sum())(wave(64))


def test_a_reaction_that_overshoots_is_refused():
    state = torch.zeros(1, 2, 16, 16, dtype=F64)
    state[:, 1] = 1.2
    with pytest.raises(UsageError, match="react at a rate of 1.44: take dt below 1.4"):
        roll(GrayScott(2.0, (16, 16)), state, 1)
    roll(GrayScott(1.0, (16, 16)), state, 1)
