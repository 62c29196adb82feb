"""The innermost part of a matrix product: a small tile whose sums stay in registers.

Written in LLVM instructions, since compilers spill some of this many accumulators to memory.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.cpu.compiling.registers import SUM_AND_PRODUCT, prefetch
from autograd.cpu.microkernel import HEIGHT, TERMS_A_LINE, VECTORS, WIDTH
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

    Meanwhile `ahead` is prefetched, a cache line for every TERMS_A_LINE terms: (address, row
    stride, n) stands for the first 2^n lines of each row.
    """

    def generate(context, builder, signature, values):
        depth, a, b, start, out, floor, ahead = values
        a, a_row, a_column, a_rows = cgutils.unpack_tuple(builder, a)
        start, start_row = cgutils.unpack_tuple(builder, start)
        out, out_row, streamed = cgutils.unpack_tuple(builder, out)
        ahead, ahead_row, lines = cgutils.unpack_tuple(builder, ahead)

        def pointer_to(address, step, number, kind=_REAL):
            bytes_ = builder.mul(builder.mul(step, number), _WORD(4))
            return builder.inttoptr(builder.add(address, bytes_), kind.as_pointer())

        def vector_at(pointer, v):
            return builder.bitcast(builder.gep(pointer, [_WORD(v * LANES)]), _VECTOR.as_pointer())

        def broadcast(number):
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            first = builder.insert_element(undefined, number, ir.IntType(32)(0))
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(first, undefined, lanes)

        last = builder.sub(a_rows, _WORD(1))
        rows = []
        for r in range(HEIGHT):
            there = builder.select(builder.icmp_signed("<", last, _WORD(r)), last, _WORD(r))
            rows.append(pointer_to(a, a_row, there))
        b = builder.inttoptr(b, _REAL.as_pointer())
        sums = [
            builder.load(vector_at(pointer_to(start, start_row, _WORD(r)), v), align=4)
            for r in range(HEIGHT)
            for v in range(VECTORS)
        ]

        def look_ahead(k):
            line = builder.udiv(k, _WORD(TERMS_A_LINE))
            row = builder.lshr(line, lines)
            in_row = builder.sub(line, builder.shl(row, lines))
            first = pointer_to(ahead, ahead_row, row)
            prefetch(builder, builder.gep(first, [builder.mul(in_row, _WORD(LANES))]))

        def step(sums, k, offset):
            """sums + column k + offset of a, times row k + offset of b."""
            k = builder.add(k, _WORD(offset))
            row = builder.gep(b, [builder.mul(k, _WORD(WIDTH))])
            b_row = [builder.load(vector_at(row, v), align=4) for v in range(VECTORS)]
            column = builder.mul(k, a_column)
            result = []
            for r in range(HEIGHT):
                number = broadcast(builder.load(builder.gep(rows[r], [column]), align=4))
                for v in range(VECTORS):
                    product = builder.fmul(number, b_row[v], flags=SUM_AND_PRODUCT)
                    before = sums[r * VECTORS + v]
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
            if by == _UNROLLED:
                look_ahead(k)
            after = list(carried)
            for offset in range(by):
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
        sums = loop(sums, whole, depth, 1)
        floor = broadcast(floor)
        results = []
        for value in sums:
            below = builder.fcmp_ordered("<", value, floor)  # false for NaN
            results.append(builder.select(below, floor, value))
        past_caches = builder.module.add_metadata([ir.IntType(32)(1)])
        with builder.if_else(builder.trunc(streamed, ir.IntType(1))) as (stream, keep):
            for branch, align in ((stream, 64), (keep, 4)):
                with branch:
                    for n, value in enumerate(results):
                        row = pointer_to(out, out_row, _WORD(n // VECTORS))
                        stored = builder.store(value, vector_at(row, n % VECTORS), align=align)
                        if branch is stream:
                            stored.set_metadata("nontemporal", past_caches)
        return context.get_dummy_value()

    word = types.intp
    four, two = types.UniTuple(word, 4), types.UniTuple(word, 2)
    three = types.UniTuple(word, 3)
    return types.void(word, four, word, two, three, types.float32, three), generate
