"""Memory for large arrays: kept from step to step, and beginning where cache lines do."""

from __future__ import annotations

import ctypes
import platform

import numpy as np

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's numbers, from <malloc.h>


def keep_freed_memory() -> None:
    """Have malloc serve large arrays from its heap too, and never give the heap's end back.

    Large arrays are otherwise fresh memory at every step, and every page of it is a fault. Without
    glibc, nothing is changed.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def empty(rows: int, columns: int) -> np.ndarray:
    """A fresh float32 matrix that begins where a cache line of 64 bytes does."""
    flat = np.empty(rows * columns + 16, np.float32)
    start = (64 - flat.ctypes.data % 64) % 64 // 4
    return flat[start : start + rows * columns].reshape((rows, columns))
