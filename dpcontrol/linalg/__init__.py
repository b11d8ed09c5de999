"""Linear solves, batched, with exact derivatives."""

from dpcontrol.linalg.diffusion import Box, on_faces
from dpcontrol.linalg.elliptic import VariablePoisson, variable_poisson
from dpcontrol.linalg.implicit import LinearSolver
from dpcontrol.linalg.krylov import NotConverged, Solved, Stopping, bicgstab, cg, stationary
from dpcontrol.linalg.multigrid import Multigrid, multigrid
from dpcontrol.linalg.poisson import Poisson, Transform, poisson

__all__ = [
    "Box",
    "LinearSolver",
    "Multigrid",
    "NotConverged",
    "Poisson",
    "Solved",
    "Stopping",
    "Transform",
    "VariablePoisson",
    "bicgstab",
    "cg",
    "multigrid",
    "on_faces",
    "poisson",
    "stationary",
    "variable_poisson",
]
