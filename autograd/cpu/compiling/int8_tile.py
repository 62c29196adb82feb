"""Instructions for a small tile of a product in 8 bits (autograd.cpu.int8_tile)."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.cpu.int8_tile import (
    ABREAST,
    AVX2,
    HEIGHT,
    OFFSET,
    VECTORS,
    VNNI_256,
    VNNI_512,
)
from autograd.cpu.registers import LANES
from autograd.int8 import PANEL, TERMS

# Numba lets LLVM reorder what has no flags of its own. This one does not.
_IN_ORDER = ("nsz",)

_WORD, _INT, _REAL = ir.IntType(64), ir.IntType(32), ir.FloatType()
_BYTES = ir.VectorType(ir.IntType(8), LANES * TERMS)
_SUMS = ir.VectorType(_INT, LANES)
_REALS = ir.VectorType(_REAL, LANES)


@intrinsic
def multiply_int8_tile(typingctx, height, groups, x, w, sums, scales, floor, out):
    """out = max(floor, x w + bias), for `height` rows, a constant, and one panel of w.

    groups: terms of a sum, divided by TERMS. x = (address, bytes from row to row), of x + OFFSET.
    w: the address of the panel, [groups, PANEL, TERMS] bytes. sums: the address of the sums of w's
    columns, [PANEL]. scales = (addresses of x's scales, a row, of w's, a column, and of the bias,
    or 0). out = (address, numbers from row to row, columns that are written).
    """
    if not isinstance(height, types.IntegerLiteral):
        return None
    rows = height.literal_value
    # If there are few rows, a result is the total of several sums: each step of one waits for the
    # last.
    chains = max(1, HEIGHT // (2 * rows))

    def generate(context, builder, signature, values):
        _, groups, x, w, sums, scales, floor, out = values
        x, x_row = cgutils.unpack_tuple(builder, x)
        row_scales, column_scales, bias = cgutils.unpack_tuple(builder, scales)
        out, out_row, columns = cgutils.unpack_tuple(builder, out)

        def load(kind, address, *offsets):
            for offset in offsets:
                address = builder.add(address, offset)
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

        def step(before, group, vectors):
            """`before` and the products of one group of terms."""
            terms = builder.mul(group, _WORD(TERMS))
            line = builder.mul(group, _WORD(TERMS * PANEL))
            columns = [load(_BYTES, w, line, _WORD(v * LANES * TERMS)) for v in vectors]
            after = []
            for r in range(rows):
                four = load(_INT, x, builder.mul(x_row, _WORD(r)), terms)
                numbers = builder.bitcast(_repeated(builder, four), _BYTES)
                for column in columns:
                    after.append(_add_products(builder, before[len(after)], numbers, column))
            return after

        def first_sums(v):
            if not OFFSET:
                return _zeros(_SUMS)
            of_columns = load(_SUMS, sums, _WORD(v * LANES * 4))
            return builder.mul(of_columns, ir.Constant(_SUMS, [-OFFSET] * LANES))

        # Without a bias, none of some other numbers: an address that is not there costs time, even
        # if nothing is read from it.
        with_bias = builder.icmp_unsigned("!=", bias, _WORD(0))
        bias = builder.select(with_bias, bias, column_scales)
        given = builder.select(with_bias, columns, _WORD(0))
        added = [
            _read(
                builder,
                builder.add(bias, _WORD(v * LANES * 4)),
                builder.sub(given, _WORD(v * LANES)),
            )
            for v in range(VECTORS)
        ]
        floors = _repeated(builder, floor)
        for first in range(0, VECTORS, ABREAST):
            vectors = range(first, first + ABREAST)
            together = [[first_sums(v) for v in vectors] * rows]
            together += [[_zeros(_SUMS)] * (rows * ABREAST)] * (chains - 1)
            whole = builder.and_(groups, _WORD(-chains))
            together = _loop(builder, together, _WORD(0), whole, step, vectors)
            totals = together[0]
            for others in together[1:]:
                totals = [builder.add(a, b) for a, b in zip(totals, others, strict=True)]
            [totals] = _loop(builder, [totals], whole, groups, step, vectors)

            # In float32: scales, bias and ReLU.
            for n, total in enumerate(totals):
                r, v = n // ABREAST, vectors[n % ABREAST]
                start = _WORD(v * LANES * 4)
                left = builder.sub(columns, _WORD(v * LANES))
                row_scale = _repeated(builder, load(_REAL, row_scales, _WORD(4 * r)))
                scale = builder.fmul(row_scale, load(_REALS, column_scales, start), flags=_IN_ORDER)
                y = builder.fmul(builder.sitofp(total, _REALS), scale, flags=_IN_ORDER)
                y = builder.fadd(y, added[v], flags=_IN_ORDER)
                below = builder.fcmp_ordered("<", y, floors)  # false for NaN
                place = builder.add(out, builder.mul(out_row, _WORD(4 * r)))
                y = builder.select(below, floors, y)
                _write(builder, y, builder.add(place, start), left)
        return context.get_dummy_value()

    word = types.intp
    two, three = types.UniTuple(word, 2), types.UniTuple(word, 3)
    return types.void(height, word, two, word, word, three, types.float32, three), generate


def _loop(builder, together, begin, end, step, vectors):
    """Run the steps from begin to end, of which each takes the next of the lists of sums."""
    entry = builder.block
    body = builder.append_basic_block("products")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", begin, end), body, done)
    builder.position_at_end(body)
    group = builder.phi(_WORD)
    group.add_incoming(begin, entry)
    carried = [[builder.phi(_SUMS) for _ in sums] for sums in together]
    after = [step(s, builder.add(group, _WORD(n)), vectors) for n, s in enumerate(carried)]
    following = builder.add(group, _WORD(len(together)))
    group.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, end), body, done)
    builder.position_at_end(done)
    results = []
    for before, phis, values in zip(together, carried, after, strict=True):
        results.append([])
        for start, phi, value in zip(before, phis, values, strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(value, body)
            result = builder.phi(_SUMS)
            result.add_incoming(start, entry)
            result.add_incoming(value, body)
            results[-1].append(result)
    return results


def _add_products(builder, sums, x, w):
    """16 sums, and to each of them four products added."""
    if VNNI_512:
        return _call(builder, "avx512.vpdpbusd.512", _SUMS, sums, *_as(builder, _SUMS, x, w))
    if VNNI_256 or AVX2:
        halves = zip(*(_halves(builder, v) for v in (sums, x, w)), strict=True)
        add = _add_by_vnni if VNNI_256 else _add_by_pairs
        low, high = (add(builder, *half) for half in halves)
        return _shuffled(builder, low, high, range(LANES))
    # Any processor: the first products of all columns, the second, ...
    wide = ir.VectorType(_INT, LANES)
    for term in range(TERMS):
        each = range(term, LANES * TERMS, TERMS)
        a, b = (builder.sext(_shuffled(builder, v, v, each), wide) for v in (x, w))
        sums = builder.add(sums, builder.mul(a, b))
    return sums


def _add_by_vnni(builder, sums, x, w):
    return _call(builder, "avx512.vpdpbusd.256", sums.type, sums, *_as(builder, sums.type, x, w))


def _add_by_pairs(builder, sums, x, w):
    """With AVX2, which adds pairs of products of numbers without a sign and numbers with one.

    Those numbers are |x|, and w with the sign of x. The sum of a pair would be cut off at 16 bits,
    but without -128 it is at most 2 · 127², which fits.
    """
    pairs, ones = ir.VectorType(ir.IntType(16), 16), ir.IntType(16)
    magnitude = _call(builder, "avx2.psign.b", x.type, x, x)
    signed = _call(builder, "avx2.psign.b", x.type, w, x)
    added = _call(builder, "avx2.pmadd.ub.sw", pairs, magnitude, signed)
    fours = _call(builder, "avx2.pmadd.wd", sums.type, added, ir.Constant(pairs, [ones(1)] * 16))
    return builder.add(sums, fours)


def _call(builder, name, result, *arguments):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    return builder.call(function, arguments)


def _as(builder, kind, *vectors):
    """The same bits as vectors of another kind."""
    return [builder.bitcast(v, kind) for v in vectors]


def _halves(builder, vector):
    """The two halves of a vector."""
    count = vector.type.count
    return [_shuffled(builder, vector, vector, range(n, n + count // 2)) for n in (0, count // 2)]


def _shuffled(builder, a, b, chosen):
    lanes = ir.Constant(ir.VectorType(_INT, len(chosen)), list(chosen))
    return builder.shuffle_vector(a, b, lanes)


def _zeros(kind):
    return ir.Constant(kind, [0] * kind.count)


def _repeated(builder, number):
    """A vector of a number, 16 times."""
    kind = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _INT(0))
    return _shuffled(builder, first, first, [0] * LANES)


def _first(builder, count):
    """Which of 16 numbers are among the first `count`."""
    numbers = ir.Constant(ir.VectorType(_WORD, LANES), list(range(LANES)))
    return builder.icmp_signed("<", numbers, _repeated(builder, count))


def _read(builder, address, count):
    """The first `count` of 16 numbers at an address, and zeros. The others are not read."""
    place, which = builder.inttoptr(address, _REALS.as_pointer()), _first(builder, count)
    kind = ir.FunctionType(_REALS, [place.type, _INT, which.type, _REALS])
    read = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
    none = ir.Constant(_REALS, [0.0] * LANES)
    return builder.call(read, [place, _INT(4), which, none])


def _write(builder, values, address, count):
    """Write the first `count` of 16 numbers to an address, and no others."""
    place = builder.inttoptr(address, _REALS.as_pointer())
    # A store of some takes ten times as long as one of all, where registers have no masks.
    with builder.if_else(builder.icmp_signed(">=", count, _WORD(LANES))) as (all_, some):
        with all_:
            builder.store(values, place, align=4)
        with some:
            which = _first(builder, count)
            kind = ir.FunctionType(ir.VoidType(), [_REALS, place.type, _INT, which.type])
            name = "llvm.masked.store.v16f32.p0"
            write = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(write, [values, place, _INT(4), which])
