"""Memory for arrays: large ones are kept from step to step, and aligned to cache lines."""

from __future__ import annotations

import ctypes
import math
import platform
from typing import Any

import numpy as np

from autograd.cpu.commands import running_record

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


def aligned(rows: int, columns: int) -> np.ndarray:
    """A fresh float32 matrix, aligned to a cache line of 64 bytes; for compiled loops, too."""
    flat = np.empty(rows * columns + 16, np.float32)
    start = (64 - flat.ctypes.data % 64) % 64 // 4
    return flat[start : start + rows * columns].reshape((rows, columns))


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """A fresh array for a loop to write to.

    While loops are recorded, it is one that their replays write to each time. Arrays that are made
    in another way are not known to a recording.
    """
    record = running_record()
    if record is None:
        return np.empty(shape, dtype)
    block = record.memory(math.prod(shape) * np.dtype(dtype).itemsize)
    return block.view(dtype).reshape(shape)


def empty_aligned(rows: int, columns: int) -> np.ndarray:
    """`empty`, of float32 and aligned to a cache line."""
    return aligned(rows, columns) if running_record() is None else empty((rows, columns))
