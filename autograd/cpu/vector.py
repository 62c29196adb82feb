"""exp and max in forms that the compiler can vectorise."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import of_numbers, of_rows

_f = np.float32
LOG2_E, LN2_HIGH, LN2_LOW = _f(1.44269504), _f(0.693359375), _f(-2.12194440e-4)
_C2, _C3, _C4 = _f(5.0000001201e-1), _f(1.6666665459e-1), _f(4.1665795894e-2)
_C5, _C6, _C7 = _f(8.3334519073e-3), _f(1.3981999507e-3), _f(1.9875691500e-4)
COEFFICIENTS = _C7, _C6, _C5, _C4, _C3, _C2
SMALLEST = _f(-87)
_HALF, _ONE, _ZERO = _f(0.5), _f(1), _f(0)


@of_numbers
def exp(x):
    """e^x for x ≤ 88, within 3 units in the last place; 0 below -87. NaN stays NaN.

    e^x = 2^n e^r with an integer n and |r| ≤ ln(2)/2; e^r is the polynomial of Cephes's expf.
    """
    n = np.floor(x * LOG2_E + _HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = ((((_C7 * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2
    p = p * r * r + r + _ONE
    power = np.int32((np.int32(n) + 127) << 23).view(np.float32)  # 2^n: n in the exponent's bits
    return _ZERO if x < SMALLEST else p * power


@of_rows
def largest(row):
    """The largest of some float32 numbers.

    Their bits, with the lower bits of negative numbers inverted, have the same order as integers,
    and the compiler can vectorise the maximum of integers.
    """
    top = np.int32(-(1 << 31))
    for j in range(row.size):
        bits = np.float32(row[j]).view(np.int32)
        top = max(top, np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))
    return np.int32(top ^ ((top >> 31) & 0x7FFFFFFF)).view(np.float32)
