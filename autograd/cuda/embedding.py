"""embedding: a row of the table for each token; the gradient is summed in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module, backend_of
from autograd.cuda.device import FLOAT32, as_indices, blocks, contiguous, device_of, is_contiguous
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.lookup import embedding

_PLACES, _WARPS = 16, 4  # of a warp, and of a block, of the gradient
_SPAN = 256  # columns of a warp


def order_of(ids: np.ndarray) -> np.ndarray:
    """The tokens in a stable sort by id, on the host: [tokens], int32.

    A batch is sorted there, before its step, because CuPy's sort waits for the device.
    """
    if ids.size and ids.min() >= 0 and ids.max() < 1 << 16:
        ids = ids.astype(np.uint16)  # which NumPy sorts by radix
    return ids.argsort(kind="stable").astype(np.int32)


def _covers(table: Array, positions: Array | None = None, **_: Any) -> bool:
    return (
        table.shape[1] % 8 == 0
        and is_contiguous(table)
        and (positions is None or (positions.dtype == table.dtype and is_contiguous(positions)))
    )


@embedding.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_embedding(
    table: Array,
    positions: Array | None = None,
    *,
    ids: Array,
    position_ids: Array | None = None,
    order: Array | None = None,
    position_order: Array | None = None,
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    xp, device, empty = array_module(table), device_of(table), backend_of(table).empty
    tokens, columns = len(ids), table.shape[1]
    constants = {"COLUMNS": columns, "REAL_BYTES": table.itemsize}
    mask = mask_of(site)
    ids = as_indices(ids)
    position_ids = None if positions is None or position_ids is None else as_indices(position_ids)
    y = empty((tokens, columns), table.dtype)
    device.launch(
        *("embedding", constants, "embedding", (blocks(y.size // 8, 256),), 256),
        table=table,
        vocabulary=len(table),
        positions=positions,
        length=0 if positions is None else len(positions),
        ids=ids,
        position_ids=position_ids,
        scale=scale,
        mask=mask,
        y=y,
        tokens=tokens,
    )

    def writer(dy: Array, rows: Array, count: int, scale: float, order: Array | None) -> Any:
        """The writer of the gradient of a matrix of `count` rows, of which each token used one."""

        def write(out: Array, add: bool) -> None:
            fits = out.dtype == FLOAT32 and is_contiguous(out)
            whole = out if fits else empty((count, columns), FLOAT32)
            if not (fits and add):
                whole[...] = 0
            by_row = as_indices(xp.argsort(rows, kind="stable") if order is None else order)
            chunks, spans = blocks(tokens, _PLACES), blocks(columns, _SPAN)
            parts = empty((chunks, 2, columns), FLOAT32)
            both = {"rows": rows, "order": by_row, "tokens": tokens, "parts": parts}
            both |= {"scale": scale * mask[-1], "gradient": whole, "count": count}
            grid = (blocks(chunks * spans, _WARPS),)
            name = "embedding_gradient"
            device.launch(
                *("embedding", constants, name, grid, 32 * _WARPS), dy=dy, mask=mask, **both
            )
            device.launch(*("embedding", constants, "sum_long_runs", (chunks, spans), 256), **both)
            if not fits:
                out[...] = out + whole if add else whole

        return write

    def vjp(dy: Array) -> Any:
        dy = contiguous(dy)
        dtable = writer(dy, ids, len(table), scale, order)
        if positions is None:
            return dtable
        return dtable, writer(dy, position_ids, len(positions), 1.0, position_order)

    return y, vjp
