"""linear: matrix products by cuBLAS, and a kernel for the gradients of bias and ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autograd.backend import Array, backend_of
from autograd.checks import shape_of
from autograd.cuda.bias import bias_gradient
from autograd.cuda.device import FLOAT32, contiguous, device_of, is_contiguous
from autograd.cuda.product import Product
from autograd.cuda.sums import SumWriter
from autograd.operation import Vjp
from autograd.ops.large.affine import linear
from autograd.writers import WithSum, parted, takes_sum


def product_writer(
    a: Array,
    b: Array,
    scale: Array | None = None,
    *,
    a_transposed: bool = False,
    b_transposed: bool = False,
    sums: Callable[[Array], None] | None = None,
) -> Any:
    """The writer of a product, or of `scale` times it, which cuBLAS adds to the output itself.

    sums: as for a Product, if the output is of float32.
    """

    def multiply(out: Array, add: bool) -> None:
        with_sums = sums if out.itemsize == 4 else None
        product = Product(out, a, b, a_transposed, b_transposed, scale, add, sums=with_sums)
        device_of(out).multiply(product)

    def into(out: Array, add: bool) -> None:
        if out.itemsize in (4, a.itemsize) and is_contiguous(out):
            multiply(out, add)
            return
        whole = backend_of(out).empty(out.shape, FLOAT32)
        multiply(whole, False)
        out[...] = out + whole if add else whole

    return into


class BiasWriter(SumWriter):
    """The writer of a bias's gradient: [columns], the sum of the rows of dy: [rows, columns].

    The product that computes the weight's gradient may add them up on its way: it is the first to
    be called, unless the weight is a constant.
    """

    def __init__(self, dy: Array) -> None:
        self._dy: Array | None = dy
        self._parts: Array | None = None

    def take(self, parts: Array) -> None:
        """Use these parts of the sum."""
        self._dy, self._parts = None, parts

    def parts(self) -> Array:
        if self._dy is not None:
            self.take(bias_gradient(self._dy))
        return self._parts


def covers_linear(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> bool:
    return (
        x.ndim == weight.ndim == 2
        and x.dtype == weight.dtype
        and x.size > 0
        and weight.shape[1] % 8 == 0
        and is_contiguous(x)
        and is_contiguous(weight)
        and (
            bias is None
            or (
                shape_of(bias) == weight.shape[1:] and bias.dtype == x.dtype and is_contiguous(bias)
            )
        )
    )


@linear.on("cupy", "float32", "bfloat16", covers=covers_linear)
def fast_linear(
    x: Array, weight: Array, bias: Array | None = None, *, relu: bool = False
) -> tuple[Array, Vjp]:
    device, empty = device_of(x), backend_of(x).empty
    (rows, _), columns = x.shape, weight.shape[1]
    y = empty((rows, columns), x.dtype)
    device.multiply(Product(y, x, weight, bias=bias, relu=relu))
    cut_off = y if relu else None  # without a ReLU, no gradient needs y

    @takes_sum
    def vjp(dy: Array | WithSum) -> Any:
        dy, dbias = parted(dy)
        dy = contiguous(dy)
        sums = None
        if relu:
            dbias = SumWriter(bias_gradient(dy, cut_off))
        elif bias is not None and dbias is None:
            dbias = BiasWriter(dy)
            sums = dbias.take
        # A writer, since dx is often added to the gradient of a residual connection.
        dx = product_writer(dy, weight, b_transposed=True)
        dweight = product_writer(x, dy, sums=sums, a_transposed=True)
        return (dx, dweight) if bias is None else (dx, dweight, dbias)

    return y, vjp
