"""dropout without a sum or a norm after it."""

from __future__ import annotations

from autograd.backend import Array, backend_of
from autograd.cuda.device import blocks, contiguous, device_of, is_contiguous
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.norm import dropout


def drop(x: Array, site: DropoutSite, out: Array) -> Array:
    """Apply dropout to x, and write the result to `out`, which may be x."""
    rows, columns = x.shape
    device_of(x).launch(
        *("dropout", {"REAL_BYTES": x.itemsize}, "dropout", (blocks(x.size // 8, 256),), 256),
        x=x,
        mask=mask_of(site),
        y=out,
        rows=rows,
        columns=columns,
    )
    return out


def _covers(x: Array, *, site: DropoutSite | None) -> bool:
    return site is None or (x.size > 0 and x.shape[1] % 8 == 0 and is_contiguous(x))


@dropout.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_dropout(x: Array, *, site: DropoutSite | None) -> tuple[Array, Vjp]:
    if site is None:
        return x, lambda dy: dy

    def vjp(dy: Array) -> Array:
        dy = contiguous(dy)
        return drop(dy, site, dy)

    return drop(x, site, backend_of(x).empty(x.shape, x.dtype)), vjp
