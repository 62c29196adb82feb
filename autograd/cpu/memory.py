"""Memory for large arrays: kept from step to step, and aligned to cache lines."""

from __future__ import annotations

import ctypes
import platform

import numpy as np

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's numbers, from <malloc.h>


def keep_freed_memory() -> None:
    """Make malloc take large arrays from its heap too, and never return memory to the system.

    Otherwise large arrays are fresh memory at every step, with a page fault for each page. Has no
    effect without glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def empty(rows: int, columns: int) -> np.ndarray:
    """A fresh float32 matrix, aligned to a cache line of 64 bytes."""
    flat = np.empty(rows * columns + 16, np.float32)
    start = (64 - flat.ctypes.data % 64) % 64 // 4
    return flat[start : start + rows * columns].reshape((rows, columns))
