"""Vectors of 16 float32 numbers in compiled code, for loops that keep sums in registers.

    total = zeros()
    for s in range(k):
        total += broadcast(a[i, s]) * load(b, s, j)
    store(out, i, j, total)

If registers are narrower, a vector takes several. What the instructions do is in
compiling/registers.py.
"""

from __future__ import annotations

from autograd.cpu.loops import of_rows
from autograd.cpu.pieces import instructions

LANES = 16

zeros, broadcast, load, load_some, store, store_some = instructions(
    "registers", "zeros", "broadcast", "load", "load_some", "store", "store_some"
)
sum_of, store_sums, largest_of, larger, first_of, number_of, exp_of = instructions(
    "registers", "sum_of", "store_sums", "largest_of", "larger", "first_of", "number_of", "exp_of"
)
which_reach, lowest_bit, number_where, transpose, word_at, byte_at = instructions(
    "registers", "which_reach", "lowest_bit", "number_where", "transpose", "word_at", "byte_at"
)
move, stream, fetch = instructions("registers", "move", "stream", "fetch")


@of_rows
def address(matrix, row, column):
    """The address of an element of a float32 matrix, for `move` and `fetch`."""
    return matrix.ctypes.data + 4 * (row * matrix.shape[1] + column)
