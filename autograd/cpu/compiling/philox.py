"""Philox for eight counters at once, in vectors of 64-bit numbers (autograd.cpu.philox)."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from autograd.cpu.philox import COUNTERS, MULTIPLIERS, ROUNDS, WEYL

_INT, _WORD = ir.IntType(32), ir.IntType(64)
_WORDS = ir.VectorType(_WORD, COUNTERS)
_LOW = (1 << 32) - 1


@intrinsic
def reaching(typing, row, group, shift, site, step, key0, key1, threshold):
    """Which of 64 random 16-bit numbers reach the threshold: a bit for each, 8 for each counter.

    Counter c is (row + c >> shift, group + c modulo 2^shift, site, step).
    """

    def generate(context, builder, signature, arguments):
        row, group, shift, site, step, key0, key1, threshold = arguments

        def constant(numbers):
            return ir.Constant(_WORDS, list(numbers))

        def broadcast(number, kind=_WORDS):
            undefined = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(undefined, number, _INT(0))
            lanes = ir.Constant(ir.VectorType(_INT, kind.count), [0] * kind.count)
            return builder.shuffle_vector(first, undefined, lanes)

        def halves_of(a, b, chosen):
            """The chosen 32-bit halves of the numbers of a and b."""
            halves = ir.VectorType(_INT, 2 * COUNTERS)
            a, b = builder.bitcast(a, halves), builder.bitcast(b, halves)
            return builder.bitcast(
                builder.shuffle_vector(a, b, ir.Constant(halves, chosen)), _WORDS
            )

        def product(a, factor):
            """Of the lower halves. The upper halves of other numbers here mean nothing."""
            low = builder.and_(a, constant([_LOW] * COUNTERS))
            return builder.mul(low, constant([factor] * COUNTERS))

        def high(a):
            """The upper halves, in place of both: a shuffle has a port of its own, a shift none."""
            return halves_of(a, a, [n | 1 for n in range(2 * COUNTERS)])

        # Lanes 0, 2, 4, 6 have the first four counters: pairs of lanes are interleaved at the end.
        counters = constant(c // 2 + COUNTERS // 2 * (c % 2) for c in range(COUNTERS))
        last = builder.sub(builder.shl(_WORD(1), shift), _WORD(1))
        c0 = builder.add(broadcast(row), builder.lshr(counters, broadcast(shift)))
        c1 = builder.add(broadcast(group), builder.and_(counters, broadcast(last)))
        c2, c3 = broadcast(site), broadcast(step)
        for _ in range(ROUNDS):
            p0, p1 = product(c0, MULTIPLIERS[0]), product(c2, MULTIPLIERS[1])
            c0 = builder.xor(builder.xor(high(p1), c1), broadcast(key0))
            c2 = builder.xor(builder.xor(high(p0), c3), broadcast(key1))
            c1, c3 = p1, p0
            key0, key1 = (
                builder.and_(builder.add(key, _WORD(step)), _WORD(_LOW))
                for key, step in zip((key0, key1), WEYL, strict=True)
            )

        def pairs(a, b):
            """The lower halves of a and b, as one number."""
            return halves_of(a, b, [n + 2 * COUNTERS - 1 if n & 1 else n for n in range(16)])

        first, second = pairs(c0, c1), pairs(c2, c3)
        halves = ir.VectorType(ir.IntType(16), 4 * COUNTERS)
        limit = broadcast(threshold, halves)
        result = None
        for side in (0, 1):
            chosen = [
                n + side + COUNTERS * which for n in range(0, COUNTERS, 2) for which in (0, 1)
            ]
            lanes = ir.Constant(ir.VectorType(_INT, COUNTERS), chosen)
            numbers = builder.bitcast(builder.shuffle_vector(first, second, lanes), halves)
            reach = builder.icmp_unsigned(">=", numbers, limit)
            bits = builder.zext(builder.bitcast(reach, _INT), _WORD)
            result = bits if side == 0 else builder.or_(result, builder.shl(bits, _WORD(32)))
        return result

    word = types.uint64
    return word(word, word, word, word, word, word, word, types.uint16), generate
