"""Every built-in simulator with states and controls to try: for tests that ask the same of all, and for timings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dpcontrol import sim, tree
from dpcontrol.sim import Grid, Simulator

F64 = torch.float64
Shapes = Any  # a shape without the scenario axis, or a dict of them


@dataclass(frozen=True)
class Case:
    """A simulator, and the shapes of a state and a control of one scenario (``None``: without control)."""

    make: Callable[[], Simulator]
    state: Shapes
    control: Shapes
    level: float = 0.0
    size: float = 0.3

    def initial(self, count: int, seed: int = 0) -> Any:
        """Random states, leaves ``(count, ...)``, around ``level``."""
        return _drawn(self.state, (count,), self.size, seed, self.level)

    def controls(self, steps: int, count: int, seed: int = 1) -> Any:
        """Random controls, leaves ``(steps, count, ...)``."""
        return _drawn(self.control, (steps, count), 0.1, seed, 0.0)


def _drawn(shapes: Shapes, lead: tuple[int, ...], size: float, seed: int, level: float) -> Any:
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return level + size * torch.randn((*lead, *shape), generator=generator, dtype=F64)

    if shapes is None:
        return None
    return (
        {name: draw(shape) for name, shape in shapes.items()} if isinstance(shapes, Mapping) else draw(shapes)
    )


def cases(cells: int = 12) -> dict[str, Case]:
    """All of them, with ``cells`` along each axis."""
    n, plane = cells, (cells, cells)
    grid = Grid(plane, (1.0, 1.0))
    smoke, flow = sim.Smoke(grid, 0.02), sim.IncompressibleFlow(grid, 0.01)
    stirring = sim.Stirring(grid, 0.01)
    x = torch.linspace(-3, 3, n, dtype=F64)
    hat = torch.stack([torch.sin(x), torch.cos(x)])
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(n, n, dtype=F64), torch.nn.Tanh())

    def burgers() -> Simulator:
        return sim.FiniteVolumeBurgers(0.002, 0.01)

    return {
        "FiniteVolumeBurgers": Case(burgers, (n,), (n,)),
        "FiniteVolumeBurgers, substeps": Case(lambda: sim.Substeps(burgers(), 4), (n,), (n,)),
        "FiniteVolumeBurgers, actuated": Case(lambda: sim.Actuated(burgers(), hat), (n,), (2,)),
        "FiniteVolumeBurgers, hybrid": Case(lambda: sim.HybridSimulator(burgers(), network), (n,), (n,)),
        "SemiLagrangianBurgers": Case(lambda: sim.SemiLagrangianBurgers(0.01, 0.003), (n,), (n,)),
        "SpectralBurgers": Case(lambda: sim.SpectralBurgers(0.005, n), (n,), (n,)),
        "PlaneBurgers": Case(lambda: sim.PlaneBurgers(0.005, plane), (2, *plane), (2, *plane)),
        "KuramotoSivashinsky": Case(lambda: sim.KuramotoSivashinsky(0.1, n), (n,), (n,)),
        "VorticityFlow": Case(lambda: sim.VorticityFlow(0.01, plane), plane, plane),
        "GrayScott": Case(lambda: sim.GrayScott(1.0, plane), (2, *plane), (2, *plane), 0.5, 0.1),
        "AdvectionDiffusion": Case(lambda: sim.AdvectionDiffusion(0.1, plane), plane, plane),
        "WalledHeat": Case(lambda: sim.WalledHeat(0.1, plane), plane, plane),
        "Wave": Case(lambda: sim.Wave(0.1, plane), (2, *plane), plane),
        "WalledWave": Case(lambda: sim.WalledWave(0.1, plane), (2, *plane), plane),
        "WaveInMedium": Case(lambda: sim.WaveInMedium(0.2 / n, plane), (2, *plane), plane),
        "Schroedinger": Case(
            lambda: sim.Schroedinger(0.01, n, potential=0.5 * x**2, dipoles=x[None], interaction=0.5),
            (n, 2),
            (1,),
        ),
        "Smoke": Case(lambda: smoke, smoke.shapes, None),
        "Stirring": Case(lambda: stirring, {"marker": plane}, stirring.corners),
        "IncompressibleFlow": Case(
            lambda: flow, {name: grid.faces(axis) for axis, name in enumerate(flow.names)}, None
        ),
        "Pendulum": Case(lambda: sim.ODE(sim.Pendulum(), 0.05), (2,), (1,)),
        "Pendulum, Verlet": Case(lambda: sim.ODE(sim.Pendulum(), 0.05, sim.VERLET), (2,), (1,)),
        "CartPole": Case(lambda: sim.ODE(sim.CartPole(), 0.02), (4,), (1,)),
        "VanDerPol": Case(lambda: sim.ODE(sim.VanDerPol(), 0.1), (2,), (1,)),
        "LotkaVolterra": Case(lambda: sim.ODE(sim.LotkaVolterra(), 0.1), (2,), (2,), 10.0, 1.0),
        "DiscreteLinear": Case(
            lambda: sim.DiscreteLinear([[1.0, 0.1], [0.0, 1.0]], [[0.0], [0.1]]), (2,), (1,)
        ),
        "FunctionSimulator": Case(
            lambda: sim.FunctionSimulator(lambda s, u: s + 0.1 * (u - s.sin())), (n,), (n,)
        ),
    }


def moved(value: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """A tree on another device, in another precision."""
    return tree.map(lambda leaf: leaf.to(device=device, dtype=dtype), value)
