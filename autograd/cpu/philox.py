"""What dropout keeps, with the same bits as autograd.dropout.

A bit for each column says whether it is kept. A row of up to 32 columns has 1, 2 or 4 bytes, a
wider one words of 64 bits. So eight counters of Philox give one word: part of a row, or some rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autograd.cpu.loops import of_rows
from autograd.cpu.pieces import instructions
from autograd.cpu.registers import LANES, number_where, store
from autograd.dropout import DropoutSite

ROUNDS, MULTIPLIERS, WEYL = 10, (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
COUNTERS = 8  # of one word
MASKED = 8  # columns of a counter

(reaching,) = instructions("philox", "reaching")


class Mask(NamedTuple):
    """A DropoutSite for compiled loops, in which every number has a fixed type."""

    key0: np.uint64
    key1: np.uint64
    site: np.uint64
    step: np.uint64
    row: np.uint64
    threshold: np.uint16
    scale: np.float32


def mask_of(site: DropoutSite | None) -> Mask | None:
    """The mask of a site, or None without one: loops are then compiled without dropout."""
    if site is None:
        return None
    words = (*site.key, site.site, site.step, site.row)
    return Mask(*map(np.uint64, words), np.uint16(site.threshold), np.float32(site.scale))


@of_rows
def _shift_of(columns):
    """2 to this power are the bytes of a row, if it has less than a word, and 3 otherwise."""
    shift = 0
    while shift < 3 and MASKED << shift < columns:
        shift += 1
    return shift


@of_rows
def _words_of(columns):
    """The words of a row that has more than one, or 1."""
    return (columns + 64 - 1) // 64


@of_rows
def bits_for(rows, columns):
    """Room for what is kept of a matrix. What is read beyond a row is there, too."""
    return np.empty(((rows << _shift_of(columns)) // 8 + 1) * _words_of(columns), np.uint64)


@of_rows
def draw(kept, mask, row, rows, column, columns):
    """Draw what is kept of some rows and columns; `column` is a multiple of MASKED.

    kept: from `bits_for` as many rows and columns.
    """
    shift, words, place = _shift_of(columns), _words_of(columns), 0
    group = np.uint64(column // MASKED)
    for i in range(0, rows, COUNTERS >> shift):
        first = np.uint64(row + i) + mask.row
        for w in range(words):
            kept[place] = reaching(
                first,
                group + np.uint64(COUNTERS * w),
                np.uint64(shift),
                mask.site,
                mask.step,
                mask.key0,
                mask.key1,
                mask.threshold,
            )
            place += 1


@of_rows
def factors_of(kept, mask, i, j, columns):
    """The factors of 16 columns from j on, in row i: 0 where dropped, else the scale.

    j: a multiple of 16; columns: of a row.
    """
    bytes_of_a_row = _words_of(columns) << _shift_of(columns)
    return number_where(kept.ctypes.data + i * bytes_of_a_row + j // MASKED, mask.scale)


@of_rows
def drawn(mask, rows, columns):
    """What is kept of a range of rows, and room for the factors of one of them: [1, columns].

    The columns are rounded up to whole vectors.
    """
    width = (columns + LANES - 1) // LANES * LANES if mask is not None else 0
    kept = bits_for(rows.stop - rows.start, width)
    if mask is not None:
        draw(kept, mask, rows.start, rows.stop - rows.start, 0, width)
    return np.empty((1, width), np.float32), kept


@of_rows
def write_factors(factors, kept, mask, i):
    """The factors of row i, of those that were drawn, unless there is no mask."""
    if mask is not None:
        for j in range(0, factors.shape[1], LANES):
            store(factors, 0, j, factors_of(kept, mask, i, j, factors.shape[1]))
