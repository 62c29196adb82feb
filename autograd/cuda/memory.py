"""Memory for fresh arrays: one block of the device that a whole step has room in."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from typing import Any

from autograd.backend import Array

_SMALL = 1 << 16  # bytes; up to here CuPy's own pool serves


class Arena:
    """Fresh arrays, most of them out of one block.

    No two batches have as many tokens. CuPy's pool, when it finds no free block of a size, splits a
    larger one, until none is left for the largest arrays and it asks the device for more: a run of
    base held 38 % more than its steps ever used (docs/gpu.md). Within a block, what is freed side
    by side is one again. So where a step had to ask for more blocks, all are given back before the
    next, for one with room for the most that was in use at a time. That waits for the device, but
    no step does so that is no larger than those before.

    Small arrays live elsewhere, for some outlive a step, and one is enough to keep a block.
    """

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._ndarray, self._small = cupy.ndarray, cupy.cuda.alloc
        self._pool, self._others = cupy.cuda.MemoryPool(), cupy.get_default_memory_pool()
        self._most = 0  # bytes in use at a time
        self._gathered = 0  # bytes of the block that was taken last

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of a NumPy dtype that is not filled. Raises CuPy's OutOfMemoryError."""
        size = math.prod(shape) * dtype.itemsize
        if size <= _SMALL:
            return self._ndarray(shape, dtype, self._small(size))
        pool = self._pool
        used = pool.used_bytes()
        if not used and pool.total_bytes() > self._gathered:
            self._gather()
        if used + size > self._most:
            self._most = used + size
        try:
            memory = pool.malloc(size)
        except MemoryError:
            self._others.free_all_blocks()
            memory = pool.malloc(size)
        return self._ndarray(shape, dtype, memory)

    def _gather(self) -> None:
        """Take one block in place of all."""
        self._pool.free_all_blocks()
        with contextlib.suppress(MemoryError):  # it goes on in blocks, which may be had
            self._pool.malloc(self._most + self._most // 32)  # and is free at once
        self._gathered = self._pool.total_bytes()

    def used_bytes(self) -> int:
        """Bytes that arrays have, here and in CuPy's pool."""
        return int(self._pool.used_bytes() + self._others.used_bytes())

    def held_bytes(self) -> int:
        """Bytes that are taken of the device for arrays, here and in CuPy's pool."""
        return int(self._pool.total_bytes() + self._others.total_bytes())


@functools.cache
def arena() -> Arena:
    """The one that the backend's fresh arrays come from."""
    return Arena()
