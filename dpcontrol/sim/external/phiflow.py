"""A step written with PhiFlow's fields as a function of torch tensors."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dpcontrol import tree
from dpcontrol.results import UsageError
from dpcontrol.sim.external.jax_function import JaxFunction, require_jax
from dpcontrol.tree import Tree

SCENARIOS, INPUTS = "scenarios", "inputs"
BACKENDS = ("jax", "torch")


@dataclass(frozen=True)
class PhiFlowStep:
    """``function(field, control) -> field``, written with PhiFlow, called with torch tensors.

    It stands wherever a step function is asked for: ``control_problem(PhiFlowStep(step, like=grid), ...)`` or
    ``FunctionSimulator(PhiFlowStep(step, like=grid), dt=0.1)``. With the backend ``jax`` the whole step is compiled and
    differentiated by JAX (see :class:`~dpcontrol.sim.external.jax_function.JaxFunction`, whose remarks on precision,
    orders of differentiation and GPUs hold here as well). With ``torch`` PhiFlow runs eagerly on torch's own tensors,
    which is slower, and some of its operations fail there.

    In PhiFlow 3.4 a step with a linear solve (pressure projection, implicit diffusion) can neither be compiled by JAX
    from outside nor be differentiated on torch. It runs on torch and is declared a black box:
    ``FunctionSimulator(PhiFlowStep(step, like=..., backend="torch"), differentiable=False)``. Semi-Lagrangian advection
    on a 1-D grid fails on torch and works on JAX. What is posed as differentiable and is not is found out at the door.

    **State**: the values of the fields in ``like``, field by field: ``(scenarios, *cells)`` for a scalar on cell
    centres, ``(scenarios, components, *cells)`` for a vector on cell centres, and for a staggered grid a dict, axis ->
    ``(scenarios, *faces)``, the faces as PhiFlow counts them. PhiFlow sees the scenario axis as a batch dimension.

    **Control**: the same for the fields in ``control``; without that template, ``(scenarios, n)``, which the function
    gets as a PhiFlow tensor with the batch dimension ``scenarios`` and the channel dimension ``inputs``; or ``None``.

    **Parameters** arrive as PhiFlow tensors without dimension or with the batch dimension ``scenarios``, ``t`` as a
    scalar.

    **Precision**: the tensors', also where PhiFlow's own setting is another.

    Tried with PhiFlow 3.4. Compiling a step of Burgers' equation takes about 1 s, its VJP 2 s; each call then costs as
    much as one of :class:`~dpcontrol.sim.external.jax_function.JaxFunction`.

    Args:
        function: ``function(state, control)``, which may also take ``parameters`` and ``t`` by keyword.
        like: a PhiFlow field with the grid and the boundary conditions of the state, or a dict or tuple of such, or a
            function that makes it: files that are read where PhiFlow is not installed cannot make one themselves.
        control: the same for the control.
        backend: ``"jax"`` or ``"torch"``.

    Raises:
        UsageError: if PhiFlow or JAX is not installed, for templates that are no grids, or another backend.
    """

    function: Callable[..., Tree]
    like: Tree
    control: Tree = None
    backend: str = "jax"
    _call: Callable[..., Tree] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UsageError(f"backend must be 'jax' or 'torch'; found {self.backend!r}.")
        require_phiflow(self.backend)
        if not callable(self.function):
            raise UsageError(
                f"PhiFlowStep wraps function(field, control) -> field; found {type(self.function).__name__}."
            )
        like, control = (
            value() if inspect.isfunction(value) else value for value in (self.like, self.control)
        )
        for name, template in (("like", like), ("control", control)):
            _require_grids(name, template, needed=name == "like")
        inner = _Natively(self.function, like, control)
        object.__setattr__(self, "_call", JaxFunction(inner) if self.backend == "jax" else inner)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function: simulators look at it to see which keywords are taken."""
        return inspect.signature(self.function)

    def __reduce__(self) -> tuple[Any, ...]:
        return PhiFlowStep, (self.function, self.like, self.control, self.backend)

    def __call__(self, state: Tree, control: Tree, **keywords: Any) -> Tree:
        """The state after the step, as tensors."""
        return self._call(state, control, **keywords)


@dataclass(frozen=True)
class _Natively:
    """The step of native arrays: those of JAX while it traces, or torch tensors."""

    function: Callable[..., Tree]
    like: Tree
    control: Tree

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def __call__(self, state: Tree, control: Tree, **keywords: Any) -> Tree:
        leaf = tree.leaves(state)[0]
        with _precision_of(leaf):
            acting = control
            if control is not None:
                acting = _inputs(control) if self.control is None else _to_fields(self.control, control)
            given = {name: _keyword(name, value) for name, value in keywords.items()}
            after = self.function(_to_fields(self.like, state), acting, **given)
            return _to_arrays(self.like, after, len(leaf))


def require_phiflow(backend: str) -> None:
    """Load PhiFlow with a backend.

    Raises:
        UsageError: if it cannot be imported.
    """
    if backend == "jax":
        require_jax()
    try:
        with warnings.catch_warnings():  # PhiFlow warns of parts of itself while it is imported
            warnings.simplefilter("ignore", DeprecationWarning)
            importlib.import_module(f"phi.{backend}")
            importlib.import_module("phi.physics.advect")
    except ImportError as error:
        raise UsageError(
            "steps written with PhiFlow need PhiFlow, which is not installed here: pip install 'dpcontrol[external]'."
        ) from error


def _require_grids(name: str, template: Tree, *, needed: bool) -> None:
    from phi.field import Field

    found = tree.leaves(template)
    wrong = [leaf for leaf in found if not (isinstance(leaf, Field) and leaf.is_grid)]
    if wrong or (needed and not found):
        shown = type(wrong[0]).__name__ if wrong else "nothing"
        raise UsageError(
            f"{name} is a CenteredGrid or StaggeredGrid of PhiFlow, or a dict or tuple of such; found {shown}."
        )


@contextlib.contextmanager
def _precision_of(leaf: Any) -> Iterator[None]:
    from phi.math import precision

    with precision(64 if "64" in str(leaf.dtype) else 32):
        yield


def _to_fields(template: Tree, arrays: Tree) -> Tree:
    """PhiFlow fields like the template, with the arrays' values."""
    return tree.map(_to_field, template, arrays)


def _to_field(template: Any, arrays: Any) -> Any:
    from phi.math import batch, channel, dual, spatial, stack, wrap

    axes = template.resolution.names
    if template.is_staggered:
        _require_axes(arrays, axes)
        parts = [wrap(arrays[axis], batch(SCENARIOS), spatial(*axes)) for axis in axes]
        return template.with_values(stack(parts, dual(vector=list(axes))))
    components = template.values.shape.channel
    _require_ndim(arrays, 1 + len(axes) + bool(components), template)
    if components:
        named = channel(**{components.name: list(components.item_names[0] or range(components.size))})
        return template.with_values(wrap(arrays, batch(SCENARIOS), named, spatial(*axes)))
    return template.with_values(wrap(arrays, batch(SCENARIOS), spatial(*axes)))


def _require_axes(arrays: Any, axes: tuple[str, ...]) -> None:
    if not isinstance(arrays, Mapping) or set(arrays) != set(axes):
        raise UsageError(
            f"the values of a staggered grid are a dict with the entries {', '.join(axes)}; found "
            f"{tree.describe(arrays)}."
        )


def _require_ndim(array: Any, wanted: int, template: Any) -> None:
    if getattr(array, "ndim", None) != wanted:
        found = tuple(array.shape) if hasattr(array, "shape") else type(array).__name__
        raise UsageError(
            f"the values of a field {template.values.shape} are (scenarios, components if any, *cells), {wanted} axes; "
            f"found {found}."
        )


def _to_arrays(template: Tree, fields: Tree, scenarios: int) -> Tree:
    """The values of fields like the template."""
    return tree.map(lambda like, found: _to_array(like, found, scenarios), template, fields)


def _to_array(template: Any, found: Any, scenarios: int) -> Any:
    from phi.field import Field
    from phi.math import batch, expand

    if not isinstance(found, Field):
        raise UsageError(f"a PhiFlow step returns fields like its state; found {type(found).__name__}.")
    axes = template.resolution.names
    values = expand(found.values, batch(**{SCENARIOS: scenarios}))
    if template.is_staggered:
        return {axis: values[{"~vector": axis}].native((SCENARIOS, *axes)) for axis in axes}
    components = template.values.shape.channel.names
    return values.native((SCENARIOS, *components, *axes))


def _inputs(control: Any) -> Any:
    from phi.math import batch, channel, wrap

    if getattr(control, "ndim", None) != 2:
        raise UsageError(
            "without a template the control of a PhiFlow step is a tensor (scenarios, inputs); found "
            f"{tree.describe(control)}: give control=..., a grid, for a field."
        )
    return wrap(control, batch(SCENARIOS), channel(INPUTS))


def _keyword(name: str, value: Any) -> Any:
    from phi.math import batch, wrap

    def parameter(leaf: Any) -> Any:
        return wrap(leaf) if leaf.ndim == 0 else wrap(leaf, batch(SCENARIOS)) if leaf.ndim == 1 else leaf

    if name == "parameters":
        return tree.map(parameter, value)
    return wrap(value) if name == "t" and isinstance(value, Tensor) else value
