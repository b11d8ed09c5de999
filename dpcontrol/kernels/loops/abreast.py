"""Numbers of several rows side by side in one vector register, as a type for compiled loops.

Numba's own vectoriser looks at innermost loops that are long; a loop over eight rows is unrolled before it comes. Here
the register is written down instead: ``load`` reads as many neighbours as ``lanes`` (a tuple, of which only the length
counts) has entries, ``+ - * /`` act on all of them, ``less(c, a, b)`` is ``c - a b`` and ``plus(c, a, b)`` is ``c + a
b``, rounded once where the machine can. Machines with shorter registers take several for one.

Arrays are flat and contiguous, and places in them are not checked. A change of this file needs one of the file that
uses it, too: Numba's cache on disk looks at that one only.
"""

# mypy: disable-error-code="no-untyped-def,misc,attr-defined,arg-type"

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model


class Abreast(types.Type):
    """The type of a register of ``width`` numbers of one ``kind``."""

    def __init__(self, kind: Any, width: int) -> None:
        self.kind, self.width = kind, width
        super().__init__(name=f"Abreast({kind}, {width})")


@register_model(Abreast)
class _Register(PrimitiveModel):
    def __init__(self, manager, of) -> None:
        kind = ir.DoubleType() if of.kind == types.float64 else ir.FloatType()
        super().__init__(manager, of, ir.VectorType(kind, of.width))


def _place(context, builder, array_type, array, index):
    """The address of a flat array's entry, as that of a register."""
    struct = context.make_array(array_type)(context, builder, array)
    return builder.gep(struct.data, [index])


def _index(builder, index_type, value):
    return value if index_type.bitwidth == 64 else builder.sext(value, cgutils.intp_t)


@intrinsic
def load(typing, array, index, lanes):
    """The register at a place of a flat array."""
    register = Abreast(array.dtype, len(lanes))

    def make(context, builder, types_, values):
        numbers, place, _ = values
        address = _place(context, builder, array, numbers, _index(builder, index, place))
        vector = context.get_value_type(register)
        found = builder.load(builder.bitcast(address, vector.as_pointer()))
        found.align = array.dtype.bitwidth // 8
        return found

    return register(array, index, lanes), make


@intrinsic
def store(typing, array, index, register):
    """Write a register to a place of a flat array."""

    def make(context, builder, types_, values):
        numbers, place, value = values
        address = _place(context, builder, array, numbers, _index(builder, index, place))
        written = builder.store(value, builder.bitcast(address, value.type.as_pointer()))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, register), make


@intrinsic
def spread(typing, number, lanes):
    """The same number in all lanes."""
    register = Abreast(number, len(lanes))

    def make(context, builder, types_, values):
        vector = context.get_value_type(register)
        found = ir.Constant(vector, ir.Undefined)
        for lane in range(register.width):
            found = builder.insert_element(found, values[0], ir.Constant(ir.IntType(32), lane))
        return found

    return register(number, lanes), make


def _machine(builder, name, *registers):
    """Call LLVM's own function of registers."""
    kind = registers[0].type
    bits = 64 if isinstance(kind.element, ir.DoubleType) else 32
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(registers)), f"llvm.{name}.v{kind.count}f{bits}"
    )
    return builder.call(function, registers)


def _fused(negative):
    def make(context, builder, types_, values):
        c, a, b = values
        return _machine(builder, "fmuladd", builder.fneg(a) if negative else a, b, c)

    return make


@intrinsic
def less(typing, c, a, b):
    """``c - a b``."""
    return c(c, a, b), _fused(True)


@intrinsic
def plus(typing, c, a, b):
    """``c + a b``."""
    return c(c, a, b), _fused(False)


@intrinsic
def root(typing, register):
    """The square root."""

    def make(context, builder, types_, values):
        return _machine(builder, "sqrt", *values)

    return register(register), make


class _Arithmetic(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Abreast) and args[0] == args[1]:
            return signature(args[0], *args)
        return None


def _define(operation, instruction):
    infer_global(operation)(type(f"_{instruction}", (_Arithmetic,), {"key": operation}))

    @lower_builtin(operation, Abreast, Abreast)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_operation, _instruction)
