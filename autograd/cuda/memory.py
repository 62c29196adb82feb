"""Memory for fresh arrays: one block of the device that a whole step has room in."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from typing import Any

import numpy as np

from autograd.backend import Array

_SMALL = 1 << 16  # bytes; up to here CuPy's own pool serves


class Arena:
    """Fresh arrays, most of them out of one block.

    No two batches have as many tokens. CuPy's pool, when it finds no free block of a size, splits a
    larger one, until none is left for the largest arrays and it asks the device for more: a run of
    base came to hold twice what its steps ever used (docs/gpu.md). Within a block, what is freed
    side by side is one again. So where a step had to ask for more blocks, all are given back before
    the next, for one with room for the most that was in use at a time. That waits for the device,
    but no step does so that is no larger than those before.

    Small arrays live elsewhere, for some outlive a step, and one is enough to keep a block. What is
    kept on either side and is not in use goes to the other before memory is said to be out.
    """

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._ndarray, self._small = cupy.ndarray, cupy.cuda.alloc
        self._new_pool = cupy.cuda.MemoryPool
        self._pool, self._others = self._new_pool(), cupy.get_default_memory_pool()
        self._most = 0  # bytes in use at a time
        self._gathered = 0  # bytes of the block that was taken last
        self._refused = 0  # bytes in use at a time for which no block was to be had

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array that is not filled. Raises CuPy's OutOfMemoryError."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size <= _SMALL:
            return self._ndarray(shape, dtype, self._small(size))
        pool = self._pool
        used = pool.used_bytes()
        if not used and pool.total_bytes() > self._gathered and self._most > self._refused:
            self._gather()
        memory = self._memory(pool, size)
        if used + size > self._most:
            self._most = used + size
        return self._ndarray(shape, dtype, memory)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array that is not filled, whose memory no pool keeps. Raises OutOfMemoryError."""
        memory = self._memory(self._new_pool(), math.prod(shape) * dtype.itemsize)
        return self._ndarray(shape, dtype, memory)

    def _memory(self, pool: Any, size: int) -> Any:
        """Memory of a pool, for which the others give back what they keep."""
        try:
            return pool.malloc(size)
        except MemoryError:
            self.release()
            self._others.free_all_blocks()
            return pool.malloc(size)

    def _gather(self) -> None:
        """Take one block in place of all."""
        self._pool.free_all_blocks()
        for size in (self._most + self._most // 32, self._most):
            with contextlib.suppress(MemoryError):
                self._memory(self._pool, size)  # and is free at once
                self._gathered = self._pool.total_bytes()
                return
        self._refused = self._most  # it goes on in blocks, which may be had

    def release(self) -> None:
        """Give back what is kept and not in use."""
        self._pool.free_all_blocks()
        self._gathered = 0

    def used_bytes(self) -> int:
        """Bytes that arrays have, here and in CuPy's pool."""
        return int(self._pool.used_bytes() + self._others.used_bytes())

    def held_bytes(self) -> int:
        """Bytes that are taken of the device for arrays, here and in CuPy's pool."""
        return int(self._pool.total_bytes() + self._others.total_bytes())


@functools.cache
def arena() -> Arena:
    """The one that the backend's fresh arrays come from. CuPy has it release what others need."""
    cuda, made = importlib.import_module("cupy").cuda, Arena()
    allocate = cuda.get_allocator()

    def allocate_or_release(size: int) -> Any:
        try:
            return allocate(size)
        except MemoryError:
            made.release()
            return allocate(size)

    # Within a `using_allocator` of CuPy's there is no other to be set.
    with contextlib.suppress(ValueError):
        cuda.set_allocator(allocate_or_release)
    return made
