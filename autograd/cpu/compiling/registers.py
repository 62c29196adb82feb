"""Instructions for vectors of 16 float32 numbers (autograd.cpu.registers)."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from autograd.cpu import vector as exponential
from autograd.cpu.registers import LANES

_INT = ir.IntType(32)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)
SUM_AND_PRODUCT = ("contract",)  # lets LLVM fuse them into one instruction


class _Vector(types.Type):
    def __init__(self):
        super().__init__("float32x16")


vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def zeros(typing):
    """16 zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_VECTOR, [0.0] * LANES)

    return vector(), generate


@intrinsic
def broadcast(typing, number):
    """A vector of one number, 16 times."""

    def generate(context, builder, signature, arguments):
        first = builder.insert_element(_UNDEFINED, arguments[0], _INT(0))
        return _shuffle(builder, first, _UNDEFINED, [0] * LANES)

    return vector(types.float32), generate


@intrinsic
def load(typing, matrix, i, j):
    """The 16 numbers of `matrix` from [i, j] on."""

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer(context, builder, signature, arguments, 0), align=4)

    return vector(_rows_of(matrix), types.intp, types.intp), generate


@intrinsic
def load_some(typing, matrix, i, j, count):
    """The first `count` numbers of `matrix` from [i, j] on, and zeros. The others are not read."""

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, signature, arguments, 0)
        kind = ir.FunctionType(_VECTOR, [place.type, _INT, _MASK, _VECTOR])
        read = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
        none = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.call(read, [place, _INT(4), _first_lanes(builder, arguments[3]), none])

    return vector(_rows_of(matrix), types.intp, types.intp, types.intp), generate


@intrinsic
def store(typing, matrix, i, j, values):
    """Write 16 numbers to `matrix` from [i, j] on."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[3], _pointer(context, builder, signature, arguments, 0), align=4)
        return context.get_dummy_value()

    return types.void(_rows_of(matrix), types.intp, types.intp, vector), generate


@intrinsic
def store_some(typing, matrix, i, j, values, count):
    """Write the first `count` of 16 numbers to `matrix` from [i, j] on, and no others."""

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, signature, arguments, 0)
        kind = ir.FunctionType(ir.VoidType(), [_VECTOR, place.type, _INT, _MASK])
        write = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v16f32.p0")
        builder.call(write, [arguments[3], place, _INT(4), _first_lanes(builder, arguments[4])])
        return context.get_dummy_value()

    place = (_rows_of(matrix), types.intp, types.intp)
    return types.void(*place, vector, types.intp), generate


@intrinsic
def sum_of(typing, values):
    """The sum of 16 numbers."""

    def generate(context, builder, signature, arguments):
        return _folded(builder, arguments[0], builder.fadd)

    return types.float32(vector), generate


@intrinsic
def store_sums(typing, matrix, i, j, a, b, c, d):
    """Write the sums of four times 16 numbers to `matrix` from [i, j] on."""

    def generate(context, builder, signature, arguments):
        def halved(a, b, step):
            """Of each group of 2 · step numbers of a, and then of b, the sum of its two halves."""
            lower = [n for n in range(a.type.count + b.type.count) if not n & step]
            upper = [n + step for n in lower]
            return builder.fadd(_shuffle(builder, a, b, lower), _shuffle(builder, a, b, upper))

        a, b, c, d = arguments[3:]
        sums = halved(halved(a, b, 8), halved(c, d, 8), 4)  # 16 numbers, 4 of each
        low, high = (_shuffle(builder, sums, sums, range(n, n + 8)) for n in (0, 8))
        sums = halved(low, high, 2)
        low, high = (_shuffle(builder, sums, sums, range(n, n + 4)) for n in (0, 4))
        sums = halved(low, high, 1)
        place = _pointer(context, builder, signature, arguments, 0)
        builder.store(sums, builder.bitcast(place, sums.type.as_pointer()), align=4)
        return context.get_dummy_value()

    place = (_rows_of(matrix), types.intp, types.intp)
    return types.void(*place, vector, vector, vector, vector), generate


@intrinsic
def largest_of(typing, values):
    """The largest of 16 numbers."""

    def generate(context, builder, signature, arguments):
        return _folded(builder, arguments[0], lambda a, b: _larger(builder, a, b))

    return types.float32(vector), generate


@intrinsic
def larger(typing, a, b):
    """The larger number of each pair."""

    def generate(context, builder, signature, arguments):
        return _larger(builder, *arguments)

    return vector(vector, vector), generate


@intrinsic
def first_of(typing, values, count, other):
    """The first `count` of 16 numbers, with `other` in place of the rest."""

    def generate(context, builder, signature, arguments):
        values, count, other = arguments
        others = builder.insert_element(_UNDEFINED, other, _INT(0))
        others = _shuffle(builder, others, _UNDEFINED, [0] * LANES)
        return builder.select(_first_lanes(builder, count), values, others)

    return vector(vector, types.intp, types.float32), generate


@intrinsic
def exp_of(typing, values):
    """e^x for each of 16 numbers, as autograd.cpu.vector computes it."""

    def generate(context, builder, signature, arguments):
        def constant(number):
            return ir.Constant(_VECTOR, [float(number)] * LANES)

        def product(a, b):
            return builder.fmul(a, b, flags=SUM_AND_PRODUCT)

        def total(a, b):
            return builder.fadd(a, b, flags=SUM_AND_PRODUCT)

        (x,) = arguments
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        floor = cgutils.get_or_insert_function(builder.module, kind, "llvm.floor.v16f32")
        n = builder.call(floor, [total(product(x, constant(exponential.LOG2_E)), constant(0.5))])
        r = total(x, product(n, constant(-exponential.LN2_HIGH)))
        r = total(r, product(n, constant(-exponential.LN2_LOW)))
        first, *others = map(constant, exponential.COEFFICIENTS)
        p = first
        for coefficient in others:
            p = total(product(p, r), coefficient)
        p = total(total(product(product(p, r), r), r), constant(1))
        integers = ir.VectorType(_INT, LANES)
        exponent = builder.add(builder.fptosi(n, integers), ir.Constant(integers, [127] * LANES))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [23] * LANES)), _VECTOR)
        below = builder.fcmp_ordered("<", x, constant(exponential.SMALLEST))
        return builder.select(below, constant(0), product(p, power))

    return vector(vector), generate


@intrinsic
def number_where(typing, address, number):
    """A vector of `number` where the bit is set, of the 16 at an address, and zeros elsewhere."""

    def generate(context, builder, signature, arguments):
        bits = builder.inttoptr(arguments[0], ir.IntType(LANES).as_pointer())
        chosen = builder.bitcast(builder.load(bits, align=1), _MASK)
        first = builder.insert_element(_UNDEFINED, arguments[1], _INT(0))
        numbers = _shuffle(builder, first, _UNDEFINED, [0] * LANES)
        return builder.select(chosen, numbers, ir.Constant(_VECTOR, [0.0] * LANES))

    return vector(types.intp, types.float32), generate


@intrinsic
def number_of(typing, values, lane):
    """One of the 16 numbers."""

    def generate(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], builder.trunc(arguments[1], _INT))

    return types.float32(vector, types.intp), generate


@intrinsic
def which_reach(typing, values, least):
    """Which of the 16 numbers are `least` or more: bit i for number i."""

    def generate(context, builder, signature, arguments):
        least = builder.insert_element(_UNDEFINED, arguments[1], _INT(0))
        limit = _shuffle(builder, least, _UNDEFINED, [0] * LANES)
        found = builder.fcmp_ordered(">=", arguments[0], limit)
        return builder.zext(builder.bitcast(found, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(vector, types.float32), generate


@intrinsic
def lowest_bit(typing, bits):
    """The number of the lowest set bit; at least one must be set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


@intrinsic
def transpose(typing, out, out_i, out_j, matrix, i, j, count):
    """Write the 16 by 16 block of `matrix` at [i, j], transposed, to `out` at [out_i, out_j].

    Of its rows only the first `count` are read, and the last of these is repeated.
    """

    def generate(context, builder, signature, arguments):
        last = builder.sub(arguments[6], context.get_constant(types.intp, 1))
        numbers = [context.get_constant(types.intp, r) for r in range(LANES)]
        there = [builder.select(builder.icmp_signed("<", last, r), last, r) for r in numbers]
        rows = [
            builder.load(_pointer(context, builder, signature, arguments, 3, r), align=4)
            for r in there
        ]
        # Rows 1, 2, 4 and 8 apart exchange their off-diagonal blocks of that size.
        for step in (1, 2, 4, 8):
            upper = [c + LANES - step if c & step else c for c in range(LANES)]
            lower = [c + LANES if c & step else c + step for c in range(LANES)]
            for r in range(LANES):
                if not r & step:
                    a, b = rows[r], rows[r + step]
                    rows[r] = _shuffle(builder, a, b, upper)
                    rows[r + step] = _shuffle(builder, a, b, lower)
        for r, row in zip(numbers, rows, strict=True):
            builder.store(row, _pointer(context, builder, signature, arguments, 0, r), align=4)
        return context.get_dummy_value()

    place = (types.intp, types.intp)
    return types.void(_rows_of(out), *place, _rows_of(matrix), *place, types.intp), generate


@intrinsic
def word_at(typing, address):
    """The 8 bytes at an address, as an integer."""

    def generate(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.int64(types.intp), generate


@intrinsic
def byte_at(typing, address):
    """The byte at an address, as an integer."""

    def generate(context, builder, signature, arguments):
        byte = builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.int64(types.intp), generate


@intrinsic
def move(typing, out, source, count):
    """Copy `count` float32 numbers, a constant, from an address to another, all at once."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    several = ir.VectorType(ir.FloatType(), count.literal_value).as_pointer()

    def generate(context, builder, signature, arguments):
        out, source = (builder.inttoptr(a, several) for a in arguments[:2])
        builder.store(builder.load(source, align=4), out, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, count), generate


@intrinsic
def stream(typing, matrix, i, j, values):
    """`store`, of a whole cache line, past the caches by a non-temporal store."""

    def generate(context, builder, signature, arguments):
        place = _pointer(context, builder, signature, arguments, 0)
        stored = builder.store(arguments[3], place, align=64)
        stored.set_metadata("nontemporal", builder.module.add_metadata([_INT(1)]))
        return context.get_dummy_value()

    return types.void(_rows_of(matrix), types.intp, types.intp, vector), generate


def prefetch(builder, pointer):
    """Prefetch the cache line that a pointer points to."""
    bytes_ = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [bytes_, _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, bytes_), _INT(0), _INT(2), _INT(1)])


@intrinsic
def fetch(typing, address):
    """Prefetch the cache line of an address."""

    def generate(context, builder, signature, arguments):
        prefetch(builder, builder.inttoptr(arguments[0], _VECTOR.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp), generate


def _operation(symbol, emit):
    """Let compiled code apply an operator to two vectors."""

    @intrinsic
    def apply(typing, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, emit)(*arguments, flags=SUM_AND_PRODUCT)

        return vector(vector, vector), generate

    @overload(symbol, inline="always")
    def choose(a, b):
        if isinstance(a, _Vector) and isinstance(b, _Vector):
            return lambda a, b: apply(a, b)
        return None


_operation(operator.add, "fadd")
_operation(operator.iadd, "fadd")
_operation(operator.sub, "fsub")
_operation(operator.mul, "fmul")


def _rows_of(matrix):
    """The type of a contiguous float32 matrix, the only kind that is accepted."""
    wanted = types.Array(types.float32, 2, "C")
    if not (isinstance(matrix, types.Array) and matrix.copy(readonly=False) == wanted):
        raise TypeError(f"expected a float32 matrix in rows, got {matrix}")
    return matrix


def _pointer(context, builder, signature, arguments, first, below=None):
    """A pointer to 16 numbers. From `first` on, the arguments are a matrix, a row and a column.

    `below` is a number of rows to add.
    """
    array = context.make_array(signature.args[first])(context, builder, arguments[first])
    row = arguments[first + 1] if below is None else builder.add(arguments[first + 1], below)
    width = cgutils.unpack_tuple(builder, array.shape)[1]
    start = builder.add(builder.mul(row, width), arguments[first + 2])
    return builder.bitcast(builder.gep(array.data, [start]), _VECTOR.as_pointer())


def _shuffle(builder, a, b, chosen):
    """The chosen numbers of a and b as a vector; those of b are counted after those of a."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(chosen)), list(chosen)))


def _first_lanes(builder, count):
    """A bit for each of the 16 numbers: whether it is among the first `count`."""
    lanes = ir.VectorType(count.type, LANES)
    numbers = ir.Constant(lanes, list(range(LANES)))
    limits = builder.insert_element(ir.Constant(lanes, ir.Undefined), count, _INT(0))
    limits = _shuffle(builder, limits, limits, [0] * LANES)
    return builder.icmp_signed("<", numbers, limits)


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _folded(builder, values, combine):
    """Reduce 16 numbers to one by combining halves."""
    for step in (8, 4, 2, 1):
        turned = _shuffle(builder, values, values, [(c + step) % LANES for c in range(LANES)])
        values = combine(values, turned)
    return builder.extract_element(values, _INT(0))
