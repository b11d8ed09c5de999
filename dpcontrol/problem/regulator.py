"""The linear-quadratic-Gaussian regulator: a Kalman filter that estimates the state, and a gain that acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcontrol.problem.acting import Outset
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

DOUBLINGS, CONVERGED = 60, 1e-13
STILL = 1e-15  # of a gain's largest entry, per step


@dataclass(frozen=True)
class KalmanLQR:
    r"""The optimal controller of a linear system with Gaussian noise and a quadratic cost, as a controller with memory.

    .. math:: x_{k+1} = A x_k + B u_k + w_k, \quad y_k = C x_k + v_k, \quad w \sim N(0, W), \; v \sim N(0, V)

    The filter's gains follow from the prior of the start, :math:`x_0 \sim N(m_0, P_0)`, so that they change from step
    to step; they are the same for all scenarios:

    .. math:: L_k = P_k C^T (C P_k C^T + V)^{-1}, \quad \hat x_k = \bar x_k + L_k (y_k - C \bar x_k), \quad
              u_k = K \hat x_k, \quad \bar x_{k+1} = A \hat x_k + B u_k, \quad
              P_{k+1} = A (I - L_k C) P_k A^T + W

    With :math:`K` from :func:`quadratic_gain` it minimises :math:`E \sum x^T Q x + u^T R u` over a long time, among all
    controllers that see the :math:`y`: estimation and control separate. It is handed the state as its sensors give it,
    see :class:`~dpcontrol.problem.Sensed`, and takes ``y = C x`` from it. With bounds the filter knows what was really
    played.

    Args:
        A, B, C: ``(n, n)``, ``(n, inputs)``, ``(outputs, n)``.
        gain: ``K``, ``(inputs, n)``.
        process, measurement: ``W``, ``(n, n)``, and ``V``, ``(outputs, outputs)``.
        mean, covariance: ``m_0``, ``(n,)``, and ``P_0``, ``(n, n)``.
        bounds: low and high of the control, numbers or tensors ``(inputs,)``.

    Source: R. E. Kalman, "A new approach to linear filtering and prediction problems", J. Basic Eng. 82 (1960);
    K. J. Astrom, "Introduction to Stochastic Control Theory" (1970), chapter 8.

    Raises:
        UsageError: for matrices that do not fit together.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    gain: Tensor
    process: Tensor
    measurement: Tensor
    mean: Tensor
    covariance: Tensor
    bounds: tuple[Any, Any] = (None, None)

    def __post_init__(self) -> None:
        n, inputs, outputs = len(self.A), self.B.shape[-1], len(self.C)
        wanted = {
            "A": (n, n),
            "B": (n, inputs),
            "C": (outputs, n),
            "gain": (inputs, n),
            "process": (n, n),
            "measurement": (outputs, outputs),
            "mean": (n,),
            "covariance": (n, n),
        }
        for name, shape in wanted.items():
            found = getattr(self, name)
            if not isinstance(found, Tensor) or tuple(found.shape) != shape:
                said = tuple(found.shape) if isinstance(found, Tensor) else found
                raise UsageError(f"KalmanLQR({name}=...) must be a tensor {shape}; found {said!r}.")

    def init(self, outset: Outset) -> Any:
        """The filter's gains ``L_k`` of all steps, the step, and the prediction ``(scenarios, n)``."""
        return self.filter_gains(outset.steps), 0, self.mean.expand(outset.count, -1)

    def act(self, memory: Any, state: Tensor, t: float, scenario: Mapping[str, Tree]) -> tuple[Tensor, Any]:
        """``K`` times the estimate, which the measurement has improved."""
        gains, k, predicted = memory
        estimate = predicted + ((state - predicted) @ self.C.mT) @ gains[k].mT
        low, high = (
            None if side is None else torch.as_tensor(side, dtype=estimate.dtype, device=estimate.device)
            for side in self.bounds
        )
        control = estimate @ self.gain.mT
        if low is not None or high is not None:
            control = control.clamp(low, high)
        return control, (gains, k + 1, estimate @ self.A.mT + control @ self.B.mT)

    def filter_gains(self, steps: int) -> list[Tensor]:
        """``L_k``, ``(n, outputs)``, of so many steps."""
        spread, gains = self.covariance, []
        identity = torch.eye(len(self.A), dtype=self.A.dtype, device=self.A.device)
        for k in range(steps):
            seen = self.C @ spread @ self.C.mT + self.measurement
            gains.append(torch.linalg.solve(seen, self.C @ spread).mT)
            if k > 0 and float((gains[k] - gains[k - 1]).abs().max()) <= STILL * float(gains[k].abs().max()):
                return gains + [gains[k]] * (steps - k - 1)  # it moves no more
            left = identity - gains[-1] @ self.C
            # Joseph's form: symmetric and positive also after rounding
            after = left @ spread @ left.mT + gains[-1] @ self.measurement @ gains[-1].mT
            spread = self.A @ after @ self.A.mT + self.process
        return gains


def quadratic_gain(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
    r"""``K`` of ``u = K x``, ``(inputs, n)``: the stationary optimum of :math:`\sum x^T Q x + u^T R u`.

    :math:`K = -(R + B^T X B)^{-1} B^T X A` with the solution ``X`` of :func:`riccati`.
    """
    X = riccati(A, B, Q, R)
    return -torch.linalg.solve(R + B.mT @ X @ B, B.mT @ X @ A)


def riccati(A: Tensor, B: Tensor, Q: Tensor, R: Tensor) -> Tensor:
    r"""The stabilising solution ``X``, ``(n, n)``, of the discrete algebraic Riccati equation.

    .. math:: X = A^T X A - A^T X B (R + B^T X B)^{-1} B^T X A + Q

    By doubling, quadratically convergent (B. Anderson, Int. J. Control 28 (1978)). With ``A^T, C^T, W, V`` in place of
    ``A, B, Q, R`` it is the stationary covariance of a Kalman filter's prediction.

    Raises:
        UsageError: if it does not converge: a growing mode that cannot be controlled, or that costs nothing.
    """
    identity = torch.eye(len(A), dtype=A.dtype, device=A.device)
    a, g, h = A, B @ torch.linalg.solve(R, B.mT), Q
    for _ in range(DOUBLINGS):
        solved = torch.linalg.solve(identity + g @ h, torch.cat((a, g), 1))
        moved, spread = solved[:, : len(a)], solved[:, len(a) :]
        added = a.mT @ h @ moved
        a, g, h = a @ moved, g + a @ spread @ a.mT, h + added
        if not bool(torch.isfinite(h).all()):
            break
        if float(added.abs().max()) <= CONVERGED * float(h.abs().max()):
            return h
    raise UsageError(
        "Riccati's equation has no stabilising solution here: some growing mode cannot be controlled (or seen)."
    )
