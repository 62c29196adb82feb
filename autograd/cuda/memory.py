"""Memory for fresh arrays: one block of device memory that holds a whole step."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from autograd.backend import Array

SMALL = 1 << 16  # bytes: CuPy's own pool has arrays up to this size
_running: ContextVar[Fixed | None] = ContextVar("fixed", default=None)


class Arena:
    """Fresh arrays, most of them from one block of memory.

    Batches differ in their numbers of tokens. When CuPy's pool has no free block of a size, it
    splits a larger one, until none is left for the largest arrays and it allocates more: a run of
    base came to hold twice what its steps ever used (docs/gpu.md). Within one block, adjacent free
    parts are merged. So if a step had to allocate more blocks, all are freed before the next step,
    and replaced by one that holds the peak usage. That waits for the device, but happens only after
    a step that was larger than all before.

    What is recorded has its arrays here too, for the work of a replay and other work take turns. So
    the block must not move: `version` changes when memory is freed, and what was recorded before is
    lost (recording.py).

    Small arrays are allocated elsewhere: some outlive a step, and a single one would keep a block
    from being freed. Before an allocation fails, each side frees its unused memory for the other.
    """

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._ndarray, self._small = cupy.ndarray, cupy.cuda.alloc
        self._new_pool = cupy.cuda.MemoryPool
        self._pool, self._others = self._new_pool(), cupy.get_default_memory_pool()
        self._kept = self._new_pool()  # of small arrays that are recorded
        self._most = 0  # peak of the bytes in use
        self._gathered = 0  # bytes of the last single block
        self._refused = 0  # peak for which a single block could not be allocated
        self.version = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An uninitialised array. Raises CuPy's OutOfMemoryError."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size <= SMALL:
            return self._ndarray(shape, dtype, self._small(size))
        if (fixed := _running.get()) is not None:
            return self._ndarray(shape, dtype, fixed.memory(size))
        pool = self._pool
        used = pool.used_bytes()
        if not used and pool.total_bytes() > self._gathered and self._most > self._refused:
            self._gather()
        memory = self._memory(pool, size)
        if used + size > self._most:
            self._most = used + size
        return self._ndarray(shape, dtype, memory)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block, CuPy's arrays of this thread are in memory that no pool keeps."""
        allocate = functools.partial(self._memory, self._new_pool())
        with importlib.import_module("cupy").cuda.using_allocator(allocate):
            yield

    @contextlib.contextmanager
    def fixed(self) -> Iterator[Fixed]:
        """Within the block, this thread's arrays are where replays may write them each time.

        The current stream is that of the replays; the block may work on another one.
        """
        if not self.used_bytes_here() and self._pool.total_bytes() > self._gathered:
            self._gather()
        self._others.free_all_blocks()  # what choosing products and the batches before have left
        with _running_in(Fixed(self._pool, self._kept, self.note)) as fixed:
            yield fixed

    def note(self, used: int) -> None:
        """Note how many bytes of the block are used at a time."""
        self._most = max(self._most, used)

    def used_bytes_here(self) -> int:
        """Bytes of the block that arrays use: 0 while a replay may run."""
        return int(self._pool.used_bytes())

    def _memory(self, pool: Any, size: int) -> Any:
        """Memory from a pool; if there is none, the other pools free theirs first."""
        try:
            return pool.malloc(size)
        except MemoryError:
            self.release()
            self._others.free_all_blocks()
            return pool.malloc(size)

    def _gather(self) -> None:
        """Replace all blocks by one, in memory that CuPy's pool does not use any more, too.

        That pool has what the model's copy to the device has left, as large as its parameters.
        """
        self.version += 1
        self._pool.free_all_blocks()
        self._others.free_all_blocks()
        for size in (self._most + self._most // 64, self._most):
            with contextlib.suppress(MemoryError):
                self._memory(self._pool, size)  # freed at once, into the pool
                self._gathered = self._pool.total_bytes()
                return
        self._refused = self._most  # continue with several blocks

    def release(self) -> None:
        """Free what is not in use."""
        self.version += 1
        self._pool.free_all_blocks()
        self._gathered = 0

    def used_bytes(self) -> int:
        """Bytes in use by arrays, here, in what is recorded and in CuPy's pool."""
        return sum(int(pool.used_bytes()) for pool in (self._pool, self._kept, self._others))

    def held_bytes(self) -> int:
        """Bytes allocated on the device, here, for what is recorded and in CuPy's pool."""
        return sum(int(pool.total_bytes()) for pool in (self._pool, self._kept, self._others))


class Apart:
    """Memory that only what is recorded uses, in turns, and no other work: other threads may work.

    It is for what needs little, and is freed with the recordings.
    """

    version = 0

    def __init__(self) -> None:
        self._pool = importlib.import_module("cupy").cuda.MemoryPool()

    @contextlib.contextmanager
    def fixed(self) -> Iterator[Fixed]:
        """As of `Arena`."""
        with _running_in(Fixed(self._pool, self._pool, may_grow=True)) as fixed:
            yield fixed

    def used_bytes_here(self) -> int:
        """Bytes that others' arrays use: none."""
        return 0

    def held_bytes(self) -> int:
        """Bytes allocated on the device."""
        return int(self._pool.total_bytes())


@contextlib.contextmanager
def _running_in(fixed: Fixed) -> Iterator[Fixed]:
    token = _running.set(fixed)
    try:
        with importlib.import_module("cupy").cuda.using_allocator(fixed.memory):
            yield fixed
    finally:
        _running.reset(token)


class Fixed:
    """Memory for arrays of what is recorded: large ones from a block, small ones kept.

    Attributes:
        places: the addresses of all allocations
    """

    def __init__(
        self,
        block: Any,
        kept: Any,
        note: Callable[[int], None] = lambda used: None,
        may_grow: bool = False,
    ) -> None:
        """block, kept: pools. note: is told how many bytes of the block are used at a time."""
        self._note, self._block, self._kept = note, block, kept
        self._may_grow, self._has_grown = may_grow, True  # and never shrunk
        # A pool has memory by streams. Replays run on this one, as does other work.
        self._home = importlib.import_module("cupy").cuda.get_current_stream()
        self._bytes = block.total_bytes()
        self._large: set[int] = set()
        self.places: set[int] = set()

    def memory(self, size: int) -> Any:
        """An allocation, which may be reused for another when its array is gone."""
        if size <= SMALL:
            found = self._kept.malloc(size)
        else:
            with self._home:
                found = self._block.malloc(size)
            self._note(self._block.used_bytes())
            self._large.add(found.mem.ptr)
        self.places.add(found.mem.ptr)
        if self._may_grow:
            bytes_before, self._bytes = self._bytes, self._block.total_bytes()
            self._has_grown &= self._bytes >= bytes_before
        return found

    def apart(self, result: Any) -> Any:
        """Arrays, in tuples or not, with copies of those in the block, which others use as well."""
        if isinstance(result, tuple):
            return tuple(map(self.apart, result))
        if getattr(result, "data", None) is None or result.data.mem.ptr not in self._large:
            return result
        copy = type(result)(result.shape, result.dtype, self._kept.malloc(result.nbytes))
        copy[...] = result
        return copy

    def has_held(self) -> bool:
        """Whether the block is the same as at first: a pool that lacks memory frees some, too."""
        if self._may_grow:
            return self._has_grown
        return bool(self._block.total_bytes() == self._bytes)


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
