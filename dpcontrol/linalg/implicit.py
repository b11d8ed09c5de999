r"""``x = A(theta)^{-1} b`` inside a computation: the derivative is another solve, never the iterations of this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dpcontrol import tree
from dpcontrol.linalg.krylov import METHODS, NotConverged, Operator, Solved, Stopping
from dpcontrol.results import UsageError
from dpcontrol.tree import Tree

Leaves = tuple[Tensor, ...]
ON_FAILURE = ("raise", "nan")


@dataclass(frozen=True)
class LinearSolver:
    r"""``A(theta) x = b`` for a matrix-free ``A``, differentiable in ``theta`` and ``b`` to any order.

    .. math:: \dot x = A^{-1} (\dot b - \dot A x), \qquad
              \bar b = A^{-T} \bar x, \quad \bar \theta = - \bar b^T \frac{\partial A}{\partial \theta} x

    Forward and reverse mode, second derivatives (reverse over either) and ``vmap`` work, not forward over forward; each
    derivative costs one more solve with the same tolerance, and no memory beyond ``x`` and ``theta``. A solve that does
    not converge is told: by the exception :class:`~dpcontrol.linalg.krylov.NotConverged`, or by NaN in the scenarios
    concerned, which makes their losses not finite. Solves of derivatives are held to the same.

    Args:
        apply: ``(theta, x) -> A x``, linear in ``x``, batched over the scenarios in front of the last ``axes`` axes,
            differentiable in ``theta`` (a tree of tensors; leaves may have leading axes of scenarios).
        axes: how many of the last axes make one unknown vector.
        symmetric: whether ``A`` equals its transpose and is definite; else the transpose is had from autograd.
        method: ``"cg"``, ``"bicgstab"`` or ``"stationary"``; by default the first for symmetric operators, the second
            for others.
        preconditioner: ``theta -> (r -> M r)``, made once for each solve. For the transpose of an operator that is not
            symmetric its transpose is used, so it must then be differentiable in ``r``.
        project: ``(theta, v) -> v``, the orthogonal projection on the range of a symmetric singular ``A`` (subtract the
            mean, for a closed box). Then ``x`` is the pseudo-inverse's: what of ``b`` lies outside the range is
            ignored, ``x`` has no part there.
        stop: when to stop.
        on_failure: ``"raise"`` or ``"nan"``.

    Raises:
        UsageError: for an unknown method or way to fail, and a projection of an operator that is not symmetric.

    **Source**: M. B. Giles, "An extended collection of matrix derivative results" (2008), section 2.3.1.
    """

    apply: Callable[[Tree, Tensor], Tensor]
    axes: int
    symmetric: bool = True
    method: str | None = None
    preconditioner: Callable[[Tree], Operator] | None = None
    project: Callable[[Tree, Tensor], Tensor] | None = None
    stop: Stopping = Stopping()  # noqa: RUF009 - a frozen value
    on_failure: str = "raise"

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise UsageError(f"the method is one of {', '.join(METHODS)}; found {self.method!r}.")
        if self.on_failure not in ON_FAILURE:
            raise UsageError(f'on_failure is "raise" or "nan"; found {self.on_failure!r}.')
        if self.project is not None and not self.symmetric:
            raise UsageError(
                "project belongs to symmetric operators: of others the range and the range of the transpose differ."
            )

    def solve(self, theta: Tree, right: Tensor, guess: Tensor | None = None) -> Tensor:
        """``x``, of the shape of ``b``.

        Args:
            theta: what the operator depends on.
            right: ``b``, ``(..., *axes)``, with all the scenarios (it is not broadcast against ``theta``).
            guess: where to start; the answer depends on it within the tolerance only, its derivative not at all.

        Raises:
            NotConverged: with ``on_failure="raise"``, with a sentence that says how far it came.
            UsageError: if the operator uses a tensor that requires a gradient and is no leaf of ``theta``.
        """
        flat, build = tree.split_tensors(theta)
        system = _System(self, build)
        _refuse_captured(system, right, tuple(flat))
        start = torch.zeros_like(right) if guess is None else guess.detach().expand_as(right)
        found: Tensor = _Solve.apply(system, right, start, *flat)
        return found

    def solved(self, theta: Tree, right: Tensor, guess: Tensor | None = None) -> Solved:
        """How the solve went, and its solution; not differentiable."""
        flat, build = tree.split_tensors(theta)
        with torch.no_grad():
            return _System(self, build).solved(right.detach(), guess, tuple(leaf.detach() for leaf in flat))


@dataclass(frozen=True)
class _System:
    """A solver over a flat tuple of tensors, perhaps transposed, perhaps lifted over a further leading axis."""

    solver: LinearSolver
    build: Callable[[Leaves], Tree]
    transposed: bool = False
    lifted: tuple[
        tuple[int | None, ...], ...
    ] = ()  # for each vmap, innermost first, the axis of each leaf of theta

    def map(self, function: Callable[..., Tensor], *fields: Tensor, theta: Leaves) -> Tensor:
        """``function(theta, *fields)`` under the vmaps this system was lifted over."""

        def flat(fields: tuple[Tensor, ...], theta: Leaves) -> Tensor:
            return function(self.build(theta), *fields)

        for axes in self.lifted:
            flat = torch.vmap(flat, in_dims=(0, axes))
        return flat(fields, theta)

    def apply(self, theta: Leaves, field: Tensor) -> Tensor:
        """``A x``, or ``A^T x``."""
        if self.transposed:
            pull = torch.func.vjp(lambda x: self.map(self.solver.apply, x, theta=theta), field)[1]
            found: Tensor = pull(field)[0]
            return found
        return self.map(self.solver.apply, field, theta=theta)

    def project(self, theta: Leaves, field: Tensor) -> Tensor:
        project = self.solver.project
        return field if project is None else self.map(project, field, theta=theta)

    def preconditioner(self, theta: Leaves) -> Operator | None:
        """``M`` (or its transpose), projected."""
        make = self.solver.preconditioner
        if make is None:
            return None

        def anew(rest: Tensor) -> Tensor:
            return self.map(lambda parts, r: make(parts)(r), rest, theta=theta)

        # a preconditioner is an object that vmap cannot hand out: there it is made anew in each application
        plain: Operator = anew if self.lifted else make(self.build(theta))
        if self.transposed:

            def turned(rest: Tensor) -> Tensor:
                found: Tensor = torch.func.vjp(plain, rest)[1](rest)[0]
                return found

            return turned
        return lambda rest: self.project(theta, plain(rest))

    def solved(self, right: Tensor, guess: Tensor | None, theta: Leaves) -> Solved:
        solver = self.solver
        method = METHODS[solver.method or ("cg" if solver.symmetric else "bicgstab")]
        return method(
            lambda x: self.apply(theta, x),
            self.project(theta, right),
            solver.axes,
            preconditioner=self.preconditioner(theta),
            guess=None if guess is None else self.project(theta, guess),
            stop=solver.stop,
        )


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(system: _System, right: Tensor, guess: Tensor, *theta: Tensor) -> Tensor:
        found = system.solved(right, guess, theta)
        return found.or_nan() if system.solver.on_failure == "nan" else found.solution

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.system, _, _, *theta = inputs
        ctx.save_for_backward(output, *theta)
        ctx.save_for_forward(output, *theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found, *theta = ctx.saved_tensors
        system: _System = ctx.system
        opposite = system if system.solver.symmetric else replace(system, transposed=not system.transposed)
        of_right = _Solve.apply(opposite, gradients[0], torch.zeros_like(gradients[0]), *theta)
        if not theta or not any(ctx.needs_input_grad[3:]):
            return (None, of_right, None, *(None for _ in theta))
        pull = torch.func.vjp(lambda *leaves: system.apply(leaves, found), *theta)[1]
        return (None, of_right, None, *pull(-of_right))

    @staticmethod
    def jvp(
        ctx: Any, _: None, of_right: Tensor | None, of_guess: Tensor | None, *tangents: Tensor | None
    ) -> Tensor:
        found, *theta = ctx.saved_tensors
        system: _System = ctx.system
        change = torch.zeros_like(found) if of_right is None else of_right
        if any(tangent is not None for tangent in tangents):
            full = tuple(
                torch.zeros_like(leaf) if tangent is None else tangent
                for leaf, tangent in zip(theta, tangents, strict=True)
            )
            # the transpose of the transpose: torch.func.jvp cannot stand inside another forward mode
            pull = torch.func.vjp(lambda *leaves: system.apply(leaves, found), *theta)[1]
            change = change - torch.func.vjp(pull, torch.zeros_like(found))[1](full)[0]
        answer: Tensor = _Solve.apply(system, change, torch.zeros_like(change), *theta)
        return answer

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], system: _System, *tensors: Tensor) -> tuple[Tensor, int]:
        moved = [
            tensor if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in zip(tensors, in_dims[1:], strict=True)
        ]
        right, guess = (
            field if axis is not None else field.expand(info.batch_size, *field.shape)
            for field, axis in zip(moved[:2], in_dims[1:3], strict=True)
        )
        batched = tuple(None if axis is None else 0 for axis in in_dims[3:])
        lifted = replace(system, lifted=(*system.lifted, batched))
        return _Solve.apply(lifted, right, guess, *moved[2:]), 0


def _refuse_captured(system: _System, right: Tensor, theta: Leaves) -> None:
    """Apply the operator to constants: if the result requires a gradient, a tensor came in by the back door."""
    if not torch.is_grad_enabled():
        return
    if system.apply(tuple(leaf.detach() for leaf in theta), right.detach()).requires_grad:
        raise UsageError(
            "the operator of a linear solve uses a tensor that requires a gradient but is no leaf of theta, and would "
            "silently get none: hand it in as part of theta."
        )


__all__ = ["LinearSolver", "NotConverged"]
