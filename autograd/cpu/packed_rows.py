"""A matrix that is packed once, where many products take its rows as columns.

A product packs panels of its right matrix anyway (autograd.cpu.products). To transpose them for a
few rows of the left one costs much beside the product itself.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import block_of, blocks, parallel_loop
from autograd.cpu.memory import aligned
from autograd.cpu.products import WIDTH, pack_panel

_ROWS = 256  # whose panels one task packs: several times WIDTH


@parallel_loop
def _pack(block, matrix, packed):
    """The panels of `packed`, [panels · d, WIDTH], of some rows; matrix: [rows, d]."""
    rows, d = matrix.shape
    first, last = block_of(block, rows, _ROWS)
    for row in range(first, last, WIDTH):
        panel = packed[row // WIDTH * d : (row // WIDTH + 1) * d]
        pack_panel(panel, (matrix, 0, 0, True), 0, row, d, min(WIDTH, last - row))


def shape_of_packed(matrix: np.ndarray) -> tuple[int, int]:
    """The shape of what `packed_rows` returns."""
    rows, d = matrix.shape
    return blocks(rows, WIDTH) * d, WIDTH


def packed_rows(matrix: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """matrix: [rows, d], as panels one below the other, [panels · d, WIDTH].

    The columns of a panel are WIDTH rows of the matrix, or zeros where there are no more.
    `multiply` reads them in place. out: an array to overwrite.
    """
    packed = aligned(*shape_of_packed(matrix)) if out is None else out
    _pack(blocks(len(matrix), _ROWS), matrix, packed)
    return packed
