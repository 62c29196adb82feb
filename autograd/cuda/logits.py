"""Logits, for the loss and for decoding."""

from __future__ import annotations

from autograd.backend import Array, backend_of
from autograd.cuda.device import blocks, device_of
from autograd.cuda.product import Product

_ALIGNED = 64  # numbers: rows are padded to a multiple, so that any vocabulary is fast

# Threads that share a row, and the bytes that each keeps in registers: at most, and few enough for
# two blocks on a multiprocessor.
_MOST_THREADS, _MOST_BYTES = 1024, 256
_FEW_THREADS, _FEW_BYTES = 512, 160


def fits_a_block(vocabulary: int, itemsize: int) -> bool:
    """Whether a block can keep a row of logits in registers."""
    return vocabulary * itemsize <= _MOST_THREADS * _MOST_BYTES


def threads_of(vocabulary: int, itemsize: int) -> int:
    """The threads that share a row of logits."""
    few = vocabulary * itemsize <= _FEW_THREADS * _FEW_BYTES
    return min(_FEW_THREADS if few else _MOST_THREADS, 32 * blocks(vocabulary, 8 * 32))


def logits_of(x: Array, weight: Array) -> Array:
    """x weightᵀ: [rows, vocabulary] in their dtype, with a row stride that is a multiple of 64."""
    vocabulary = len(weight)
    whole = backend_of(x).empty((len(x), _ALIGNED * blocks(vocabulary, _ALIGNED)), x.dtype)
    logits = whole[:, :vocabulary]
    device_of(x).multiply(Product(logits, x, weight, b_transposed=True))
    return logits
