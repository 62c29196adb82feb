"""Matrix products as pieces of compiled loops (after Goto and van de Geijn, 2008).

A loop multiplies a block of rows where it needs the product, and goes on with what follows, a bias
or a softmax, while the block is in the cache; all of it on the pool's threads. A library's product
would be a pass of its own, on threads of its own, which stand in the way of the pool's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu import pool
from autograd.cpu.loops import block_of, blocks, of_rows, parallel_loop
from autograd.cpu.memory import empty
from autograd.cpu.microkernel import HEIGHT, TERMS_A_LINE, WIDTH, multiply_tile
from autograd.cpu.registers import LANES, address, move, stream, transpose

DEPTH = 512  # terms of a sum at a time: of b as many rows of WIDTH as the nearer caches hold
_SMALL = 1 << 16  # numbers of a result of which each DEPTH tokens may have one for themselves
CACHED = 1 << 18  # numbers of a result that are better left in the caches

NOTHING = np.float32(-np.inf)  # as a floor, none
_ZERO = np.float32(0)

_aligned = of_rows(empty)


@of_rows
def room(width):
    """What `multiply` works in, for blocks of a transposed a of up to `width` columns (else 0)."""
    strips = (width + HEIGHT - 1) // HEIGHT
    return (
        _aligned(DEPTH, WIDTH),
        _aligned(strips * DEPTH, HEIGHT),
        _aligned(HEIGHT, WIDTH),
        _aligned(1, WIDTH),
    )


@of_rows
def multiply(out, a, b, depth, bias, floor, add, workspace):
    """out = max(floor, a b + bias), or with `add` out + a b; bias may be None, floor NOTHING.

    out is (matrix, row, column, rows, columns), a block of a matrix; a and b are (matrix, row,
    column, transposed), where the block of each begins, and whether it lies transposed there.
    `depth` is the number of a's columns and b's rows. `workspace` is from `room`.
    """
    matrix, row, column, rows, columns = out
    if rows <= 0 or columns <= 0:
        return
    streams = not add and depth <= DEPTH and _streams(matrix, column)
    a_matrix, a_row, a_column, a_transposed = a
    b_panel, a_strips, edge, bias_row = workspace
    for k in range(0, max(depth, 1), DEPTH):
        terms = min(DEPTH, depth - k)
        continued = add or k > 0
        least = floor if k + DEPTH >= depth else NOTHING
        if a_transposed:
            _pack_columns(a_strips, a_matrix, a_row + k, a_column, terms, rows)
        for j in range(0, columns, WIDTH):
            width = min(WIDTH, columns - j)
            _pack_panel(b_panel, b, k, j, terms, width)
            for c in range(WIDTH):
                bias_row[0, c] = bias[column + j + c] if bias is not None and c < width else _ZERO
            for i in range(0, rows, HEIGHT):
                height = min(HEIGHT, rows - i)
                if a_transposed:
                    left = (address(a_strips, i // HEIGHT * DEPTH, 0), 1, HEIGHT, HEIGHT)
                else:
                    left = (
                        address(a_matrix, a_row + i, a_column + k),
                        a_matrix.shape[1],
                        1,
                        height,
                    )
                whole = height == HEIGHT and width == WIDTH
                place = (address(matrix, row + i, column + j), matrix.shape[1])
                if not whole:
                    place = (address(edge, 0, 0), WIDTH)
                    if continued:
                        _copy(edge, 0, 0, matrix, row + i, column + j, height, width)
                start = place if continued else (address(bias_row, 0, 0), 0)
                target = (place[0], place[1], np.intp(whole and streams))
                ahead = _part_of_panel(b, k, min(j + WIDTH, columns - 1), terms, i // HEIGHT)
                multiply_tile(terms, left, address(b_panel, 0, 0), start, target, least, ahead)
                if not whole:
                    _copy(matrix, row + i, column + j, edge, 0, 0, height, width)


@of_rows
def _streams(matrix, column):
    """Whether results are better written past the caches: many of them, in whole cache lines."""
    return (
        matrix.size > CACHED
        and matrix.shape[1] % LANES == 0
        and address(matrix, 0, column) % (4 * LANES) == 0
    )


@of_rows
def put(matrix, row, column, values):
    """Copy `values` [n] to a place in a matrix, past the caches where it is larger than those."""
    whole = values.size // LANES * LANES if _streams(matrix, column) else 0
    for j in range(0, whole, LANES):
        stream(address(matrix, row, column + j), values.ctypes.data + 4 * j)
    out = matrix[row]
    for j in range(whole, values.size):
        out[column + j] = values[j]


@of_rows
def _copy(out, out_row, out_column, matrix, row, column, rows, columns):
    for i in range(rows):
        for j in range(columns):
            out[out_row + i, out_column + j] = matrix[row + i, column + j]


@of_rows
def _pack_panel(panel, b, k, j, rows, columns):
    """Rows from k and columns from j on of the block b, row behind row, zeros to the right."""
    matrix, first_row, first_column, transposed = b
    if transposed:
        # Whole squares by way of the registers, the rest one by one.
        first_row, first_column = first_row + j, first_column + k
        squares = rows // LANES * LANES if columns == WIDTH else 0
        for i in range(0, squares, LANES):
            for c in range(0, WIDTH, LANES):
                transpose(panel, i, c, matrix, first_row + c, first_column + i)
        for i in range(squares, rows):
            for c in range(columns):
                panel[i, c] = matrix[first_row + c, first_column + i]
    else:
        first_row, first_column = first_row + k, first_column + j
        if columns == WIDTH:
            for i in range(rows):
                move(address(panel, i, 0), address(matrix, first_row + i, first_column), WIDTH)
        else:
            _copy(panel, 0, 0, matrix, first_row, first_column, rows, columns)
    if columns < WIDTH:
        for i in range(rows):
            for c in range(columns, WIDTH):
                panel[i, c] = 0


@of_rows
def _part_of_panel(b, k, j, terms, turn):
    """Where `_pack_panel` will read, as the microkernel takes it: another part each turn."""
    matrix, row, column, transposed = b
    numbers, rows = (terms, WIDTH) if transposed else (WIDTH, terms)  # as they lie in memory
    lines = 0
    while LANES << lines < numbers:
        lines += 1
    first = min(turn * (terms // TERMS_A_LINE >> lines), rows - 1)
    if transposed:
        place = address(matrix, row + j + first, column + k)
    else:
        place = address(matrix, row + k + first, column + j)
    return place, matrix.shape[1], lines


@of_rows
def _pack_columns(strips, matrix, first_row, first_column, rows, columns):
    """`rows` rows of a matrix in strips of HEIGHT columns, zeros to the right of the last one.

    Strip s takes the rows from s · DEPTH on.
    """
    whole = columns // HEIGHT * HEIGHT
    # Whole rows, as they lie in memory; four of them, to fill the lines of a strip.
    several = rows // 4 * 4
    for i in range(0, several, 4):
        for j in range(0, whole, HEIGHT):
            line = j // HEIGHT * DEPTH + i
            for r in range(i, i + 4):
                source = address(matrix, first_row + r, first_column + j)
                move(address(strips, line + r - i, 0), source, HEIGHT)
    for i in range(several, rows):
        for j in range(0, whole, HEIGHT):
            source = address(matrix, first_row + i, first_column + j)
            move(address(strips, j // HEIGHT * DEPTH + i, 0), source, HEIGHT)
    if whole < columns:
        last = whole // HEIGHT * DEPTH
        for i in range(rows):
            for c in range(HEIGHT):
                there = whole + c < columns
                strips[last + i, c] = (
                    matrix[first_row + i, first_column + whole + c] if there else _ZERO
                )


def tiles(rows: int, step: int, most: int = 512) -> int:
    """Into how many tiles of at most about `most` rows to cut: as many for each thread.

    Tiles begin at multiples of `step`. No number of a product depends on how it is cut: its terms
    are summed in one order.
    """
    threads = pool.threads()
    return max(1, min(blocks(rows, step), blocks(blocks(rows, most), threads) * threads))


@of_rows
def tile_of(tile, tiles, rows, step):
    """Where a tile of `rows` begins and ends, at a multiple of `step`."""
    steps = (rows + step - 1) // step
    return tile * steps // tiles * step, min((tile + 1) * steps // tiles * step, rows)


@parallel_loop
def _tokens_cut(part, a, b, parts):
    """parts [parts, n, m], of which the sum is aᵀ b. a [tokens, n], b [tokens, m]."""
    first, last = block_of(part, len(a), DEPTH)
    _, n, m = parts.shape
    block, left, right = (parts[part], 0, 0, n, m), (a, first, 0, True), (b, first, 0, False)
    multiply(block, left, right, last - first, None, NOTHING, False, room(n))


@parallel_loop
def _sum_of_parts(i, parts, add, out):
    """A row of the sum of matrices, parts [parts, n, m], to out [n, m], or added to it."""
    row = out[i]
    if not add:
        row[:] = 0
    for part in range(len(parts)):
        for j in range(row.size):
            row[j] += parts[part, i, j]


@parallel_loop
def _result_cut(tile, tiles, a, b, add, out):
    """out = aᵀ b, or out + aᵀ b. a [tokens, n], b [tokens, m], out [n, m], its longer side cut."""
    n, m = out.shape
    top, bottom = tile_of(tile, tiles, n, HEIGHT) if n >= m else (0, n)
    left, right = (0, m) if n >= m else tile_of(tile, tiles, m, WIDTH)
    block = (out, top, left, bottom - top, right - left)
    space = room(bottom - top)
    multiply(block, (a, 0, top, True), (b, 0, left, False), len(a), None, NOTHING, add, space)


def weight_gradient(x: np.ndarray, dy: np.ndarray) -> Any:
    """The writer of xᵀ dy, the gradient of the matrix in y = x W."""

    def dweight(out: np.ndarray, add: bool) -> None:
        if out.flags.carray and out.dtype == np.float32:
            _write(x, dy, out, add)
        else:
            whole = empty(*out.shape)
            _write(x, dy, whole, False)
            out[...] = out + whole if add else whole

    return dweight


def _write(x: np.ndarray, dy: np.ndarray, out: np.ndarray, add: bool) -> None:
    n, m = out.shape
    if out.size <= _SMALL:
        # A small result is cheaper to add up than what makes it is to go through several times.
        parts = np.empty((blocks(len(x), DEPTH), n, m), out.dtype)
        _tokens_cut(len(parts), x, dy, parts)
        _sum_of_parts(n, parts, add, out)
    else:
        count = tiles(n, HEIGHT) if n >= m else tiles(m, WIDTH)
        _result_cut(count, count, x, dy, add, out)
