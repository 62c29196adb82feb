"""embedding: lookup, positions and dropout in one pass; the gradient is added in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.loops import block_of, blocks, contiguous, of_rows, parallel_loop, rows_of
from autograd.cpu.memory import empty
from autograd.cpu.norm import drop
from autograd.cpu.philox import drawn, mask_of, write_factors
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.lookup import embedding, no_token_first

_COLUMNS = 32  # columns of a table that one task adds to: two cache lines


@parallel_loop
def _gather(block, y, table, positions, ids, position_ids, scale, mask):
    """y: [tokens, d] = Dropout(table[ids] · scale + positions[position_ids])."""
    d = y.shape[1]
    rows = rows_of(block, len(y))
    factors, kept = drawn(mask, rows, d)
    for i in rows:
        row, entry = y[i], table[max(ids[i], 0)]
        known = scale if ids[i] >= 0 else np.float32(0)
        for j in range(d):
            row[j] = entry[j] * known
        if positions is not None:
            position = positions[position_ids[i]]
            for j in range(d):
                row[j] += position[j]
        if mask is not None:
            write_factors(factors, kept, mask, i - rows.start)
            for j in range(d):
                row[j] *= factors[0, j]


@parallel_loop
def _add_rows(block, rows, ids, scale, table):
    """table[ids] += rows · scale, one row after another; rows with an id below 0 are skipped.

    rows: [tokens, d]; table: [vocabulary, d]. A task takes _COLUMNS columns of all rows.
    """
    first, last = block_of(block, rows.shape[1], _COLUMNS)
    for i in range(len(ids)):
        if ids[i] >= 0:
            _add_scaled(table[ids[i]][first:last], rows[i][first:last], scale)


@of_rows
def _add_scaled(out, row, scale):
    for j in range(out.size):
        out[j] += row[j] * scale


def _indices(numbers: np.ndarray) -> np.ndarray:
    """Row numbers as compiled loops expect them, and as batches and searches have them."""
    return contiguous(np.asarray(numbers, np.int32))


def _covers(table: np.ndarray, positions: np.ndarray | None = None, **_: Any) -> bool:
    return positions is None or positions.dtype == table.dtype


@embedding.on("numpy", covers=_covers)
def fast_embedding(
    table: np.ndarray,
    positions: np.ndarray | None = None,
    *,
    ids: np.ndarray,
    position_ids: np.ndarray | None = None,
    order: np.ndarray | None = None,
    position_order: np.ndarray | None = None,
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    ids = _indices(ids)
    factor, mask = np.float32(scale), mask_of(site)
    if positions is not None:
        positions = contiguous(positions)
        position_ids = _indices(position_ids)
    y = empty((len(ids), table.shape[1]), table.dtype)
    _gather(blocks(len(y)), y, contiguous(table), positions, ids, position_ids, factor, mask)

    def vjp(dy: np.ndarray) -> Any:
        dy = contiguous(dy)
        if site is not None:
            drop(blocks(len(dy)), dy, mask, dy)

        def dtable(out: np.ndarray, add: bool) -> None:
            if not add:
                out[...] = 0
            _add_rows(blocks(dy.shape[1], _COLUMNS), dy, ids, factor, out)

        def dpositions(out: np.ndarray, add: bool) -> None:
            if not add:
                out[...] = 0
            _add_rows(blocks(dy.shape[1], _COLUMNS), dy, position_ids, np.float32(1), out)

        return dtable if positions is None else (dtable, dpositions)

    return y, vjp


@parallel_loop
def _without_first(task, ids, position_ids, out):
    for i in range(out.size):
        out[i] = -1 if position_ids[i] == 0 else ids[i]


def _covers_first(ids: np.ndarray, position_ids: np.ndarray) -> bool:
    return ids.ndim == 1 and position_ids.dtype == ids.dtype


@no_token_first.on("numpy", "int32", covers=_covers_first)
def fast_no_token_first(ids: np.ndarray, position_ids: np.ndarray) -> np.ndarray:
    out = empty(ids.shape, np.int32)
    _without_first(1, contiguous(ids), contiguous(position_ids), out)
    return out
