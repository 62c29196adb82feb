"""feed_forward: two products, with what lies between them in as few passes as possible."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.checks import shape_of
from autograd.cuda.bias import activate, bias_gradient
from autograd.cuda.device import contiguous, device_of, is_contiguous
from autograd.cuda.dropout import drop
from autograd.cuda.linear import BiasWriter, covers_linear, product_writer
from autograd.cuda.product import Product
from autograd.cuda.sums import SumWriter
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.feed_forward import feed_forward
from autograd.tape import running_tape
from autograd.writers import WithSum, parted, takes_sum


def _covers(x: Array, w1: Array, b1: Array, w2: Array, b2: Array | None = None, **_: Any) -> bool:
    return (
        covers_linear(x, w1, b1)
        and w2.dtype == x.dtype
        and is_contiguous(w2)
        and w2.shape[1] % 8 == 0
        and (
            b2 is None
            or (shape_of(b2) == w2.shape[1:] and b2.dtype == x.dtype and is_contiguous(b2))
        )
    )


@feed_forward.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_feed_forward(
    x: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array | None = None,
    *,
    activation: str = "relu",
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    device, empty = device_of(x), backend_of(x).empty
    inner = len(x), w1.shape[1]
    is_relu = activation == "relu"
    h = empty(inner, x.dtype)
    masks: list[Array] = []  # of where the ReLU's result is above 0: at most one
    wanted = masks.append if is_relu and running_tape() is not None else None
    device.multiply(Product(h, x, w1, bias=b1, relu=is_relu, positive=wanted))
    before = h  # what the gradient of the activation needs without a mask: of the ReLU its result
    if not is_relu:
        h = empty(inner, x.dtype)
        activate(before, h, activation)
    if site is not None:
        drop(h, site, h)
    y = empty((len(x), w2.shape[1]), x.dtype)
    device.multiply(Product(y, h, w2, bias=b2))

    @takes_sum
    def vjp(dy: Array | WithSum) -> Any:
        dy, db2 = parted(dy)
        dy = contiguous(dy)
        sums2 = None
        if b2 is not None and db2 is None:
            db2 = BiasWriter(dy)
            sums2 = db2.take
        mask = masks[0] if masks else None
        dh = empty(inner, dy.dtype)
        device.multiply(Product(dh, dy, w2, b_transposed=True, where=mask))
        if site is not None:
            drop(dh, site, dh)
        sums1 = None
        if mask is None:
            db1 = SumWriter(bias_gradient(dh, before, activation))
        else:
            db1 = BiasWriter(dh)
            sums1 = db1.take
        dx = product_writer(dh, w1, b_transposed=True)
        dw1 = product_writer(x, dh, sums=sums1, a_transposed=True)
        dw2 = product_writer(h, dy, sums=sums2, a_transposed=True)
        return (dx, dw1, db1, dw2) if b2 is None else (dx, dw1, db1, dw2, db2)

    return y, vjp
