"""The arena's memory on a GPU, for steps that all differ."""

import importlib
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from autograd.backend import backend
from autograd.cuda import memory
from autograd.cuda.cublas import Cublas
from autograd.cuda.device import device_of
from autograd.cuda.product import Product, problem_of

FLOAT32 = np.dtype(np.float32)
WIDTHS = (
    512,
    2048,
    512,
    37_056,
    512,
    2048,
)  # of arrays [tokens, width], allocated one after another


@pytest.fixture
def arena():
    backend("cupy").xp.get_default_memory_pool().free_all_blocks()
    return memory.Arena()


def step(arena: memory.Arena, tokens: int) -> int:
    """Allocate as a step does, forward and backward; returns the bytes of all activations."""
    made = [arena.empty((tokens, width), FLOAT32) for width in WIDTHS]
    size = sum(x.nbytes for x in made)
    while made:
        gradient = arena.empty((tokens, made.pop().shape[1]), FLOAT32)
        del gradient
    return size


def test_steps_of_any_size_use_one_block(arena):
    random.seed(0)
    sizes = [step(arena, random.randrange(800, 1000)) for _ in range(100)]
    step(arena, 800)  # the first step after the largest merges the blocks
    others = backend("cupy").xp.get_default_memory_pool().total_bytes()
    # The gradient of the last array exists together with all arrays.
    assert arena.held_bytes() - others <= 1.04 * max(sizes)


def test_arrays_in_use_are_not_overwritten(arena):
    in_use = arena.empty((1000, 100), FLOAT32)
    in_use.fill(7)
    for tokens in range(500, 1000, 50):
        for _ in range(2):
            made = [arena.empty((tokens, width), FLOAT32) for width in WIDTHS[:3]]
            for x in made:
                x.fill(1)
            del made, x
    assert (in_use.get() == 7).all()


def test_two_arrays_never_share_memory(arena):
    for tokens in (300, 400, 350):
        made = [arena.empty((tokens, width), FLOAT32) for width in WIDTHS]
        ranges = sorted((x.data.ptr, x.data.ptr + x.nbytes) for x in made)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))
        del made


def test_an_empty_array_can_be_allocated(arena):
    assert arena.empty((0, 512), FLOAT32).shape == (0, 512)


def test_the_arena_frees_unused_memory_of_other_pools_before_it_fails(monkeypatch):
    cupy = backend("cupy").xp
    others = cupy.get_default_memory_pool()
    others.free_all_blocks()
    left = others.free_bytes()  # between arrays of earlier tests

    class Scarce(cupy.cuda.MemoryPool):
        """Has memory up to a limit, and only while the other pool holds no unused memory."""

        def malloc(self, size: int) -> Any:
            if others.free_bytes() > left or size > 1 << 20:
                raise cupy.cuda.memory.OutOfMemoryError(size, 0)
            return super().malloc(size)

    monkeypatch.setattr(cupy.cuda, "MemoryPool", Scarce)
    arena = memory.Arena()
    elsewhere = cupy.empty(1 << 24, np.uint8)
    del elsewhere
    assert others.free_bytes() > left
    assert arena.empty((1 << 18,), FLOAT32).size == 1 << 18
    with pytest.raises(MemoryError):
        arena.empty(((1 << 18) + 1,), FLOAT32)


def test_other_allocators_get_the_arenas_unused_memory_before_they_fail():
    cupy = backend("cupy").xp
    before, asked = cupy.cuda.get_allocator(), []

    def scarce(size: int) -> Any:
        """Has memory up to a limit, and only while the arena holds no unused memory."""
        asked.append(size)
        if size > 1 << 20 or (asked.count(size) == 1 and size > 1 << 18):
            raise cupy.cuda.memory.OutOfMemoryError(size, 0)
        return before(size)

    try:
        cupy.cuda.set_allocator(scarce)
        arena = memory.arena.__wrapped__()
        array = arena.empty((1 << 17,), FLOAT32)
        assert arena._pool.total_bytes() > 0
        del array
        assert cupy.empty(1 << 19, np.uint8).nbytes == 1 << 19
        assert arena._pool.total_bytes() == 0
        with pytest.raises(MemoryError):
            cupy.empty(1 << 21, np.uint8)
        assert asked == [1 << 19] * 2 + [1 << 21] * 2
    finally:
        cupy.cuda.set_allocator(before)


def test_steps_with_hardly_any_spare_memory_stop_allocating_on_the_device(arena):
    """If no block with spare memory can be allocated, and if no single block can."""
    cuda = backend("cupy").xp.cuda

    class Counted(cuda.MemoryHook):
        asked = 0

        def alloc_preprocess(self, **_: Any) -> None:
            self.asked += 1

    largest = step(arena, 1000) + 1000 * 512 * 4  # bytes: all activations and the last gradient
    for factor in (1.01, 1.0):
        arena = memory.Arena()
        arena._pool.set_limit(size=int(factor * largest))
        for _ in range(4):
            step(arena, 1000)
        with Counted() as counted:
            for _ in range(8):
                step(arena, 1000)
        assert counted.asked == 0


def test_a_failed_allocation_does_not_count_for_later_steps(arena):
    arena._pool.set_limit(size=10 << 20)
    arena.empty((1 << 20,), FLOAT32)
    with pytest.raises(MemoryError):
        arena.empty((1 << 22,), FLOAT32)
    arena.empty((3 << 18,), FLOAT32)
    assert arena._most == 4 << 20


@pytest.mark.parametrize("dtype", [np.float32, "float32", FLOAT32])
def test_a_dtype_may_be_given_in_any_form(dtype):
    assert backend("cupy").empty((3,), dtype).dtype == FLOAT32


def test_the_backend_opens_inside_using_allocator():
    cuda = backend("cupy").xp.cuda
    with cuda.using_allocator(cuda.MemoryPool().malloc):
        arena = memory.arena.__wrapped__()
        assert arena.empty((100,), FLOAT32).size == 100


@pytest.mark.parametrize("status", [3, 13])
@pytest.mark.parametrize("where", ["handle", "product"])
def test_cublas_without_memory_is_a_memory_error(monkeypatch, status, where):
    libraries = importlib.import_module("cupy_backends.cuda.libs")
    cublas = libraries.cublas

    def fail(*_: Any) -> int:
        raise cublas.CUBLASError(status)

    x, y = (backend("cupy").xp.zeros((8, 8), np.float32) for _ in range(2))
    library, product = Cublas(numbers=0), Product(y, x, x)
    if where == "handle":
        monkeypatch.setattr(library, "_handle", fail)
    else:
        monkeypatch.setattr(cublas, "gemmEx", fail)
    with pytest.raises(MemoryError if status == 3 else cublas.CUBLASError):
        library.multiply(product, problem_of(product, tf32=False))


@pytest.mark.parametrize("status", [2, 700])
def test_a_kernel_without_memory_is_a_memory_error(monkeypatch, status):
    x = backend("cupy").xp.zeros((8, 8), np.float32)
    device = device_of(x)

    def fail(*_: Any) -> None:
        raise device._driver_error(status)

    monkeypatch.setattr(device, "_launch_kernel", fail)
    arguments = {"x": x, "count": x.size, "sums": x}
    with pytest.raises(MemoryError if status == 2 else device._driver_error):
        device.launch("adam", {"REAL_BYTES": 4}, "sum_of_squares", (1,), 256, **arguments)


def test_what_is_allocated_aside_is_freed_on_the_device(arena, monkeypatch):
    """Measured for this process only, because other processes use the device, too."""
    cuda = backend("cupy").xp.cuda
    held: dict[int, int] = {}

    class Held(cuda.memory.Memory):
        """Memory of the device, which is freed together with this object."""

        def __init__(self, size: int) -> None:
            super().__init__(size)
            held[id(self)] = size

        def __del__(self) -> None:
            held.pop(id(self), None)  # absent if the device had no memory

    def pool() -> Any:
        return cuda.MemoryPool(lambda size: cuda.MemoryPointer(Held(size), 0))

    monkeypatch.setattr(arena, "_new_pool", pool)
    elsewhere = arena.held_bytes()
    xp = backend("cupy").xp
    with arena.aside():
        array = xp.empty((1024, 1024), FLOAT32)
    array.fill(3)
    assert (array.get() == 3).all()
    assert sum(held.values()) >= array.nbytes
    assert arena.held_bytes() == elsewhere
    del array
    assert not held
    with arena.aside(), pytest.raises(MemoryError):
        xp.empty((1 << 20, 1 << 20), FLOAT32)
    assert not held


def test_copies_to_the_host_have_the_numbers_of_the_moment_when_they_were_asked_for():
    """Also when a thread waits for them while the device has gone on."""
    gpu = backend("cupy")
    xp = gpu.xp
    x, moments = xp.arange(1 << 20, dtype=xp.float32), xp.ones((3, 5), xp.float64)
    copied = gpu.copied([x, moments, x[: 1 << 19]])
    for _ in range(50):
        x += 1
    moments[...] = xp.nan
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(copied).result()
    for copy, expected in zip(
        found, [np.arange(1 << 20), np.ones((3, 5)), np.arange(1 << 19)], strict=True
    ):
        assert type(copy) is np.ndarray
        np.testing.assert_array_equal(copy, expected)
    assert found[1].dtype == np.float64
