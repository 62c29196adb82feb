"""int8_linear and int8_embedding: exact sums of integers, with scales, bias and ReLU in registers.

The matrix lies in panels as the tiles read it, and is read once for few rows. Rows of x are rounded
before, in a loop of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.int8_tile import HEIGHT, OFFSET, multiply_int8_tile
from autograd.cpu.loops import blocks, contiguous, of_rows, parallel_loop, rows_of
from autograd.cpu.memory import empty
from autograd.cpu.products import NOTHING, tile_of, tiles
from autograd.int8 import LARGEST, LEAST, PANEL, TERMS, Int8Matrix
from autograd.ops.large.int8 import int8_embedding, int8_linear

_ZERO, _NAN = np.float32(0), np.float32(np.nan)
_LARGEST, _SHARE, _LEAST = np.float32(LARGEST), np.float32(1 / LARGEST), np.float32(LEAST)
_NOT_FINITE = 0x7F800000  # the bits of infinity; those of NaN are above
_FEW = 8  # rows that a matrix is not read a second time for

_NO_BIAS = np.empty(0, np.float32)


@parallel_loop
def _round(block, x, integers, scales):
    """Each row of x in 8 bits, as integers + OFFSET, and its scale, as `rounded` does."""
    for i in rows_of(block, len(x)):
        row, out = x[i], integers[i]
        # Without the sign, the bits of float32 numbers have the same order as integers.
        top = np.int32(0)
        for j in range(row.size):
            top = max(top, np.int32(np.float32(row[j]).view(np.int32) & 0x7FFFFFFF))
        largest = np.int32(top).view(np.float32)
        inverse = _LARGEST / largest if largest >= _LEAST and top < _NOT_FINITE else _ZERO
        scales[i] = largest * _SHARE if inverse > 0 else _ZERO
        if top >= _NOT_FINITE:
            scales[i] = _NAN
            for j in range(row.size):
                out[j] = OFFSET
        else:
            for j in range(row.size):
                out[j] = np.uint8(np.int32(np.rint(row[j] * inverse)) + OFFSET)


@of_rows
def int8_product(out, rows, panels, x, w, bias, floor):
    """out = max(floor, x W + b), in some rows, and in the columns of some of W's panels.

    rows and panels: the first, and the one after the last. out: (matrix, its column where the first
    panel begins, the column after its last). x: (integers + OFFSET, scales); w: (packed, scales,
    sums), as of an Int8Matrix; bias: [columns of W], or [0] for none.
    """
    matrix, column, end = out
    (top, bottom), (first, last) = rows, panels
    integers, row_scales = x
    packed, column_scales, sums = w
    groups, width = packed.shape[1], integers.shape[1]
    for panel in range(first, last):
        place = panel * PANEL
        start = packed.ctypes.data + place * groups * TERMS
        of_columns = sums.ctypes.data + 4 * place
        scale = column_scales.ctypes.data + 4 * place
        added = bias.ctypes.data + 4 * place if bias.size else 0
        j = column + (panel - first) * PANEL
        columns = min(PANEL, end - j)
        i = top
        while i < bottom:
            a = (integers.ctypes.data + i * width, width)
            scales = (row_scales.ctypes.data + 4 * i, scale, added)
            y = (matrix.ctypes.data + 4 * (i * matrix.shape[1] + j), matrix.shape[1], columns)
            left = bottom - i
            if left >= HEIGHT:
                multiply_int8_tile(HEIGHT, groups, a, start, of_columns, scales, floor, y)
                i += HEIGHT
            elif left >= 4:
                multiply_int8_tile(4, groups, a, start, of_columns, scales, floor, y)
                i += 4
            elif left >= 2:
                multiply_int8_tile(2, groups, a, start, of_columns, scales, floor, y)
                i += 2
            else:
                multiply_int8_tile(1, groups, a, start, of_columns, scales, floor, y)
                i += 1


@parallel_loop
def _product(tile, tiles, by_rows, x, w, bias, floor, y):
    """A tile of y = max(floor, x W + b): a part of the rows, or of the panels of W."""
    rows, panels = (0, len(y)), (0, len(w[0]))
    if by_rows:
        rows = tile_of(tile, tiles, len(y), HEIGHT)
    else:
        panels = tile_of(tile, tiles, len(w[0]), 1)
    int8_product((y, panels[0] * PANEL, y.shape[1]), rows, panels, x, w, bias, floor)


def in_8_bits(x: np.ndarray, weight: Int8Matrix) -> tuple[np.ndarray, np.ndarray]:
    """The rows of x as tiles take them, to be multiplied by `weight`: integers + OFFSET, scales."""
    groups = weight.packed.shape[1]
    integers, scales = empty((len(x), groups * TERMS), np.uint8), empty((len(x),))
    _round(blocks(len(x)), x, integers, scales)
    return integers, scales


def _covers(x: np.ndarray, weight: Int8Matrix, bias: np.ndarray | None = None, **_: Any) -> bool:
    return x.ndim == 2 and (
        bias is None or (bias.shape == (weight.d_out,) and bias.dtype == x.dtype)
    )


@int8_linear.on("numpy", covers=_covers)
def fast_int8_linear(
    x: np.ndarray, weight: Int8Matrix, bias: np.ndarray | None = None, *, relu: bool = False
) -> np.ndarray:
    rows, panels = in_8_bits(contiguous(x), weight), len(weight.packed)
    y = empty((len(x), weight.d_out))
    by_rows = len(x) > max(weight.d_out, _FEW)
    count = tiles(len(x), HEIGHT) if by_rows else tiles(panels, 1)
    added = _NO_BIAS if bias is None else contiguous(bias)
    floor = _ZERO if relu else NOTHING
    _product(count, count, by_rows, rows, weight.arrays, added, floor, y)
    return y


@parallel_loop
def _gather(block, y, packed, scales, positions, ids, position_ids, scale):
    """y: [tokens, d] = columns `ids` of a matrix, times scale, + positions[position_ids]."""
    for i in rows_of(block, len(y)):
        row, token = y[i], max(ids[i], 0)
        panel, column = token // PANEL, token % PANEL
        factor = scales[panel, column] * scale if ids[i] >= 0 else _ZERO
        for j in range(row.size):
            row[j] = np.float32(packed[panel, j // TERMS, column, j % TERMS]) * factor
        if positions is not None:
            position = positions[position_ids[i]]
            for j in range(row.size):
                row[j] += position[j]


def _covers_embedding(table: Int8Matrix, positions: np.ndarray | None = None, **_: Any) -> bool:
    return positions is None or positions.dtype == np.float32


@int8_embedding.on("numpy", covers=_covers_embedding)
def fast_int8_embedding(
    table: Int8Matrix,
    positions: np.ndarray | None = None,
    *,
    ids: np.ndarray,
    position_ids: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    ids = contiguous(np.asarray(ids, np.int32))
    if positions is not None:
        positions = contiguous(positions)
        position_ids = contiguous(np.asarray(position_ids, np.int32))
    y = empty((len(ids), table.d_in))
    factor = np.float32(scale)
    _gather(blocks(len(y)), y, table.packed, table.scales, positions, ids, position_ids, factor)
    return y
