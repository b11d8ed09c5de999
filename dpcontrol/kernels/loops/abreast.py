"""Numbers of several rows side by side in one vector register, as a type for compiled loops.

Numba's own vectoriser looks at innermost loops that are long; a loop over eight rows is unrolled before it comes. Here
the register is written down instead: ``load`` reads as many neighbours as ``lanes`` (a tuple, of which only the length
counts) has entries, ``+ - * /`` act on all of them, ``less(c, a, b)`` is ``c - a b`` and ``plus(c, a, b)`` is ``c + a
b``, rounded once where the machine can. ``turn`` interleaves rows, or takes them apart again. Machines with shorter
registers take several for one.

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


def _spread(builder, number, vector):
    found = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        found = builder.insert_element(found, number, ir.Constant(ir.IntType(32), lane))
    return found


@intrinsic
def spread(typing, number, lanes):
    """The same number in all lanes."""
    register = Abreast(number, len(lanes))

    def make(context, builder, types_, values):
        return _spread(builder, values[0], context.get_value_type(register))

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


@intrinsic
def positive(typing, register):
    """``max(x, 0)``; NaN stays NaN."""

    def make(context, builder, types_, values):
        zero = ir.Constant(values[0].type, [0.0] * register.width)
        return builder.select(builder.fcmp_ordered("<", values[0], zero), zero, values[0])

    return register(register), make


@intrinsic
def turn(typing, source, begin, stride, rows, target, place, step, factor, lanes):
    """``target[place + i step + v] = factor source[begin + v stride + i]`` for all lanes ``i`` and ``v``.

    Rows from the ``rows``-th on are the last one again. There is a power of two of lanes. A square is read and written
    in whole registers: each pass lays two registers half the square apart one into the other, which turns the highest
    binary digit of a number's place in the square into the lowest; as many passes as a lane's number has digits make
    columns of rows.
    """
    width, kind = len(lanes), Abreast(source.dtype, len(lanes))
    masks = [
        ir.Constant(
            ir.VectorType(ir.IntType(32), width), [w // 2 + w % 2 * width + half for w in range(width)]
        )
        for half in (0, width // 2)
    ]

    def make(context, builder, types_, values):
        first, apart, count, place_, step_ = (
            _index(builder, types_.args[i], values[i]) for i in (1, 2, 3, 5, 6)
        )
        vector, align = context.get_value_type(kind), source.dtype.bitwidth // 8
        last = builder.sub(count, ir.Constant(count.type, 1))

        def address(array_type, array, at):
            found = _place(context, builder, array_type, array, at)
            return builder.bitcast(found, vector.as_pointer())

        square = []
        for v in range(width):
            row = ir.Constant(count.type, v)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            found = builder.load(address(source, values[0], builder.add(first, builder.mul(apart, row))))
            found.align = align
            square.append(found)
        for _ in range(width.bit_length() - 1):
            pairs = zip(square[: width // 2], square[width // 2 :], strict=True)
            square = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in masks]
        all_lanes = _spread(builder, values[7], vector)
        for i, column in enumerate(square):
            at = builder.add(place_, builder.mul(step_, ir.Constant(step_.type, i)))
            written = builder.store(builder.fmul(column, all_lanes), address(target, values[4], at))
            written.align = align
        return context.get_dummy_value()

    return types.void(source, begin, stride, rows, target, place, step, factor, lanes), make


@intrinsic(prefer_literal=True)
def soon(typing, array, index, written):
    """Ask for the memory around a place to come into the second cache, to be read or, if ``written``, written."""

    def make(context, builder, types_, values):
        address = _place(context, builder, array, values[0], _index(builder, index, values[1]))
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        prefetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]), "llvm.prefetch.p0"
        )
        kind, second, of_data = (ir.Constant(i32, n) for n in (int(written.literal_value), 2, 1))
        builder.call(prefetch, [builder.bitcast(address, pointer), kind, second, of_data])
        return context.get_dummy_value()

    return types.void(array, index, written), make


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
