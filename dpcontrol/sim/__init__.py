"""Simulators: one step of a physical system each. They know nothing of loops, objectives or strategies."""

from dpcontrol.sim.actuated import Actuated
from dpcontrol.sim.base import Simulator, Substeps, align
from dpcontrol.sim.block_diffusion import block_diffusion
from dpcontrol.sim.boundary_reaction_diffusion import BoundaryReactionDiffusion
from dpcontrol.sim.boundary_transport import BoundaryTransport
from dpcontrol.sim.burgers_finite_volume import FiniteVolumeBurgers
from dpcontrol.sim.burgers_plane import PlaneBurgers
from dpcontrol.sim.burgers_semi_lagrangian import SemiLagrangianBurgers
from dpcontrol.sim.burgers_spectral import SpectralBurgers
from dpcontrol.sim.cart_pole import CartPole
from dpcontrol.sim.channels import Channels, padding
from dpcontrol.sim.coarsen import Coarsen
from dpcontrol.sim.compiled import Compiled
from dpcontrol.sim.etdrk import ETDRK2, ETDRK4, ExponentialScheme
from dpcontrol.sim.external import BlackBox, JaxFunction, PhiFlowStep
from dpcontrol.sim.flow import IncompressibleFlow
from dpcontrol.sim.function import FunctionSimulator, Steady
from dpcontrol.sim.gray_scott import GrayScott
from dpcontrol.sim.grid import Grid
from dpcontrol.sim.heat import AdvectionDiffusion
from dpcontrol.sim.heat_walls import WalledHeat
from dpcontrol.sim.hybrid import HybridSimulator, Still
from dpcontrol.sim.interpolate import interpolate
from dpcontrol.sim.kuramoto_sivashinsky import KuramotoSivashinsky
from dpcontrol.sim.linear import DiscreteLinear, LinearSystem
from dpcontrol.sim.located import Field
from dpcontrol.sim.located_operators import curl, divergence, gradient, laplacian, velocity_fields
from dpcontrol.sim.lotka_volterra import LotkaVolterra
from dpcontrol.sim.obstacle import Disc
from dpcontrol.sim.ode import ODE, FunctionSystem, SeparableSystem, System
from dpcontrol.sim.pendulum import Pendulum
from dpcontrol.sim.schemes import EULER, HEUN, MIDPOINT, RK4, SYMPLECTIC_EULER, VERLET, Partitioned, Tableau
from dpcontrol.sim.schroedinger import Schroedinger
from dpcontrol.sim.sides import FixedFlux, FixedValue, FreeSlip, Inflow, NoSlip, Outflow, Periodic
from dpcontrol.sim.smoke import Smoke
from dpcontrol.sim.steady_diffusion import steady_diffusion
from dpcontrol.sim.stirring import Stirring
from dpcontrol.sim.van_der_pol import VanDerPol
from dpcontrol.sim.vorticity import VorticityFlow
from dpcontrol.sim.wave import Wave
from dpcontrol.sim.wave_walls import WalledWave, WaveInMedium

__all__ = [
    "ETDRK2",
    "ETDRK4",
    "EULER",
    "HEUN",
    "MIDPOINT",
    "ODE",
    "RK4",
    "SYMPLECTIC_EULER",
    "VERLET",
    "Actuated",
    "AdvectionDiffusion",
    "BlackBox",
    "BoundaryReactionDiffusion",
    "BoundaryTransport",
    "CartPole",
    "Channels",
    "Coarsen",
    "Compiled",
    "Disc",
    "DiscreteLinear",
    "ExponentialScheme",
    "Field",
    "FiniteVolumeBurgers",
    "FixedFlux",
    "FixedValue",
    "FreeSlip",
    "FunctionSimulator",
    "FunctionSystem",
    "GrayScott",
    "Grid",
    "HybridSimulator",
    "IncompressibleFlow",
    "Inflow",
    "JaxFunction",
    "KuramotoSivashinsky",
    "LinearSystem",
    "LotkaVolterra",
    "NoSlip",
    "Outflow",
    "Partitioned",
    "Pendulum",
    "Periodic",
    "PhiFlowStep",
    "PlaneBurgers",
    "Schroedinger",
    "SemiLagrangianBurgers",
    "SeparableSystem",
    "Simulator",
    "Smoke",
    "SpectralBurgers",
    "Steady",
    "Still",
    "Stirring",
    "Substeps",
    "System",
    "Tableau",
    "VanDerPol",
    "VorticityFlow",
    "WalledHeat",
    "WalledWave",
    "Wave",
    "WaveInMedium",
    "align",
    "block_diffusion",
    "curl",
    "divergence",
    "gradient",
    "interpolate",
    "laplacian",
    "padding",
    "steady_diffusion",
    "velocity_fields",
]
