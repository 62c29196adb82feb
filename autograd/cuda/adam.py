"""Adam's step and the gradient norm, each one pass over the flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module, backend_of
from autograd.cuda.device import FLOAT32, blocks, device_of, is_contiguous
from autograd.ops.large.adam import adam_step, squared_norm

_THREADS, _BLOCKS_A_PROCESSOR = 256, 8


def _grid(x: Array) -> tuple[int]:
    """As many blocks as fill the device, or fewer if there is less work."""
    return (min(blocks(x.size // 4, _THREADS), _BLOCKS_A_PROCESSOR * device_of(x).processors),)


def _read_by_fours(*arrays: Array) -> bool:
    """Whether kernels can read and write these flat arrays four numbers at a time."""
    return all(x.size % 4 == 0 and x.dtype == FLOAT32 and is_contiguous(x) for x in arrays)


def _covers(
    values: Array,
    grads: Array,
    first: Array,
    second: Array,
    *,
    rounded: Array | None = None,
    **_: Any,
) -> bool:
    return _read_by_fours(values, grads, first, second) and (
        rounded is None or (rounded.itemsize == 2 and is_contiguous(rounded))
    )


@adam_step.on("cupy", covers=_covers)
def fast_adam_step(
    values: Array,
    grads: Array,
    first: Array,
    second: Array,
    *,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    scale: Any = 1.0,
    rounded: Array | None = None,
) -> None:
    # On the device, so that nothing waits for the norm that the scale of clipping needs.
    if isinstance(scale, type(values)):
        factor = scale.astype(np.float32, copy=False)
    else:
        factor = array_module(values).full((), scale, np.float32)
    device_of(values).launch(
        *("adam", {"REAL_BYTES": 4}, "adam_step", _grid(values), _THREADS),
        values=values,
        grads=grads,
        first=first,
        second=second,
        copy=rounded,
        rate=rate / (1 - beta1**step),
        beta1=beta1,
        beta2=beta2,
        correction=1 - beta2**step,
        epsilon=epsilon,
        scale=factor,
        count=values.size,
    )


@squared_norm.on("cupy", covers=_read_by_fours)
def fast_squared_norm(x: Array) -> Array:
    sums = backend_of(x).empty(_grid(x), FLOAT32)
    device_of(x).launch(
        *("adam", {"REAL_BYTES": 4}, "sum_of_squares", _grid(x), _THREADS),
        x=x,
        count=x.size,
        sums=sums,
    )
    return sums.sum()
