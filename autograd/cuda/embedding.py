"""embedding: a row of the table for each token; the gradient is summed in a fixed order."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module, backend_of
from autograd.cuda.device import FLOAT32, as_indices, blocks, contiguous, device_of, is_contiguous
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.lookup import embedding

_SPAN, _FEW = 64, 16  # groups of eight columns in a block of the gradient: at most, and few


def shares(columns: int) -> dict[str, int]:
    """The constants of embedding.cu for rows of `columns` columns."""
    span = min(columns // 8, _SPAN)
    return {"COLUMNS": columns, "SPAN": span, "LINES": 32 if span <= _FEW else 8}


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
    scale: float = 1.0,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    xp, device, empty = array_module(table), device_of(table), backend_of(table).empty
    tokens, columns = len(ids), table.shape[1]
    constants = {**shares(columns), "REAL_BYTES": table.itemsize}
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

    span = constants["SPAN"]
    threads = 32 * blocks(span * constants["LINES"], 32)

    def writer(dy: Array, rows: Array, count: int, scale: float) -> Any:
        """The writer of the gradient of a matrix of `count` rows, of which each token used one."""

        def write(out: Array, add: bool) -> None:
            fits = out.dtype == FLOAT32 and is_contiguous(out)
            whole = out if fits else empty((count, columns), FLOAT32)
            if not (fits and add):
                whole[...] = 0
            order = xp.argsort(rows, kind="stable")
            grid = tokens, blocks(columns // 8, span)
            device.launch(
                *("embedding", constants, "embedding_gradient", grid, threads),
                dy=dy,
                rows=rows,
                order=order,
                tokens=tokens,
                scale=scale,
                mask=mask,
                gradient=whole,
                count=count,
            )
            if not fits:
                out[...] = out + whole if add else whole

        return write

    def vjp(dy: Array) -> Any:
        dy = contiguous(dy)
        dtable = writer(dy, ids, len(table), scale)
        if positions is None:
            return dtable
        return dtable, writer(dy, position_ids, len(positions), 1.0)

    return y, vjp
