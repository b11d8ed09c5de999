r"""Batched iterative solves of ``A x = b`` without a matrix: every scenario stops when *it* has converged.

Fields are ``(..., *axes)``: the last ``axes`` axes are one unknown vector, everything before them scenarios. Nothing
here is differentiated: see :mod:`dpcontrol.linalg.implicit` for solves inside a computation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from dpcontrol.results import Status, UsageError

Operator = Callable[[Tensor], Tensor]

ATTEMPTS = 8  # restarts from the true residual, before a solve that gets nowhere is given up
SLACK = 1.0  # how many roundings of A x a residual may be made of


class NotConverged(RuntimeError):
    """A linear solve that did not converge. ``status`` is how it ended, its sentence is the message."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.sentence)
        self.status = status


@dataclass(frozen=True)
class Stopping:
    """When a solve has converged, and when it is given up.

    Args:
        tolerance: converged is ``|b - A x| <= tolerance |b|``, Euclidean norms of each scenario; by default 1e-10 in
            double and 1e-5 in single precision. A residual that consists of the rounding of ``A x`` has
            converged as well: the status says so.
        iterations: at most so many.
        check_every: iterations between looks at the residual. A look is a transfer to the host, which an accelerator
            waits for; scenarios that converge in between are frozen anyway. By default 1 on the CPU, 8 elsewhere.
    """

    tolerance: float | None = None
    iterations: int = 1000
    check_every: int | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise UsageError(
                f"tolerance is a fraction of the right-hand side in (0, 1); found {self.tolerance!r}."
            )
        if self.iterations < 1 or (self.check_every is not None and self.check_every < 1):
            raise UsageError(
                f"iterations and check_every must be 1 or more; found {self.iterations} and {self.check_every}."
            )

    def relative(self, dtype: torch.dtype) -> float:
        """The tolerance for fields of this precision."""
        default = 1e-5 if torch.finfo(dtype).eps > 1e-10 else 1e-10
        return default if self.tolerance is None else self.tolerance

    def interval(self, device: torch.device) -> int:
        """Iterations between looks."""
        default = 1 if device.type == "cpu" else 8
        return default if self.check_every is None else self.check_every


@dataclass(frozen=True)
class Solved:
    """How a solve ended, and the solution for those who look at that.

    ``residuals`` are relative and true (``b - A x`` computed anew), ``iterations`` those that each scenario needed,
    ``converged`` says which ones did; all have the leading shape of the scenarios.
    """

    status: Status
    converged: Tensor
    residuals: Tensor
    iterations: Tensor
    _found: Tensor = field(repr=False)

    @property
    def solution(self) -> Tensor:
        """``x``.

        Raises:
            NotConverged: unless every scenario has converged.
        """
        if self.status.kind != "converged":
            raise NotConverged(self.status)
        return self._found

    def or_nan(self) -> Tensor:
        """``x``, with NaN in every scenario that did not converge: a bad candidate gets a bad loss."""
        axes = self._found.ndim - self.converged.ndim
        fine = self.converged.reshape(*self.converged.shape, *[1] * axes)
        return torch.where(fine, self._found, torch.full_like(self._found, torch.nan))

    def best(self) -> tuple[Tensor, Status]:
        """``x`` as far as it got, and how far that is."""
        return self._found, self.status


@dataclass(frozen=True)
class _System:
    """What a method iterates on."""

    operator: Operator
    preconditioner: Operator
    axes: int
    target: Tensor  # square of the residual that is small enough, (scenarios)
    interval: int

    def inner(self, first: Tensor, second: Tensor) -> Tensor:
        return (first * second).flatten(-self.axes).sum(-1)

    def wide(self, numbers: Tensor) -> Tensor:
        return numbers.reshape(*numbers.shape, *[1] * self.axes)


Method = Callable[[_System, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""From a start, its residual and a number of iterations to a better one and what each scenario used."""


def cg(
    operator: Operator,
    right: Tensor,
    axes: int,
    *,
    preconditioner: Operator | None = None,
    guess: Tensor | None = None,
    stop: Stopping = Stopping(),
) -> Solved:
    """Conjugate gradients, for symmetric definite ``A`` (or semi-definite, with ``b`` in its range).

    Args:
        operator: ``x -> A x``, batched.
        right: ``b``, ``(..., *axes)``.
        axes: how many of the last axes make one unknown vector.
        preconditioner: ``r -> M r``, symmetric definite, near the inverse of ``A``.
        guess: where to start; zero by default.
        stop: when.

    Raises:
        UsageError: for data that cannot be looked at (inside ``vmap`` and the like).

    **Source**: M. R. Hestenes, E. Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409.
    """
    return _driven(_cg, operator, right, axes, preconditioner, guess, stop)


def bicgstab(
    operator: Operator,
    right: Tensor,
    axes: int,
    *,
    preconditioner: Operator | None = None,
    guess: Tensor | None = None,
    stop: Stopping = Stopping(),
) -> Solved:
    """Stabilised biconjugate gradients, for any regular ``A``; arguments as for :func:`cg`. Two products a step.

    **Source**: H. A. van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992) 631.
    """
    return _driven(_bicgstab, operator, right, axes, preconditioner, guess, stop)


def stationary(
    operator: Operator,
    right: Tensor,
    axes: int,
    *,
    preconditioner: Operator | None = None,
    guess: Tensor | None = None,
    stop: Stopping = Stopping(),
) -> Solved:
    """``x += M (b - A x)``: a multigrid cycle as the solver itself; arguments as for :func:`cg`."""
    return _driven(_stationary, operator, right, axes, preconditioner, guess, stop)


METHODS: Mapping[str, Callable[..., Solved]] = MappingProxyType(
    {"cg": cg, "bicgstab": bicgstab, "stationary": stationary}
)


@torch.no_grad()
def _driven(
    method: Method,
    operator: Operator,
    right: Tensor,
    axes: int,
    preconditioner: Operator | None,
    guess: Tensor | None,
    stop: Stopping,
) -> Solved:
    """Run a method until the true residual is small, from the true residual again where its own recursion drifted."""
    _require(right, guess, axes)
    size = _norm(right, axes)
    # nothing is small beside infinity
    goal = torch.where(size.isfinite(), stop.relative(right.dtype) * size, torch.nan)
    system = _System(
        operator, preconditioner or (lambda r: r), axes, (0.9 * goal).square(), stop.interval(right.device)
    )
    found = torch.zeros_like(right) if guess is None else guess.detach().expand_as(right)
    rest = right if guess is None else right - operator(found)
    length, used = _norm(rest, axes), torch.zeros(size.shape, dtype=torch.long, device=right.device)
    small = torch.zeros_like(size, dtype=torch.bool)
    for _ in range(ATTEMPTS):
        small = small | (length <= goal)
        left = stop.iterations - int(used.max()) if used.numel() else 0
        if bool(small.all()) or left < 1:
            break
        better, spent = method(system, found, torch.where(system.wide(small), 0.0, rest), left)
        new_rest = right - operator(better)
        new_length = _norm(new_rest, axes)
        ahead = new_length < length  # also where the old one was not finite, never where the new one is not
        used = used + spent
        stuck = ~(new_length < 0.5 * length)
        found = torch.where(system.wide(ahead), better, found)
        rest, length = torch.where(system.wide(ahead), new_rest, rest), torch.where(ahead, new_length, length)
        small = small | (length <= goal)
        if bool((small | stuck).all()):
            break
    rounded = (
        ~small & (length <= _rounding(operator, found, right, axes)) if not bool(small.all()) else ~small
    )
    relative = torch.where(size > 0, length / torch.where(size > 0, size, 1.0), length)
    converged = (small | rounded) & size.isfinite()
    return Solved(_status(converged, rounded, relative, used, stop), converged, relative, used, found)


def _rounding(operator: Operator, found: Tensor, right: Tensor, axes: int) -> Tensor:
    """The size of a residual that is nothing but the rounding of ``A x``, from ``|A|`` by a random probe."""
    generator = torch.Generator().manual_seed(0)
    shape = right.shape[right.ndim - axes :]
    probe = torch.randn(shape, generator=generator, dtype=torch.float64).to(right).expand_as(right)
    gain = _norm(operator(probe), axes) / _norm(probe, axes)
    return SLACK * torch.finfo(right.dtype).eps * gain * _norm(found, axes)


def _status(converged: Tensor, rounded: Tensor, residuals: Tensor, used: Tensor, stop: Stopping) -> Status:
    if not residuals.numel():
        return Status("converged", "there was nothing to solve.")
    most, worst = int(used.max()), float(residuals.max())
    if bool(converged.all()):
        note = ", as small as rounding allows" if bool(rounded.any()) else ""
        return Status("converged", f"{most} iterations, relative residual {worst:.1e}{note}.")
    failed = ~converged
    many = f"{int(failed.sum())} of {failed.numel()} linear systems did not converge"
    worst = float(residuals[failed].max())
    if not bool(residuals[failed].isfinite().all()):
        return Status("failed", f"{many}: not finite; look for NaN or infinity in the data.")
    if most >= stop.iterations:
        return Status(
            "iterations spent",
            f"{many} within {stop.iterations} iterations (relative residual {worst:.1e}): allow more iterations, "
            "or a better preconditioner.",
        )
    return Status(
        "stalled",
        f"{many}: stuck at a relative residual of {worst:.1e} after {most} iterations; the operator may be "
        "singular with a right-hand side outside its range, or, for CG, not symmetric and definite.",
    )


def _require(right: Tensor, guess: Tensor | None, axes: int) -> None:
    if torch._C._functorch.is_functorch_wrapped_tensor(right):
        raise UsageError(
            "a Krylov method looks at its residual, which has no value inside torch.func transforms: solve with "
            "LinearSolver of dpcontrol.linalg, which has its own rules for them."
        )
    if not right.is_floating_point() or not 1 <= axes <= right.ndim:
        raise UsageError(
            f"the right-hand side is a real floating tensor (..., *axes) with at least {axes} axes; found "
            f"{tuple(right.shape)} {right.dtype}."
        )
    if guess is not None and (guess.dtype != right.dtype or guess.ndim > right.ndim):
        raise UsageError(
            f"the guess must be like the right-hand side, {tuple(right.shape)} {right.dtype}; found "
            f"{tuple(guess.shape)} {guess.dtype}."
        )


def _norm(tensor: Tensor, axes: int) -> Tensor:
    return torch.linalg.vector_norm(tensor.flatten(-axes), dim=-1)


def _ratio(numerator: Tensor, denominator: Tensor, going: Tensor) -> Tensor:
    """The quotient for those who are still going, zero for the others: that is what freezes them."""
    fine = going & (denominator != 0)
    return torch.where(fine, numerator / torch.where(fine, denominator, 1.0), 0.0)


def _cg(system: _System, found: Tensor, rest: Tensor, most: int) -> tuple[Tensor, Tensor]:
    inner, wide = system.inner, system.wide
    changed = system.preconditioner(rest)
    direction, slope, square = changed, inner(rest, changed), inner(rest, rest)
    used = torch.zeros(square.shape, dtype=torch.long, device=rest.device)
    for iteration in range(most):
        going = square > system.target
        if iteration % system.interval == 0 and not bool((going & square.isfinite()).any()):
            break
        used = used + going
        image = system.operator(direction)
        length = wide(_ratio(slope, inner(direction, image), going))
        found, rest = torch.addcmul(found, length, direction), torch.addcmul(rest, length, image, value=-1)
        square = torch.where(going, inner(rest, rest), square)
        changed = system.preconditioner(rest)
        before, slope = slope, inner(rest, changed)
        direction = torch.addcmul(changed, wide(_ratio(slope, before, going)), direction)
    return found, used


def _bicgstab(system: _System, found: Tensor, rest: Tensor, most: int) -> tuple[Tensor, Tensor]:
    inner, wide = system.inner, system.wide
    shadow, direction, square = rest, rest, inner(rest, rest)
    slope = square
    used = torch.zeros(square.shape, dtype=torch.long, device=rest.device)
    # a breakdown (a zero denominator) freezes; the restart with a new shadow residual is what goes on
    alive = torch.ones_like(used, dtype=torch.bool)
    for iteration in range(most):
        going = alive & (square > system.target)
        if iteration % system.interval == 0 and not bool((going & square.isfinite()).any()):
            break
        used = used + going
        changed = system.preconditioner(direction)
        image = system.operator(changed)
        length = _ratio(slope, inner(shadow, image), going)
        half = torch.addcmul(rest, wide(length), image, value=-1)
        smoothed = system.preconditioner(half)
        turned = system.operator(smoothed)
        weight = _ratio(inner(turned, half), inner(turned, turned), going)
        found = torch.addcmul(found, wide(length), changed)
        found = torch.addcmul(found, wide(weight), smoothed)
        rest = torch.addcmul(half, wide(weight), turned, value=-1)
        square = torch.where(going, inner(rest, rest), square)
        before, slope = slope, inner(shadow, rest)
        alive = alive & (slope != 0) & (weight != 0)
        factor = _ratio(slope, before, going) * _ratio(length, weight, going)
        direction = torch.addcmul(rest, wide(factor), torch.addcmul(direction, wide(weight), image, value=-1))
    return found, used


def _stationary(system: _System, found: Tensor, rest: Tensor, most: int) -> tuple[Tensor, Tensor]:
    square = system.inner(rest, rest)
    used = torch.zeros(square.shape, dtype=torch.long, device=rest.device)
    for iteration in range(most):
        going = square > system.target
        if iteration % system.interval == 0 and not bool((going & square.isfinite()).any()):
            break
        used = used + going
        step = torch.where(system.wide(going), system.preconditioner(rest), 0.0)
        found, rest = found + step, rest - system.operator(step)
        square = torch.where(going, system.inner(rest, rest), square)
    return found, used
