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
    rate: Any,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: Any,
    scale: Any = 1.0,
    rounded: Array | None = None,
) -> None:
    device_of(values).launch(
        *("adam", {"REAL_BYTES": 4}, "adam_step", _grid(values), _THREADS),
        values=values,
        grads=grads,
        first=first,
        second=second,
        copy=rounded,
        rate=_on_device(values, rate / (1 - beta1**step)),
        beta1=beta1,
        beta2=beta2,
        correction=_on_device(values, 1 - beta2**step),
        epsilon=epsilon,
        scale=_on_device(values, scale),
        count=values.size,
    )


def _on_device(like: Array, number: Any) -> Array:
    """A number as float32 on the device, where it may be already: nothing waits for it.

    The scale of clipping is computed there, and a replay reads the rate there (Backend.record).
    """
    if isinstance(number, type(like)):
        return number.astype(np.float32, copy=False)
    return array_module(like).full((), number, np.float32)


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
