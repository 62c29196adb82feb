"""Memory for fresh arrays: one block of device memory that holds a whole step."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from typing import Any

import numpy as np

from autograd.backend import Array

_SMALL = 1 << 16  # bytes: CuPy's own pool has arrays up to this size


class Arena:
    """Fresh arrays, most of them from one block of memory.

    Batches differ in their numbers of tokens. When CuPy's pool has no free block of a size, it
    splits a larger one, until none is left for the largest arrays and it allocates more: a run of
    base came to hold twice what its steps ever used (docs/gpu.md). Within one block, adjacent free
    parts are merged. So if a step had to allocate more blocks, all are freed before the next step,
    and replaced by one that holds the peak usage. That waits for the device, but happens only after
    a step that was larger than all before.

    Small arrays are allocated elsewhere: some outlive a step, and a single one would keep a block
    from being freed. Before an allocation fails, each side frees its unused memory for the other.
    """

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._ndarray, self._small = cupy.ndarray, cupy.cuda.alloc
        self._new_pool = cupy.cuda.MemoryPool
        self._pool, self._others = self._new_pool(), cupy.get_default_memory_pool()
        self._most = 0  # peak of the bytes in use
        self._gathered = 0  # bytes of the last single block
        self._refused = 0  # peak for which a single block could not be allocated

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array. Raises CuPy's OutOfMemoryError."""
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
        """An uninitialised array whose memory no pool keeps. Raises OutOfMemoryError."""
        memory = self._memory(self._new_pool(), math.prod(shape) * dtype.itemsize)
        return self._ndarray(shape, dtype, memory)

    def _memory(self, pool: Any, size: int) -> Any:
        """Memory from a pool; if there is none, the other pools free theirs first."""
        try:
            return pool.malloc(size)
        except MemoryError:
            self.release()
            self._others.free_all_blocks()
            return pool.malloc(size)

    def _gather(self) -> None:
        """Replace all blocks by one."""
        self._pool.free_all_blocks()
        for size in (self._most + self._most // 32, self._most):
            with contextlib.suppress(MemoryError):
                self._memory(self._pool, size)  # freed at once, into the pool
                self._gathered = self._pool.total_bytes()
                return
        self._refused = self._most  # continue with several blocks

    def release(self) -> None:
        """Free what is not in use."""
        self._pool.free_all_blocks()
        self._gathered = 0

    def used_bytes(self) -> int:
        """Bytes in use by arrays, here and in CuPy's pool."""
        return int(self._pool.used_bytes() + self._others.used_bytes())

    def held_bytes(self) -> int:
        """Bytes allocated on the device, here and in CuPy's pool."""
        return int(self._pool.total_bytes() + self._others.total_bytes())


@functools.cache
def arena() -> Arena:
    """The arena of the backend's fresh arrays. CuPy's allocator releases its memory when needed."""
    cuda, made = importlib.import_module("cupy").cuda, Arena()
    allocate = cuda.get_allocator()

    def allocate_or_release(size: int) -> Any:
        try:
            return allocate(size)
        except MemoryError:
            made.release()
            return allocate(size)

    # Inside CuPy's `using_allocator`, no other allocator can be set.
    with contextlib.suppress(ValueError):
        cuda.set_allocator(allocate_or_release)
    return made
