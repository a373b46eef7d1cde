"""Blocks of float32 columns that stay in the processor's registers, for kernels that Numba compiles.

From a loop over columns in a loop over rows, a compiler makes code that reads and writes the sums anew for every row.
With blocks a kernel says the other order: take a block of columns, add all rows to it, write it once.

A block is loaded with the columns `whole(width)`, or with `first(width, n)`, of which only the first n are read and
written; its other columns are 0. Operators +, -, *, / take blocks and float32 numbers.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

WIDE, NARROW = 64, 16
"""Widths of blocks: rows are added to a wide one; of narrow ones several fit in registers side by side."""

FAST = ("reassoc", "contract", "nsz", "arcp", "afn")
"""What the compiler may do to sums and products; not "nnan" and "ninf", because what is not finite must show."""

_intrinsic: Any = extending.intrinsic
_intrinsic_of_literals: Any = extending.intrinsic(prefer_literal=True)
_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class _Columns(types.Type):
    """Numba's type of `whole(width)` and `first(width, n)`; the value of the latter is a mask."""

    def __init__(self, width: int, *, is_whole: bool) -> None:
        super().__init__(f"{'whole' if is_whole else 'first'}_columns({width})")
        self.width, self.is_whole = width, is_whole


class _Block(types.Type):
    def __init__(self, width: int) -> None:
        super().__init__(f"block({width})")
        self.width = width


def _vector(kind: Any, width: int) -> Any:
    return ir.VectorType(kind, width)


@extending.register_model(_Columns)
class _ColumnsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vector(ir.IntType(1), kind.width))


@extending.register_model(_Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _vector(_FLOAT, kind.width))


def _repeat(builder: Any, scalar: Any, width: int) -> Any:
    anything = ir.Constant(_vector(scalar.type, width), ir.Undefined)
    lane_0 = builder.insert_element(anything, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(lane_0, anything, ir.Constant(_vector(_INT, width), None))


def _constant(kind: Any, values: list[Any]) -> Callable[..., Any]:
    """Generator of code for these values."""

    def generate(*_: Any) -> Any:
        return ir.Constant(_vector(kind, len(values)), values)

    return generate


def _add_operator(symbol: Any, instruction: str) -> None:
    pairs = [
        pair
        for block in (_Block(WIDE), _Block(NARROW))
        for pair in ((block, block), (block, types.float32), (types.float32, block))
    ]
    cases = [signature(next(kind for kind in pair if isinstance(kind, _Block)), *pair) for pair in pairs]
    declare: Any = infer_global(symbol)
    declare(type(f"Block_{symbol.__name__}", (ConcreteTemplate,), {"key": symbol, "cases": cases}))

    def lower(_context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        operands = [
            argument if isinstance(kind, _Block) else _repeat(builder, argument, sig.return_type.width)
            for kind, argument in zip(sig.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*operands, flags=FAST)

    for case in cases:
        lower_builtin(symbol, *case.args)(lower)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _add_operator(_symbol, _instruction)


@_intrinsic_of_literals
def whole(_typing: Any, width: Any) -> Any:
    """Columns of a block of which all exist."""
    kind = _Columns(width.literal_value, is_whole=True)
    return kind(width), _constant(ir.IntType(1), [1] * kind.width)


@_intrinsic_of_literals
def first(_typing: Any, width: Any, _n: Any) -> Any:
    """Columns of a block of which the first n exist; n is at most the width."""
    kind = _Columns(width.literal_value, is_whole=False)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes = ir.Constant(_vector(_LONG, kind.width), list(range(kind.width)))
        return builder.icmp_signed("<", lanes, _repeat(builder, arguments[1], kind.width))

    return kind(width, types.int64), generate


@_intrinsic
def zeros(_typing: Any, columns: Any) -> Any:
    """A block of zeros."""
    block = _Block(columns.width)
    return block(columns), _constant(_FLOAT, [0.0] * block.width)


def _address(context: Any, builder: Any, kind: Any, place: list[Any], vector: Any) -> Any:
    """Address of table[row, column], or of table[column] where the table has one dimension."""
    table, row, column = place
    array = context.make_array(kind)(context, builder, table)
    at = column
    if kind.ndim == 2:
        at = builder.add(builder.mul(row, builder.extract_value(array.shape, 1)), column)
    return builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer())


def _call(builder: Any, name: str, kind: Any, arguments: list[Any], flags: tuple[str, ...] = ()) -> Any:
    function_type = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments, fastmath=flags)


def _load(context: Any, builder: Any, sig: Any, arguments: Any, element: Any, suffix: str) -> Any:
    columns, table = sig.args[:2]
    vector = _vector(element, columns.width)
    pointer = _address(context, builder, table, arguments[1:], vector)
    align = table.dtype.bitwidth // 8
    if columns.is_whole:
        return builder.load(pointer, align=align)
    name = f"llvm.masked.load.v{columns.width}{suffix}.p0"
    return _call(builder, name, vector, [pointer, ir.Constant(_INT, align), arguments[0], ir.Constant(vector, None)])


@_intrinsic
def load(_typing: Any, columns: Any, table: Any, _row: Any, _column: Any) -> Any:
    """The block table[row, column : column + width] of a C-contiguous float32 table; a vector is a table of row 0."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _load(context, builder, sig, arguments, _FLOAT, "f32")

    return _Block(columns.width)(columns, table, types.int64, types.int64), generate


@_intrinsic
def load_bfloat16(_typing: Any, columns: Any, table: Any, _row: Any, _column: Any) -> Any:
    """Do `load` from a table of bfloat16s, whose type is uint16."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        halves = _load(context, builder, sig, arguments, ir.IntType(16), "i16")
        words = builder.zext(halves, _vector(_INT, columns.width))
        shifted = builder.shl(words, ir.Constant(words.type, [16] * columns.width))
        return builder.bitcast(shifted, _vector(_FLOAT, columns.width))

    return _Block(columns.width)(columns, table, types.int64, types.int64), generate


def _store(
    context: Any, builder: Any, columns: Any, table: Any, mask: Any, value: Any, place: list[Any], suffix: str
) -> None:
    pointer = _address(context, builder, table, place, value.type)
    align = table.dtype.bitwidth // 8
    if columns.is_whole:
        builder.store(value, pointer, align=align)
    else:
        name = f"llvm.masked.store.v{columns.width}{suffix}.p0"
        _call(builder, name, ir.VoidType(), [value, pointer, ir.Constant(_INT, align), mask])


@_intrinsic
def store(_typing: Any, columns: Any, block: Any, table: Any, _row: Any, _column: Any) -> Any:
    """Write a block to where `load` reads it."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        mask, value, *place = arguments
        _store(context, builder, sig.args[0], sig.args[2], mask, value, place, "f32")
        return context.get_dummy_value()

    return types.void(columns, block, table, types.int64, types.int64), generate


@_intrinsic
def store_bfloat16(_typing: Any, columns: Any, block: Any, table: Any, _row: Any, _column: Any) -> Any:
    """Write a block to a table of bfloat16s, rounded to nearest, ties to even; returns the rounded block."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        mask, value, *place = arguments
        words = builder.bitcast(value, _vector(_INT, columns.width))

        def each(number: int) -> Any:
            return ir.Constant(words.type, [number] * columns.width)

        odd = builder.and_(builder.lshr(words, each(16)), each(1))
        top = builder.lshr(builder.add(builder.add(words, each(0x7FFF)), odd), each(16))
        halves = builder.trunc(top, _vector(ir.IntType(16), columns.width))
        _store(context, builder, sig.args[0], sig.args[2], mask, halves, place, "i16")
        return builder.bitcast(builder.shl(top, each(16)), value.type)

    return block(columns, block, table, types.int64, types.int64), generate


@_intrinsic
def total(_typing: Any, block: Any) -> Any:
    """Sum of a block's columns."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{block.width}f32"
        return _call(builder, name, _FLOAT, [ir.Constant(_FLOAT, 0.0), arguments[0]], FAST)

    return types.float32(block), generate


@_intrinsic
def size(_typing: Any, block: Any) -> Any:
    """Absolute values of a block."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.fabs.v{block.width}f32", arguments[0].type, [arguments[0]])

    return block(block), generate


def _compared(symbol: str) -> Callable[..., Any]:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        found = builder.fcmp_ordered(symbol, arguments[0], _repeat(builder, arguments[1], WIDE))
        return builder.bitcast(found, ir.IntType(WIDE))

    return generate


@_intrinsic
def above(_typing: Any, _block: Any, _floor: Any) -> Any:
    """One bit for each column of a wide block: whether it is above a number, which not-a-number never is."""
    return types.uint64(_Block(WIDE), types.float32), _compared(">")


@_intrinsic
def equal(_typing: Any, _block: Any, _number: Any) -> Any:
    """One bit for each column of a wide block: whether it equals a number."""
    return types.uint64(_Block(WIDE), types.float32), _compared("==")


@_intrinsic
def first_bit(_typing: Any, _bits: Any) -> Any:
    """Position of the lowest bit that is set; there must be one."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_intrinsic
def n_bits(_typing: Any, _bits: Any) -> Any:
    """Number of bits that are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@_intrinsic
def largest(_typing: Any, block: Any) -> Any:
    """Largest value of a block; not-a-number does not count."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.vector.reduce.fmax.v{block.width}f32", _FLOAT, [arguments[0]])

    return types.float32(block), generate


def _pack(context: Any, builder: Any, kind: Any, bits: Any, values: Any, table: Any, at: Any) -> Any:
    """Write the values whose bit is set side by side, into a vector of type `kind` from place `at` on.

    They are packed in registers and then written: LLVM's masked.compressstore is microcode on some processors (more
    than 100 cycles each on AMD's Zen 4).
    """
    start = context.make_array(kind)(context, builder, table).data
    vector, mask, halves = _vector(values.type.element, NARROW), _vector(ir.IntType(1), NARROW), ir.IntType(NARROW)
    suffix = f"v{NARROW}{'f32' if isinstance(kind.dtype, types.Float) else 'i32'}"
    anything = ir.Constant(values.type, ir.Undefined)
    for first in range(0, WIDE, NARROW):
        lanes = ir.Constant(_vector(_INT, NARROW), list(range(first, first + NARROW)))
        part = builder.shuffle_vector(values, anything, lanes)
        bits_here = builder.trunc(builder.lshr(bits, ir.Constant(bits.type, first)), halves)
        n = builder.zext(builder.ctpop(bits_here), bits.type)
        packed = _call(
            builder,
            f"llvm.experimental.vector.compress.{suffix}",
            vector,
            [part, builder.bitcast(bits_here, mask), ir.Constant(vector, ir.Undefined)],
        )
        kept = builder.trunc(builder.not_(builder.shl(ir.Constant(bits.type, -1), n)), halves)
        pointer = builder.bitcast(builder.gep(start, [at]), vector.as_pointer())
        align = ir.Constant(_INT, kind.dtype.bitwidth // 8)
        _call(
            builder,
            f"llvm.masked.store.{suffix}.p0",
            ir.VoidType(),
            [packed, pointer, align, builder.bitcast(kept, mask)],
        )
        at = builder.add(at, n)
    return context.get_dummy_value()


@_intrinsic
def pack(_typing: Any, _bits: Any, block: Any, table: Any, _at: Any) -> Any:
    """Write the values of a wide block whose bit is set side by side, into a float32 vector from place `at` on."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _pack(context, builder, sig.args[2], *arguments)

    return types.void(types.uint64, block, table, types.int64), generate


@_intrinsic
def pack_places(_typing: Any, _bits: Any, _start: Any, table: Any, _at: Any) -> Any:
    """Write `start` + the positions of the bits that are set side by side, into an int32 vector from place `at` on."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        bits, start, vector, at = arguments
        lanes = ir.Constant(_vector(_INT, WIDE), list(range(WIDE)))
        places = builder.add(lanes, _repeat(builder, builder.trunc(start, _INT), WIDE))
        return _pack(context, builder, sig.args[2], bits, places, vector, at)

    return types.void(types.uint64, types.int64, table, types.int64), generate


@_intrinsic
def pack_from(_typing: Any, columns: Any, _bits: Any, source: Any, _start: Any, table: Any, _at: Any) -> Any:
    """Do `pack` for a block of a float32 or int32 vector, from `start` on.

    `table` may be the same vector if `at` is not after `start`.
    """

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        mask, bits, vector, start, target, at = arguments
        kind = sig.args[2]
        element, suffix = (_FLOAT, "f32") if isinstance(kind.dtype, types.Float) else (_INT, "i32")
        place = [mask, vector, ir.Constant(_LONG, 0), start]
        values = _load(context, builder, types.void(columns, kind), place, element, suffix)
        return _pack(context, builder, sig.args[4], bits, values, target, at)

    return types.void(columns, types.uint64, source, types.int64, table, types.int64), generate
