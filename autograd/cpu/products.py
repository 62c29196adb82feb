"""Matrix products as pieces of compiled loops (after Goto and van de Geijn, 2008).

A loop multiplies a block of rows and continues with what follows, a bias or a softmax, while the
block is in the cache, all on the pool's threads. A library's product would be a separate pass, on
other threads, which compete with the pool's.
"""

from __future__ import annotations

import numpy as np

from autograd.cpu import pool
from autograd.cpu.loop_writers import LoopWriter
from autograd.cpu.loops import block_of, blocks, of_rows, parallel_loop
from autograd.cpu.memory import aligned
from autograd.cpu.microkernel import HEIGHT, VECTORS, WIDTH, multiply_tile
from autograd.cpu.registers import LANES, address, fetch, move, transpose

DEPTH = 512  # terms of a sum at a time: as many rows of WIDTH numbers as the inner caches hold
_SMALL = 1 << 16  # numbers of a result that is small enough for one partial sum per DEPTH tokens
_SELDOM = 3  # 2^3 terms a prefetch: more frequent ones would delay the product's own loads
CACHED = 1 << 18  # numbers of a result that is small enough to stay in the caches

NOTHING = np.float32(-np.inf)  # as a floor: no floor
_ZERO = np.float32(0)

_aligned = of_rows(aligned)


@of_rows
def new_workspace(width):
    """The workspace of `multiply`; `width` is the most columns of a transposed a, else 0."""
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

    out is (matrix, row, column, rows, columns), a block of a matrix. a and b are (matrix, row,
    column, transposed): where the block begins, and whether it is stored transposed. `depth` is
    the number of columns of a and of rows of b. `workspace` comes from `new_workspace`.

    A matrix b of WIDTH columns is read in place. It may hold several panels, of `depth` rows each,
    one below the other: a wider matrix that has been packed.
    """
    matrix, row, column, rows, columns = out
    if rows <= 0 or columns <= 0:
        return
    streams = not add and depth <= DEPTH and _streams(matrix, column)
    a_matrix, a_row, a_column, a_transposed = a
    b_panel, a_strips, edge, bias_row = workspace
    b_matrix, b_row, b_column, b_transposed = b
    is_packed = not b_transposed and b_column == 0 and b_matrix.shape[1] == WIDTH
    # Whether its rows come from memory: those of a gradient, and those for each panel of logits,
    # have just been read. Of long ones, the hardware sees that they go on.
    first_read = not (a_transposed or b_transposed or is_packed) and depth <= DEPTH
    for k in range(0, max(depth, 1), DEPTH):
        terms = min(DEPTH, depth - k)
        continued = add or k > 0
        least = floor if k + DEPTH >= depth else NOTHING
        if a_transposed:
            _pack_columns(a_strips, a_matrix, a_row + k, a_column, terms, rows)
        for j in range(0, columns, WIDTH):
            width = min(WIDTH, columns - j)
            packed_row = b_row + j // WIDTH * depth + k
            panel = address(b_panel, 0, 0)
            if is_packed:
                panel = address(b_matrix, packed_row, 0)
            else:
                pack_panel(b_panel, b, k, j, terms, width)
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
                turn = i // HEIGHT
                if first_read and j == 0 and i + HEIGHT < rows:
                    ahead = _next_rows(a, i + HEIGHT, k, terms)
                elif is_packed:
                    ahead = _part_of_next(b_matrix, packed_row + terms, terms, turn, rows)
                else:
                    ahead = _part_of_panel(b, k, min(j + WIDTH, columns - 1), terms, turn)
                multiply_tile(terms, left, panel, start, target, least, ahead)
                if not whole:
                    _copy(matrix, row + i, column + j, edge, 0, 0, height, width)


@of_rows
def _streams(matrix, column):
    """Whether to use non-temporal stores: for large results in whole cache lines."""
    return (
        matrix.size > CACHED
        and matrix.shape[1] % LANES == 0
        and address(matrix, 0, column) % (4 * LANES) == 0
    )


@of_rows
def _copy(out, out_row, out_column, matrix, row, column, rows, columns):
    for i in range(rows):
        for j in range(columns):
            out[out_row + i, out_column + j] = matrix[row + i, column + j]


@of_rows
def pack_panel(panel, b, k, j, rows, columns):
    """Pack rows from k and columns from j on of the block b contiguously, padded with zeros."""
    matrix, first_row, first_column, transposed = b
    if transposed:
        # Whole squares are transposed in registers, the rest number by number.
        first_row, first_column = first_row + j, first_column + k
        squares = rows // LANES * LANES if columns == WIDTH else 0
        for i in range(0, squares, LANES):
            for c in range(0, WIDTH, LANES):
                transpose(panel, i, c, matrix, first_row + c, first_column + i, LANES)
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
def _next_rows(a, i, k, terms):
    """The rows of `a` from i on that the next tile reads first, for the microkernel to prefetch."""
    matrix, row, column, _ = a
    lines = 0
    while LANES << lines < terms:
        lines += 1
    return address(matrix, row + i, column + k), matrix.shape[1], lines, 1


@of_rows
def _part_of_panel(b, k, j, terms, turn):
    """What `pack_panel` reads next, for the microkernel to prefetch: part `turn` of it."""
    matrix, row, column, transposed = b
    numbers, rows = (terms, WIDTH) if transposed else (WIDTH, terms)  # as they lie in memory
    lines = 0
    while LANES << lines < numbers:
        lines += 1
    first = min(turn * (terms >> _SELDOM >> lines), rows - 1)
    if transposed:
        start = address(matrix, row + j + first, column + k)
    else:
        start = address(matrix, row + k + first, column + j)
    return start, matrix.shape[1], lines, _SELDOM


@of_rows
def _part_of_next(panels, row, terms, turn, rows):
    """As `_part_of_panel`, of the next panel that is read in place, which begins with this row.

    No pass over it comes before the product's. So where there are few rows, and few turns, the
    microkernel has to prefetch more often.
    """
    turns, seldom = (rows - 1) // HEIGHT + 1, 1
    while seldom < _SELDOM and VECTORS << (seldom + 1) <= turns:
        seldom += 1
    first = row + turn * ((terms >> seldom) // VECTORS)
    return address(panels, first, 0), WIDTH, VECTORS - 1, seldom


@of_rows
def _pack_columns(strips, matrix, first_row, first_column, rows, columns):
    """Pack `rows` rows of a matrix into strips of HEIGHT columns, padded with zeros.

    Strip s has the rows of `strips` from s · DEPTH on.
    """
    whole = columns // HEIGHT * HEIGHT
    # Row by row, as in memory, but four rows at a time to fill the cache lines of a strip.
    several = rows // 4 * 4
    for i in range(0, several, 4):
        for j in range(0, whole, HEIGHT):
            line = j // HEIGHT * DEPTH + i
            for r in range(i, i + 4):
                source = address(matrix, first_row + r, first_column + j)
                if j % LANES == 0:
                    fetch(address(matrix, first_row + min(r + 8, rows - 1), first_column + j))
                move(address(strips, line + r - i, 0), source, HEIGHT)
    for i in range(several, rows):
        for j in range(0, whole, HEIGHT):
            source = address(matrix, first_row + i, first_column + j)
            move(address(strips, j // HEIGHT * DEPTH + i, 0), source, HEIGHT)
    if whole < columns:
        last = whole // HEIGHT * DEPTH
        for i in range(rows):
            for c in range(HEIGHT):
                inside = whole + c < columns
                strips[last + i, c] = (
                    matrix[first_row + i, first_column + whole + c] if inside else _ZERO
                )


def tiles(rows: int, step: int, most: int = 512) -> int:
    """The number of tiles of about `most` rows or fewer, the same for each thread.

    Tiles begin at multiples of `step`. The result of a product does not depend on how it is cut:
    the order of its terms is fixed.
    """
    threads = pool.threads()
    return max(1, min(blocks(rows, step), blocks(blocks(rows, most), threads) * threads))


@of_rows
def tile_of(tile, tiles, rows, step):
    """The first row of a tile, and the row after its last, both multiples of `step`."""
    steps = (rows + step - 1) // step
    return tile * steps // tiles * step, min((tile + 1) * steps // tiles * step, rows)


@parallel_loop
def _tokens_cut(part, a, b, parts):
    """parts: [parts, n, m], whose sum is aᵀ b. a: [tokens, n]; b: [tokens, m]."""
    first, last = block_of(part, len(a), DEPTH)
    _, n, m = parts.shape
    block, left, right = (parts[part], 0, 0, n, m), (a, first, 0, True), (b, first, 0, False)
    multiply(block, left, right, last - first, None, NOTHING, False, new_workspace(n))


@parallel_loop
def _sum_of_parts(i, parts, add, out):
    """Write row i of the sum of parts: [parts, n, m] to out: [n, m], or add it."""
    row = out[i]
    if not add:
        row[:] = 0
    for part in range(len(parts)):
        for j in range(row.size):
            row[j] += parts[part, i, j]


@parallel_loop
def _result_cut(tile, tiles, a, b, add, out):
    """A tile of out = aᵀ b, or out + aᵀ b. a: [tokens, n]; b: [tokens, m]; out: [n, m]."""
    n, m = out.shape
    top, bottom = tile_of(tile, tiles, n, HEIGHT) if n >= m else (0, n)
    left, right = (0, m) if n >= m else tile_of(tile, tiles, m, WIDTH)
    block = (out, top, left, bottom - top, right - left)
    workspace = new_workspace(bottom - top)
    multiply(block, (a, 0, top, True), (b, 0, left, False), len(a), None, NOTHING, add, workspace)


def weight_gradient(x: np.ndarray, dy: np.ndarray) -> LoopWriter:
    """The writer of xᵀ dy, the gradient of the matrix in y = x W.

    x: [tokens, n]; dy: [tokens, m].
    """
    n, m = x.shape[1], dy.shape[1]
    if n * m <= _SMALL:
        return _SumOfParts(_tokens_cut, blocks(len(x), DEPTH), x, dy)
    count = tiles(n, HEIGHT) if n >= m else tiles(m, WIDTH)
    return LoopWriter(_result_cut, count, count, x, dy)


class _SumOfParts(LoopWriter):
    """For a small result: adding parts of it costs less than reading x and dy several times."""

    def begin(self, out: np.ndarray, add: bool) -> None:
        """There are two loops, of which the second needs the first."""

    def _write(self, out: np.ndarray, add: bool) -> None:
        parts = np.empty((self._count, *out.shape), out.dtype)
        self._loop(self._count, *self._arguments, parts)
        _sum_of_parts(len(out), parts, add, out)
