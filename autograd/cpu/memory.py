"""Memory that was freed is kept for the next step, where the C library is glibc.

Large arrays are otherwise fresh memory at every step, and every page of it is a fault.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's numbers, from <malloc.h>


def keep_freed_memory() -> None:
    """Have malloc serve large arrays from its heap too, and never give the heap's end back."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
