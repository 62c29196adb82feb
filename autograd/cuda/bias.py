"""Bias and ReLU after a product, in a separate pass."""

from __future__ import annotations

from autograd.cuda.device import Device, blocks
from autograd.cuda.products import Product


def add_bias(device: Device, product: Product) -> None:
    """y = y + bias, then max(0, y), in place, for the result y: [rows, columns] of a product."""
    y, bias, relu = product.out, product.bias, product.relu
    if bias is None and not relu:
        return
    rows, columns = y.shape
    device.launch(
        *("linear", {"REAL_BYTES": y.itemsize}, "add_bias", (blocks(y.size // 8, 256),), 256),
        y=y,
        bias=bias,
        relu=int(relu),
        rows=rows,
        columns=columns,
    )
