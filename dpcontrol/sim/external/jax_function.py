"""A function written in JAX as a function of torch tensors, differentiable to any order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.external.jax_call import JaxCall, call
from dpcontrol.tree import Shell, Tree


@dataclass(frozen=True)
class JaxFunction:
    """``function``, written in JAX, called with torch tensors: compiled by ``jax.jit``, its gradient JAX's own VJP.

    It stands wherever a function of tensors is asked for: ``control_problem(JaxFunction(step), ...)``,
    ``FunctionSimulator(JaxFunction(step), dt=0.1)``, ``ODE(JaxFunction(rate), dt=0.1)``,
    ``Steady(JaxFunction(solve))``, ``cost(JaxFunction(stage))``. Derivatives of every order, forward mode and
    ``torch.func`` transforms work: each is the JAX transform of the same name, compiled when it is first asked for.

    **Layout**: as everywhere, the leading axis is the scenario axis; ``jax.vmap`` makes a function of one scenario
    batched. Tensors become arrays at their places in tuples, lists and dicts; numbers such as ``t`` become scalars of
    the first tensor's dtype. The function is compiled once for each set of shapes.

    **Precision**: the tensors'. float64 is computed in float64 also where JAX's own switch ``jax_enable_x64`` is off:
    it is on during the call. Arrays that the function captured and that were made in single precision are refused.

    **Device**: the tensors'. On the CPU arrays share their memory with the tensors, on a GPU they pass by DLPack.

    **Cost** of a call beside the compiled function, measured on one busy core: 60 us, 0.2 ms with its VJP (torch's own
    sum of two tensors: 1 us, so a step should be worth the call); a copy of 8 MB of inputs is not seen in it
    (``tests/benchmarks/external_overhead.py``).

    Args:
        function: pure, traceable by ``jax.jit``; returns an array, or a tuple, list or dict of arrays.

    Raises:
        UsageError: if JAX is not installed; in a call, for complex tensors, a GPU that this JAX does not know,
            captured arrays of single precision in a float64 call, or a result that holds something else than arrays.
    """

    function: Callable[..., Any]
    _calls: dict[tuple[Shell, bool], JaxCall] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        require_jax()
        if not callable(self.function):
            raise UsageError(
                f"JaxFunction wraps a function written in JAX; found {type(self.function).__name__}."
            )

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function: simulators look at it to see which keywords are taken."""
        return inspect.signature(self.function)

    def __reduce__(self) -> tuple[Any, ...]:
        return JaxFunction, (self.function,)  # compiled code stays in its process

    def __call__(self, *arguments: Tree, **keywords: Tree) -> Tree:
        """The function's result, as tensors."""
        tensors, rest = tree.shell((arguments, keywords))
        if any(isinstance(other, float) for other in rest.others):
            tensors, rest = tree.shell(_numbers_as_tensors((arguments, keywords), tensors))
        key = rest, any(tensor.dtype == torch.float64 for tensor in tensors)
        known = self._calls.get(key)
        if known is None:
            known = JaxCall(_Flat(self.function, rest))
            known.refuse_single(tensors)
            self._calls[key] = known
        return known.function.built(call(known, tensors))


class _Flat:
    """The function of a flat list of arrays, returning a flat list of arrays."""

    def __init__(self, function: Callable[..., Any], inputs: Shell) -> None:
        self.inputs = inputs
        self._function = function
        self._structure: Tree = None

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        """Runs while JAX traces; what the result looks like is noted on the way, for :meth:`built`."""
        arguments, keywords = self.inputs.fill(arrays)
        result = self._function(*arguments, **keywords)
        leaves = tree.leaves(result)
        wrong = [leaf for leaf in leaves if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape"))]
        if wrong or not leaves:
            found = type(wrong[0]).__name__ if wrong else "nothing"
            raise UsageError(
                f"a JaxFunction returns arrays, or tuples, lists and dicts of them; found {found}."
            )
        places = iter(range(len(leaves)))
        self._structure = tree.map(lambda _: next(places), result)
        return tuple(leaves)

    def built(self, outputs: tuple[torch.Tensor, ...]) -> Tree:
        """The outputs in the function's own structure."""
        if isinstance(self._structure, int):
            return outputs[0]
        return tree.map(lambda place: outputs[place], self._structure)


def require_jax() -> Any:
    """The module ``jax``.

    Raises:
        UsageError: if it cannot be imported.
    """
    try:
        import jax
    except ImportError as error:
        raise UsageError(
            "functions written in JAX need JAX, which is not installed here: pip install 'dpcontrol[external]'."
        ) from error
    return jax


def _numbers_as_tensors(value: Tree, tensors: list[torch.Tensor]) -> Tree:
    """Numbers as tensors like the first one: constants in compiled code would be those of the first call."""
    if not tensors:
        return value
    dtype, device = (tensors[0].dtype if tensors[0].is_floating_point() else None), tensors[0].device

    def convert(leaf: Any) -> Any:
        return torch.tensor(leaf, dtype=dtype, device=device) if isinstance(leaf, float) else leaf

    return tree.map(convert, value)
