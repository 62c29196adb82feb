"""A matrix product, as it is asked for; and its class, which has those of similar sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, backend_of
from autograd.cuda.cublaslt import Problem

_TYPES = {4: "float32", 2: "bfloat16"}  # by the bytes of a number
# Significant bits in the name of a class: with 2, a power of two and the next one have one size
# between them.
_TOKENS, _SIZES = 2, 4


class Product(NamedTuple):
    """out = scale · a b, or out + scale · a b with `add`; then + bias, then max(0, ·) with `relu`.

    The row stride of a matrix may be larger than its rows. `scale` is a float32 number on the
    device; `bias` has the dtype of `out`.

    positive: with bias and ReLU, may be called with a mask of where the result is above 0: if a way
    that finds it out at once is the fastest one.
    where: a mask; the result is set to 0 where it has no bit.
    sums: is called with the sums of the rows of b, in parts: [count, columns], float32. Only for a
    b that is not transposed, and an out of float32.

    A mask is [rows, bytes] of uint8, a bit for each number: column c is bit c % 8 of byte c // 8 of
    its row (`mask_like`).
    """

    out: Array
    a: Array
    b: Array
    a_transposed: bool = False
    b_transposed: bool = False
    scale: Array | None = None
    add: bool = False
    bias: Array | None = None
    relu: bool = False
    positive: Callable[[Array], None] | None = None
    where: Array | None = None
    sums: Callable[[Array], None] | None = None

    @property
    def has_masks_or_sums(self) -> bool:
        return not (self.positive is None and self.where is None and self.sums is None)

    def without(self) -> Product:
        """The same product without masks and sums."""
        return self._replace(positive=None, where=None, sums=None)


def mask_like(x: Array) -> Array:
    """An uninitialised mask for x: [rows, columns].

    Its rows have a multiple of 16 bytes, as cuBLASLt wants it.
    """
    rows, columns = x.shape
    return backend_of(x).empty((rows, 16 * -(-columns // 128)), np.dtype(np.uint8))


def stride_of(x: Array) -> int:
    """Numbers from row to row. For a matrix of one row, NumPy's stride is arbitrary."""
    return max(x.strides[0] // x.itemsize, x.shape[1])


def problem_of(product: Product, tf32: bool) -> Problem:
    """The product for cuBLASLt."""
    out, a, b = product.out, product.a, product.b
    has_mask = product.positive is not None or product.where is not None
    return Problem(
        rows=out.shape[0],
        columns=out.shape[1],
        depth=a.shape[0] if product.a_transposed else a.shape[1],
        a_transposed=product.a_transposed,
        b_transposed=product.b_transposed,
        a_stride=stride_of(a),
        b_stride=stride_of(b),
        out_stride=stride_of(out),
        dtype=_TYPES[a.itemsize],
        out_dtype=_TYPES[out.itemsize],
        epilogue=_epilogue_of(product),
        scale_on_device=product.scale is not None,
        tf32=tf32,
        mask_stride=-(-out.shape[1] // 128) * 128 if has_mask else 0,
    )


def _epilogue_of(product: Product) -> str:
    """The name of what follows the product, in cublaslt.py."""
    if product.where is not None:
        return "masked"
    if product.sums:
        return "sums"
    parts = {
        "relu": product.relu,
        "mask": product.positive is not None,
        "bias": product.bias is not None,
    }
    return "_".join(name for name, there in parts.items() if there)


def class_of(problem: Problem, add: bool) -> str:
    """The class of a product, in words.

    Tokens are the rows of a product, or where it is a gradient of a matrix, its depth. Their number
    differs from batch to batch, so there are few classes of it: a run has soon met all of them.
    """
    p = problem
    of_rows, of_depth = (_SIZES, _TOKENS) if p.a_transposed else (_TOKENS, _SIZES)
    rounded = _rounded(p.rows, of_rows), _rounded(p.depth, of_depth), _rounded(p.columns, _SIZES)
    sizes = " x ".join(map(str, rounded))
    kinds = {
        "a transposed": p.a_transposed,
        "b transposed": p.b_transposed,
        "scaled": p.scale_on_device,
        "added": add,
        "tf32": p.tf32,
        p.epilogue: bool(p.epilogue),
    }
    return ", ".join([sizes, f"{p.dtype} to {p.out_dtype}", *(k for k, v in kinds.items() if v)])


def _rounded(size: int, bits: int) -> int:
    """A size rounded up to so many significant bits."""
    step = 1 << max(0, size.bit_length() - bits)
    return -(-size // step) * step
