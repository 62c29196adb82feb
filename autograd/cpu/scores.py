"""Scores of attention: products of a query with the keys that it sees."""

from __future__ import annotations

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import LANES, load, store_sums, zeros


@of_rows
def four_dots(out, i, j, a, row, a_column, b, rows, b_column, d):
    """out[i, j : j + 4] = the products of a's `row` with four `rows` of b, of d columns each.

    Those begin at a_column in a, and at b_column in b. Of d, only whole vectors are summed up; the
    sums lack the rest, which is seldom any.
    """
    sum0, sum1, sum2, sum3 = zeros(), zeros(), zeros(), zeros()
    for c in range(0, d // LANES * LANES, LANES):
        part = load(a, row, a_column + c)
        sum0 += part * load(b, rows[0], b_column + c)
        sum1 += part * load(b, rows[1], b_column + c)
        sum2 += part * load(b, rows[2], b_column + c)
        sum3 += part * load(b, rows[3], b_column + c)
    store_sums(out, i, j, sum0, sum1, sum2, sum3)


@of_rows
def rest_of_dot(a, row, a_column, b, b_row, b_column, d):
    """What the product of two rows lacks without those of the d columns that fill no vector."""
    total = a[row, a_column] * 0
    for c in range(d // LANES * LANES, d):
        total += a[row, a_column + c] * b[b_row, b_column + c]
    return total
