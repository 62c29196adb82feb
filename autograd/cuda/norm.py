"""add_dropout_norm and layer_norm: one pass over memory each way."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, backend_of
from autograd.checks import shape_of
from autograd.cuda.device import FLOAT32, blocks, contiguous, device_of, is_contiguous
from autograd.cuda.mask import mask_of
from autograd.cuda.sums import SumWriter
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.norm import EPSILON, add_dropout_norm, layer_norm
from autograd.writers import WithSum

_THREADS = 128  # of the forward pass, four rows
_MOST_COLUMNS = 2048  # of a row that stays in a warp's registers


def warps_of(columns: int) -> int:
    """The warps of a block of the gradient: one block fills a multiprocessor's registers."""
    for most, warps in ((256, 16), (512, 12), (1024, 8)):
        if columns <= most:
            return warps
    return 4


def _norm(
    x: Array | None,
    residual: Array,
    gain: Array,
    bias: Array,
    site: DropoutSite | None,
    epsilon: float,
) -> tuple[Array, Vjp]:
    """LayerNorm(residual + Dropout(x)), or LayerNorm(residual) if x is None."""
    device, empty = device_of(residual), backend_of(residual).empty
    rows, columns = residual.shape
    warps = warps_of(columns)
    constants = {
        "COLUMNS": columns,
        "WARPS": warps,
        "HAS_X": int(x is not None),
        "REAL_BYTES": residual.itemsize,
    }
    mask = mask_of(site)
    y, statistics = empty(residual.shape, residual.dtype), empty((rows, 2), FLOAT32)
    device.launch(
        *("norm", constants, "add_dropout_norm", (blocks(rows, _THREADS // 32),), _THREADS),
        x=x,
        residual=residual,
        gain=gain,
        bias=bias,
        mask=mask,
        epsilon=epsilon,
        y=y,
        statistics=statistics,
        rows=rows,
    )

    def vjp(dy: Array) -> tuple[Any, Array, Any, Any]:
        dy = contiguous(dy)
        dx = None if x is None else empty(dy.shape, dy.dtype)
        dresidual = empty(dy.shape, dy.dtype)
        grid = min(blocks(rows, warps), device.processors)
        parts = empty((2 if x is None else 3, grid, columns), FLOAT32)
        device.launch(
            *("norm", constants, "add_dropout_norm_gradient", (grid,), 32 * warps),
            dy=dy,
            x=x,
            residual=residual,
            gain=gain,
            mask=mask,
            statistics=statistics,
            dx=dx,
            dresidual=dresidual,
            parts=parts,
            rows=rows,
        )
        if x is not None:
            dx = WithSum(dx, SumWriter(parts[2]))
        return dx, dresidual, SumWriter(parts[0]), SumWriter(parts[1])

    return y, vjp


def _covers(x: Array, residual: Array, gain: Array, bias: Array, **_: Any) -> bool:
    return (
        x.ndim == 2
        and x.shape == shape_of(residual)
        and x.dtype == residual.dtype
        and shape_of(gain) == shape_of(bias) == x.shape[1:]
        and gain.dtype == bias.dtype == np.float32
        and x.shape[1] % 8 == 0
        and 0 < x.shape[1] <= _MOST_COLUMNS
        and all(map(is_contiguous, (x, residual, gain, bias)))
    )


@add_dropout_norm.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_add_dropout_norm(
    x: Array,
    residual: Array,
    gain: Array,
    bias: Array,
    *,
    site: DropoutSite | None = None,
    epsilon: float = EPSILON,
) -> tuple[Array, Vjp]:
    return _norm(x, residual, gain, bias, site, epsilon)


def _covers_norm(x: Array, gain: Array, bias: Array, **_: Any) -> bool:
    return _covers(x, x, gain, bias)


@layer_norm.on("cupy", "float32", "bfloat16", covers=_covers_norm)
def fast_layer_norm(
    x: Array, gain: Array, bias: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Vjp]:
    y, vjp = _norm(None, x, gain, bias, None, epsilon)
    return y, lambda dy: vjp(dy)[1:]
