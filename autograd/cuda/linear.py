"""linear: the library's matrix products, and one pass for what surrounds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.cuda.device import blocks, device_of
from autograd.cuda.fallback import reference
from autograd.cuda.sums import sum_parts
from autograd.op import Vjp
from autograd.ops.linear import linear

_BLOCKS_A_PROCESSOR = 4


def weight_gradient(x: Array, dy: Array, scale: Array | None = None) -> Any:
    """The writer of xᵀ dy, the gradient of the matrix in y = x W; or of `scale` times that."""

    def dweight(out: Array, add: bool) -> None:
        device_of(x).product(out, x, dy, a_transposed=True, scale=scale, add=add)

    return dweight


def _is_covered(x: Array, weight: Array, bias: Array | None) -> bool:
    return (
        x.ndim == weight.ndim == 2
        and x.dtype == weight.dtype
        and x.shape[1] == len(weight)
        and x.size > 0
        and weight.shape[1] % 8 == 0
        and x.flags.c_contiguous
        and weight.flags.c_contiguous
        and (bias is None or (bias.dtype == np.float32 and bias.shape == weight.shape[1:]))
    )


def fast_linear(
    x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False
) -> tuple[Array, Vjp]:
    if not _is_covered(x, weight, bias):
        return reference(linear, x, weight, bias, relu=relu)
    module, device = array_module(x), device_of(x)
    (rows, _), columns = x.shape, weight.shape[1]
    constants = {"REAL_BYTES": x.itemsize}
    sizes = np.uint32(rows), np.uint32(columns)
    y = module.empty((rows, columns), x.dtype)
    device.product(y, x, weight)
    if bias is not None or relu:
        grid = (blocks(y.size // 8, 256),)
        arguments = [y, bias, np.int32(relu), *sizes]
        device.launch("linear", constants, "add_bias", grid, 256, arguments)

    def vjp(dy: Array) -> Any:
        dy = module.ascontiguousarray(dy)
        dbias = None
        if bias is not None or relu:
            across = blocks(columns, 256)
            most = max(1, _BLOCKS_A_PROCESSOR * device.processors // across)
            rows_a_block = 8 * blocks(blocks(rows, 8), most)
            down = blocks(rows, rows_a_block)
            parts = module.empty((down, columns), np.float32)
            arguments = [dy, y if relu else None, parts, *sizes, np.uint32(rows_a_block)]
            device.launch("linear", constants, "bias_gradient", (across, down), 256, arguments)
            dbias = module.empty(columns, np.float32)
            sum_parts(parts, dbias)
        dx = module.empty(x.shape, x.dtype)
        device.product(dx, dy, weight, b_transposed=True)
        dweight = weight_gradient(x, dy)
        return (dx, dweight) if bias is None else (dx, dweight, dbias)

    return y, vjp
