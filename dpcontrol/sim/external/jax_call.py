"""One autograd Function that calls JAX. Its own derivatives are calls of the same kind, so that all orders compose.

A :class:`JaxCall` is a function of flat lists of arrays. Its pullback, its pushforward and its vectorised version are
JAX transforms of it and themselves such functions; autograd asks for them by way of the same Function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dpcontrol.results import UsageError

Arrays = tuple[Any, ...]


class JaxCall:
    """A JAX function ``(*arrays) -> tuple of arrays``, compiled, and its derivatives, made when first asked for."""

    def __init__(self, function: Callable[..., Arrays]) -> None:
        import jax

        self.function: Any = function
        self._jitted = jax.jit(function)
        self._derived: dict[Any, JaxCall] = {}
        self._elsewhere = jax.default_backend() != "cpu"

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The function of plain tensors, without a graph."""
        with _as_wanted(tensors, self._elsewhere):
            results = self._jitted(*[_to_jax(tensor) for tensor in tensors])
        return _to_torch(results, tensors)

    def refuse_single(self, tensors: Sequence[Tensor]) -> None:
        """Refuse captured arrays of single precision where the answer is to be double.

        Raises:
            UsageError: if there are any.
        """
        import jax

        if not any(tensor.dtype == torch.float64 for tensor in tensors):
            return
        with _as_wanted(tensors, self._elsewhere):
            # shapes are all that tracing needs, and all that a tensor inside a transform of torch can give
            shapes = [
                jax.ShapeDtypeStruct(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                for tensor in tensors
            ]
            captured = jax.make_jaxpr(self.function)(*shapes).consts
        if any(str(getattr(value, "dtype", "")) == "float32" for value in captured):
            raise UsageError(
                "a JAX function called in float64 has captured arrays of float32, whose missing digits would go "
                "unnoticed: make them after jax.config.update('jax_enable_x64', True), or pass float32 states."
            )

    def pullback(self, wanted: tuple[bool, ...]) -> JaxCall:
        """``(*inputs, *cotangents) -> gradients of the wanted inputs``; cotangents of floating outputs only."""
        import jax

        places = [i for i, want in enumerate(wanted) if want]

        def pull(*arrays: Any) -> Arrays:
            inputs, cotangents = arrays[: len(wanted)], arrays[len(wanted) :]
            function = _of(self.function, inputs, places)
            return tuple(jax.vjp(function, *(inputs[i] for i in places))[1](tuple(cotangents)))

        return self._once(("pullback", wanted), pull)

    def pushforward(self, moved: tuple[bool, ...]) -> JaxCall:
        """``(*inputs, *tangents of the moved inputs) -> tangents of the floating outputs``."""
        import jax

        places = [i for i, move in enumerate(moved) if move]

        def push(*arrays: Any) -> Arrays:
            inputs, tangents = arrays[: len(moved)], arrays[len(moved) :]
            function = _of(self.function, inputs, places)
            return tuple(jax.jvp(function, tuple(inputs[i] for i in places), tuple(tangents))[1])

        return self._once(("pushforward", moved), push)

    def mapped(self, axes: tuple[int | None, ...]) -> JaxCall:
        """Over one more axis of the inputs, which comes first in every output."""
        import jax

        return self._once(("mapped", axes), jax.vmap(self.function, in_axes=axes))

    def _once(self, key: Any, function: Callable[..., Arrays]) -> JaxCall:
        """Compiled code belongs to a function object, so that each derivative is made once."""
        if key not in self._derived:
            self._derived[key] = JaxCall(function)
        return self._derived[key]


def call(function: JaxCall, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The function of tensors, differentiable."""
    if not tensors:
        raise UsageError(
            "a JaxFunction is called with at least one tensor, which says dtype and device; found none."
        )
    if any(tensor.is_complex() for tensor in tensors):
        raise UsageError(
            "JAX and torch differ in what the gradient of a complex number is: pass real and imaginary parts."
        )
    return _Call.apply(function, *tensors)


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(function: JaxCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        return function.run(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.floating = [leaf.is_floating_point() for leaf in output]
        ctx.mark_non_differentiable(*(leaf for leaf in output if not leaf.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        wanted = tuple(
            need and tensor.is_floating_point()
            for need, tensor in zip(ctx.needs_input_grad[1:], tensors, strict=True)
        )
        given = [c for c, floating in zip(cotangents, ctx.floating, strict=True) if floating]
        found = iter(_Call.apply(ctx.function.pullback(wanted), *tensors, *given))
        return (None, *(next(found) if want else None for want in wanted))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        moved = tuple(t is not None and x.is_floating_point() for t, x in zip(tangents, tensors, strict=True))
        given = [tangent for tangent, move in zip(tangents, moved, strict=True) if move]
        found = iter(_Call.apply(ctx.function.pushforward(moved), *tensors, *given))
        return tuple(next(found) if floating else None for floating in ctx.floating)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: JaxCall, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        found = _Call.apply(function.mapped(tuple(in_dims[1:])), *tensors)
        return found, (0,) * len(found)


def _of(function: Callable[..., Arrays], inputs: Arrays, places: list[int]) -> Callable[..., Arrays]:
    """The function of some of its inputs, the others held; floating outputs only."""
    import jax.numpy as jnp

    def partial(*chosen: Any) -> Arrays:
        filled = list(inputs)
        for place, array in zip(places, chosen, strict=True):
            filled[place] = array
        return tuple(y for y in function(*filled) if jnp.issubdtype(y.dtype, jnp.floating))

    return partial


def _as_wanted(tensors: Sequence[Tensor], elsewhere: bool) -> contextlib.AbstractContextManager[Any]:
    """JAX's precision as the tensors have it, and their device where JAX would take another (``elsewhere``)."""
    import jax

    stack = contextlib.ExitStack()
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        stack.enter_context(jax.enable_x64(True))
    if elsewhere and tensors[0].device.type == "cpu":
        stack.enter_context(jax.default_device(jax.devices("cpu")[0]))
    return stack


def _to_jax(tensor: Tensor) -> Any:
    """An array of the tensor's numbers; on the CPU without a copy wherever JAX finds it well aligned."""
    import jax

    if tensor.device.type == "cpu":
        return tensor.numpy(force=True)  # measured: five times faster into a compiled function than DLPack
    try:
        return jax.dlpack.from_dlpack(tensor.detach().contiguous())
    except RuntimeError as error:
        known = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise UsageError(
            f"the tensors are on {tensor.device}, but this JAX knows only {known}: install a JAX for that device, or "
            "move the initial state to the CPU."
        ) from error


def _to_torch(arrays: Sequence[Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors on the arrays' memory. JAX may hand an input on, or one result twice; autograd may not be given that."""
    taken = {tensor.data_ptr() for tensor in inputs}
    found = []
    for array in arrays:
        tensor = torch.from_dlpack(array)
        if tensor.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(tensor.data_ptr())
        found.append(tensor)
    return tuple(found)
