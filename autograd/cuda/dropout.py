"""dropout by itself, where no sum and no norm follows."""

from __future__ import annotations

from autograd.backend import Array, backend_of
from autograd.cuda.device import blocks, device_of, is_plain, plain
from autograd.cuda.fallback import reference
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.norm import dropout


def _drop(x: Array, site: DropoutSite, out: Array) -> Array:
    """Write x with its dropout to `out`, which may be x."""
    rows, columns = x.shape
    arguments = [x, *mask_of(site), out, rows, columns]
    grid, constants = (blocks(x.size // 8, 256),), {"REAL_BYTES": x.itemsize}
    device_of(x).launch("dropout", constants, "dropout", grid, 256, arguments)
    return out


def fast_dropout(x: Array, *, site: DropoutSite | None) -> tuple[Array, Vjp]:
    is_covered = x.ndim == 2 and x.size > 0 and x.shape[1] % 8 == 0 and is_plain(x)
    if site is None:
        return dropout.reference(x, site=None)
    if not is_covered:
        return reference(dropout, x, site=site)

    def vjp(dy: Array) -> Array:
        dy = plain(dy)
        return _drop(dy, site, dy)

    return _drop(x, site, backend_of(x).empty(x.shape, x.dtype)), vjp
