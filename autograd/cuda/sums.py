"""Adding up the partial sums of blocks."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, blocks, device_of


def sum_parts(parts: Array, out: Array, add: bool = False) -> None:
    """out = Σ parts, or out + Σ parts. parts: [count, ...]; out: [...], float32."""
    count, columns = len(parts), out.size
    device_of(parts).launch(
        *("sums", {"REAL_BYTES": 4}, "sum_parts", (blocks(columns, 32),), 512),
        parts=parts,
        count=count,
        columns=columns,
        add=int(add),
        out=out,
    )


def sum_writer(parts: Array) -> Any:
    """The writer of a gradient: [n], the sum of parts: [count, n]."""

    def into(out: Array, add: bool) -> None:
        if out.dtype == FLOAT32 and out.flags.c_contiguous:
            sum_parts(parts, out, add)
            return
        total = backend_of(parts).empty(parts.shape[1:], parts.dtype)
        sum_parts(parts, total)
        out[...] = out + total if add else total

    return into
