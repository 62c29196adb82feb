"""The innermost part of matrix products: a small tile whose sums stay in registers.

Written in LLVM instructions, since compilers spill some of this many accumulators to memory.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.cpu.compiling.registers import SUM_AND_PRODUCT, prefetch
from autograd.cpu.microkernel import HEIGHT, VECTORS, WIDTH
from autograd.cpu.registers import LANES

_UNROLLED = 4

_WORD = ir.IntType(64)
_REAL = ir.FloatType()
_VECTOR = ir.VectorType(_REAL, LANES)


@intrinsic
def multiply_tile(typingctx, depth, a, b, start, out, floor, ahead):
    """out = max(floor, start + a b): HEIGHT rows of WIDTH float32 numbers.

    Strides are in numbers. a = (address, row stride, column stride, rows), with `depth` columns; if
    it has fewer than HEIGHT rows, the last one is repeated. b is the address of `depth` contiguous
    rows of WIDTH numbers. start = (address, row stride). out = (address, row stride, whether to use
    non-temporal stores, for which each row must be aligned to a cache line).

    Meanwhile `ahead` is prefetched: (address, row stride, n, s) stands for the first 2^n cache
    lines of each row, of which one is prefetched every 2^s terms; s is 1 at least.
    """

    def generate(context, builder, signature, values):
        depth, a, b, start, out, floor, ahead = values
        start, start_row = cgutils.unpack_tuple(builder, start)
        out, out_row, streamed = cgutils.unpack_tuple(builder, out)
        ahead, ahead_row, lines, seldom = cgutils.unpack_tuple(builder, ahead)
        before = [
            builder.load(_vector_at(builder, _row(builder, start, start_row, _WORD(r)), v), align=4)
            for r in range(HEIGHT)
            for v in range(VECTORS)
        ]

        def look_ahead(k):
            line = builder.lshr(k, seldom)
            row = builder.lshr(line, lines)
            in_row = builder.sub(line, builder.shl(row, lines))
            first = _row(builder, ahead, ahead_row, row)
            prefetch(builder, builder.gep(first, [builder.mul(in_row, _WORD(LANES))]))

        sums = _add_products(builder, before, depth, a, (b, _WORD(WIDTH)), look_ahead)
        floor = _broadcast(builder, floor)
        results = []
        for value in sums:
            below = builder.fcmp_ordered("<", value, floor)  # false for NaN
            results.append(builder.select(below, floor, value))
        past_caches = builder.module.add_metadata([ir.IntType(32)(1)])
        with builder.if_else(builder.trunc(streamed, ir.IntType(1))) as (stream, keep):
            for branch, align in ((stream, 64), (keep, 4)):
                with branch:
                    for n, value in enumerate(results):
                        row = _row(builder, out, out_row, _WORD(n // VECTORS))
                        place = _vector_at(builder, row, n % VECTORS)
                        stored = builder.store(value, place, align=align)
                        if branch is stream:
                            stored.set_metadata("nontemporal", past_caches)
        return context.get_dummy_value()

    word = types.intp
    four, two = types.UniTuple(word, 4), types.UniTuple(word, 2)
    three = types.UniTuple(word, 3)
    return types.void(word, four, word, two, three, types.float32, four), generate


@intrinsic
def multiply_rows(typingctx, vectors, depth, a, b, out, factor, add):
    """out = factor · a b, or with `add` out + factor · a b: up to HEIGHT rows of 16 · `vectors`.

    `vectors` is a constant, at most VECTORS. a is as for `multiply_tile`, and out = (address, row
    stride) has as many rows. b = (address, row stride).
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    wide = vectors.literal_value

    def generate(context, builder, signature, values):
        _, depth, a, b, out, factor, add = values
        b, b_row = cgutils.unpack_tuple(builder, b)
        out, out_row = cgutils.unpack_tuple(builder, out)
        none = [ir.Constant(_VECTOR, [0.0] * LANES)] * (HEIGHT * wide)
        sums = _add_products(builder, none, depth, a, (b, b_row), lambda k: None)
        factor = _broadcast(builder, factor)
        rows = _rows(builder, out, out_row, cgutils.unpack_tuple(builder, a)[3])
        places = [_vector_at(builder, row, v) for row in rows for v in range(wide)]
        with builder.if_else(add) as (more, first):
            with more:
                # All is read before any of it is written: rows may be the same.
                before = [builder.load(place, align=4) for place in places]
                for value, place, old in zip(sums, places, before, strict=True):
                    product = builder.fmul(value, factor, flags=SUM_AND_PRODUCT)
                    total = builder.fadd(old, product, flags=SUM_AND_PRODUCT)
                    builder.store(total, place, align=4)
            with first:
                for value, place in zip(sums, places, strict=True):
                    builder.store(builder.fmul(value, factor), place, align=4)
        return context.get_dummy_value()

    word = types.intp
    four, two = types.UniTuple(word, 4), types.UniTuple(word, 2)
    return types.void(vectors, word, four, two, two, types.float32, types.boolean), generate


def _row(builder, address, stride, number):
    """A pointer to a row of numbers."""
    bytes_ = builder.mul(builder.mul(stride, number), _WORD(4))
    return builder.inttoptr(builder.add(address, bytes_), _REAL.as_pointer())


def _rows(builder, address, stride, count):
    """Pointers to HEIGHT rows, the last of the `count` being repeated."""
    last = builder.sub(count, _WORD(1))
    numbers = map(_WORD, range(HEIGHT))
    there = [builder.select(builder.icmp_signed("<", last, r), last, r) for r in numbers]
    return [_row(builder, address, stride, r) for r in there]


def _vector_at(builder, pointer, v):
    return builder.bitcast(builder.gep(pointer, [_WORD(v * LANES)]), _VECTOR.as_pointer())


def _broadcast(builder, number):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, lanes)


def _add_products(builder, sums, depth, a, b, look_ahead):
    """sums + a b, for the vectors of HEIGHT rows; `look_ahead(k)` emits what goes between.

    a and b are as for `multiply_rows`.
    """
    a, a_row, a_column, a_rows = cgutils.unpack_tuple(builder, a)
    b, b_row = b
    rows = _rows(builder, a, a_row, a_rows)
    b = builder.inttoptr(b, _REAL.as_pointer())
    vectors = len(sums) // HEIGHT

    def step(sums, k, offset):
        """sums + column k + offset of a, times row k + offset of b."""
        k = builder.add(k, _WORD(offset))
        row = builder.gep(b, [builder.mul(k, b_row)])
        parts = [builder.load(_vector_at(builder, row, v), align=4) for v in range(vectors)]
        column = builder.mul(k, a_column)
        result = []
        for r in range(HEIGHT):
            number = _broadcast(builder, builder.load(builder.gep(rows[r], [column]), align=4))
            for v in range(vectors):
                product = builder.fmul(number, parts[v], flags=SUM_AND_PRODUCT)
                before = sums[r * vectors + v]
                result.append(builder.fadd(before, product, flags=SUM_AND_PRODUCT))
        return result

    def loop(sums, first, last, by):
        entry = builder.block
        body = builder.append_basic_block("products")
        done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", first, last), body, done)
        builder.position_at_end(body)
        k = builder.phi(_WORD)
        k.add_incoming(first, entry)
        carried = [builder.phi(_VECTOR) for _ in sums]
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, entry)
        after = list(carried)
        for offset in range(by):
            if by == _UNROLLED and offset % 2 == 0:
                look_ahead(builder.add(k, _WORD(offset)))
            after = step(after, k, offset)
        following = builder.add(k, _WORD(by))
        k.add_incoming(following, body)
        for phi, value in zip(carried, after, strict=True):
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, last), body, done)
        builder.position_at_end(done)
        results = []
        for before, value in zip(sums, after, strict=True):
            phi = builder.phi(_VECTOR)
            phi.add_incoming(before, entry)
            phi.add_incoming(value, body)
            results.append(phi)
        return results

    whole = builder.and_(depth, _WORD(-_UNROLLED))
    sums = loop(sums, _WORD(0), whole, _UNROLLED)
    return loop(sums, whole, depth, 1)
