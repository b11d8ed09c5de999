"""Linear solves, batched, with exact derivatives."""

from dpcontrol.linalg.poisson import Poisson, Transform, poisson

__all__ = ["Poisson", "Transform", "poisson"]
