"""Logits, with which the loss and the search begin."""

from __future__ import annotations

from autograd.backend import Array, backend_of
from autograd.cuda.device import blocks, device_of
from autograd.cuda.products import Product

_ALIGNED = 64  # numbers of a row, so that an odd vocabulary costs no speed


def logits_of(x: Array, weight: Array) -> Array:
    """x weightᵀ [rows, vocabulary] in their dtype, with rows a multiple of 64 numbers apart."""
    vocabulary = len(weight)
    whole = backend_of(x).empty((len(x), _ALIGNED * blocks(vocabulary, _ALIGNED)), x.dtype)
    logits = whole[:, :vocabulary]
    device_of(x).multiply(Product(logits, x, weight, b_transposed=True))
    return logits
