"""embedding: gathering, positions and dropout in one pass; the gradient is added in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from autograd.cpu.loops import ROWS, blocks, of_rows, parallel_loop, plain
from autograd.cpu.norm import _dropout
from autograd.cpu.philox import dropout_factors, mask_of, words_for
from autograd.dropout import DropoutSite
from autograd.op import Vjp
from autograd.ops.embedding import embedding

_COLUMNS = 32  # columns of a table that one thread adds to: two cache lines


@parallel_loop
def _gather(y, table, positions, ids, places, scale, mask):
    """y [tokens, d] = Dropout(table[ids] · scale + positions[places])."""
    for block in prange(blocks(len(y))):
        first, last = block * ROWS, min((block + 1) * ROWS, len(y))
        _gather_rows(first, last, y, table, positions, ids, places, scale, mask)


@of_rows
def _gather_rows(first, last, y, table, positions, ids, places, scale, mask):
    d = y.shape[1]
    factors, words = np.empty(d, np.float32), words_for(d)
    for i in range(first, last):
        row, symbol = y[i], table[max(ids[i], 0)]
        known = scale if ids[i] >= 0 else np.float32(0)
        for j in range(d):
            row[j] = symbol[j] * known
        if positions is not None:
            position = positions[places[i]]
            for j in range(d):
                row[j] += position[j]
        dropout_factors(factors, words, mask, i, 0)
        for j in range(d):
            row[j] *= factors[j]


@parallel_loop
def _add_rows(rows, ids, scale, table):
    """table[ids] += rows · scale, in order, whatever ids repeat; none where an id is below 0.

    rows [tokens, d], table [vocabulary, d]. Each thread takes some columns of all rows.
    """
    for block in prange((rows.shape[1] + _COLUMNS - 1) // _COLUMNS):
        first, last = block * _COLUMNS, min((block + 1) * _COLUMNS, rows.shape[1])
        for i in range(len(ids)):
            if ids[i] >= 0:
                _add_scaled(table[ids[i]][first:last], rows[i][first:last], scale)


@of_rows
def _add_scaled(out, row, scale):
    for j in range(out.size):
        out[j] += row[j] * scale


@embedding.on("numpy")
def fast_embedding(
    table: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    ids: np.ndarray,
    places: np.ndarray | None = None,
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    if (
        np.ndim(ids) != 1
        or table.ndim != 2
        or (
            positions is not None
            and (np.shape(places) != np.shape(ids) or positions.shape[1:] != table.shape[1:])
        )
    ):
        return embedding.reference(table, positions, ids=ids, places=places, scale=scale, site=site)
    ids = _indices(ids, len(table), "id")
    factor, mask = np.float32(scale), mask_of(site)
    if positions is not None:
        positions = plain(positions)
        places = _indices(places, len(positions), "place")
    y = np.empty((len(ids), table.shape[1]), table.dtype)
    _gather(
        y, plain(table), None if positions is None else plain(positions), ids, places, factor, mask
    )

    def vjp(dy: np.ndarray) -> Any:
        dy = plain(dy)
        if site is not None:
            _dropout(dy, mask, dy)

        def dtable(out: np.ndarray, add: bool) -> None:
            if not add:
                out[...] = 0
            _add_rows(dy, ids, factor, out)

        def dpositions(out: np.ndarray, add: bool) -> None:
            if not add:
                out[...] = 0
            _add_rows(dy, places, np.float32(1), out)

        return dtable if positions is None else (dtable, dpositions)

    return y, vjp


def _indices(numbers: Any, size: int, what: str) -> np.ndarray:
    """Row numbers as compiled loops take them, which look at no bounds themselves."""
    if np.asarray(numbers).dtype.kind not in "iu":
        raise IndexError(f"an {what} is a whole number; these are {np.asarray(numbers).dtype}")
    numbers = plain(np.asarray(numbers, np.int64))
    if numbers.size and numbers.max() >= size:
        raise IndexError(f"{what} {numbers.max()} in a table of {size} rows")
    return numbers
