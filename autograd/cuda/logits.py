"""Logits, for the loss and for decoding."""

from __future__ import annotations

from autograd.backend import Array, backend_of
from autograd.cuda.device import blocks, device_of
from autograd.cuda.products import Product

_ALIGNED = 64  # numbers: rows are padded to a multiple, so that any vocabulary is fast


def logits_of(x: Array, weight: Array) -> Array:
    """x weightᵀ: [rows, vocabulary] in their dtype, with a row stride that is a multiple of 64."""
    vocabulary = len(weight)
    whole = backend_of(x).empty((len(x), _ALIGNED * blocks(vocabulary, _ALIGNED)), x.dtype)
    logits = whole[:, :vocabulary]
    device_of(x).multiply(Product(logits, x, weight, b_transposed=True))
    return logits
