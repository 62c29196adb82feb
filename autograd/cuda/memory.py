"""Memory for fresh arrays, in sizes that come again although no two batches have as many tokens."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from autograd.backend import Array

_SMALL = 1 << 16  # bytes, up to which a size does not matter
_STEPS = 4  # a size is rounded up to four more bits than its first


def rounded(size: int) -> int:
    """Bytes to ask for instead of `size`: at most a sixteenth more.

    A pool splits what is free where nothing has the size that it is asked for, and what is split
    is lost for the largest arrays. In a run of base with 25,000 tokens a batch CuPy's held 11.9 GB
    in the end, for 6.8 GB that a step used, and with sizes like these 8.6 GB.
    """
    if size <= _SMALL:
        return size
    step = 1 << (size.bit_length() - 1 - _STEPS)
    return -(-size // step) * step


def allocator() -> Callable[[Any, Any], Array]:
    """CuPy's `empty`, of a shape that is a tuple and a NumPy dtype, with rounded sizes."""
    cupy = importlib.import_module("cupy")
    ndarray, alloc = cupy.ndarray, cupy.cuda.alloc

    def empty(shape: tuple[int, ...], dtype: Any) -> Array:
        return ndarray(shape, dtype, alloc(rounded(math.prod(shape) * dtype.itemsize)))

    return empty
