"""Bias and activation after a product, and their gradients, in a separate pass."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, Device, blocks, device_of
from autograd.cuda.product import Product, mask_like

ACTIVATIONS = {"relu": 0, "gelu": 1, "swish": 2}  # as in linear.cu
_BLOCKS_A_PROCESSOR = 8  # of bias_gradient, enough to keep loads in flight


def constants_of(x: Array, activation: str = "relu") -> dict[str, int]:
    """The constants of linear.cu."""
    return {"REAL_BYTES": x.itemsize, "ACTIVATION": ACTIVATIONS[activation]}


def add_bias(device: Device, product: Product) -> None:
    """y = y + bias, then max(0, y), in place, for the result y: [rows, columns] of a product."""
    y, bias, relu = product.out, product.bias, product.relu
    if bias is not None or relu:
        _launch(device, "add_bias", y, bias=bias, relu=int(relu))


def complete(device: Device, product: Product) -> None:
    """What a product asks for of masks and sums, when its result is there."""
    y, where = product.out, product.where
    if product.positive:
        mask = mask_like(y)
        _launch(device, "find_positive", y, mask=mask, mask_stride=mask.shape[1])
        product.positive(mask)
    if where is not None:
        _launch(device, "keep_where", y, mask=where, mask_stride=where.shape[1])
    if product.sums:
        product.sums(bias_gradient(product.b))


def _launch(device: Device, kernel: str, y: Array, **arguments: Any) -> None:
    """Run a kernel of linear.cu that has eight numbers of y: [rows, columns] a thread."""
    rows, columns = y.shape
    device.launch(
        *("linear", constants_of(y), kernel, (blocks(y.size // 8, 256),), 256),
        y=y,
        rows=rows,
        columns=columns,
        **arguments,
    )


def activate(x: Array, y: Array, activation: str) -> None:
    """y = the activation of x, for x and y: [rows, columns], whose columns are a multiple of 8."""
    groups = x.size // 8
    device_of(x).launch(
        *("linear", constants_of(x, activation), "activate", (blocks(groups, 256),), 256),
        x=x,
        y=y,
        groups=groups,
    )


def bias_gradient(dy: Array, x: Array | None = None, activation: str = "relu") -> Array:
    """Take dy: [rows, columns] through the activation of x, in place, unless x is None.

    For the ReLU, x is its result. Returns the sums of the rows of dy in parts: [count, columns].
    """
    device, (rows, columns) = device_of(dy), dy.shape
    across = blocks(columns, 256)
    max_blocks = max(1, _BLOCKS_A_PROCESSOR * device.processors // across)
    rows_a_block = 8 * blocks(blocks(rows, 8), max_blocks)
    down = blocks(rows, rows_a_block)
    parts = backend_of(dy).empty((down, columns), FLOAT32)
    device.launch(
        *("linear", constants_of(dy, activation), "bias_gradient", (across, down), 256),
        dy=dy,
        x=x,
        parts=parts,
        rows=rows,
        columns=columns,
        rows_a_block=rows_a_block,
    )
    return parts
