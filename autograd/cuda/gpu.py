"""A GPU through CuPy: the implementation of device.py."""

from __future__ import annotations

import functools
import importlib
import math
import statistics
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from autograd.backend import Array
from autograd.cache_folder import cache_folder
from autograd.cuda.bias import add_bias, complete
from autograd.cuda.choices import Choices
from autograd.cuda.cublas import Cublas
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem, load
from autograd.cuda.device import Blocks, Constants
from autograd.cuda.memory import arena
from autograd.cuda.modules import Modules
from autograd.cuda.product import Product, stride_of
from autograd.cuda.products import WORKSPACE_BYTES, Products, is_way
from autograd.cuda.signature import Arguments, Parameter, in_order

_ALWAYS_SHARED = 48 * 1024  # bytes of shared memory that every block may use
_OUT_OF_MEMORY = 2  # CUresult
_RUNS, _GROUPS = 5, 3  # of a product, to measure the time that it takes
_LONG = 3e-4  # seconds, beside which the host's time for a launch is nothing


class _Kernel:
    """A compiled kernel, with a buffer for its arguments; each thread has its own."""

    def __init__(self, name: str, function: Any, parameters: Sequence[Parameter]) -> None:
        self.function = function  # keeps the code at `address` alive
        self.address = function.kernel.ptr
        self.arguments = Arguments(parameters)
        self.in_order = in_order(name, parameters)
        # The most that a launch may use besides the shared arrays of fixed size.
        self.shared = _ALWAYS_SHARED - function.shared_size_bytes

    def allow_shared(self, size: int) -> None:
        """Allow launches with up to `size` bytes of dynamic shared memory."""
        self.function.max_dynamic_shared_size_bytes = self.shared = size


class _Thread(threading.local):
    """What each thread has of its own: kernels, since buffers for arguments are not shared.

    Attributes:
        keep, varying: what launches are told to, while the thread records something
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        begin()
        self.kernels: dict[Any, _Kernel] = {}
        self.keep: Callable[[Iterable[Any]], None] | None = None
        self.varying: Callable[[Blocks, int], None] | None = None


class Gpu:
    """CuPy's current device. `products` multiplies its matrices."""

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        attributes = cupy.cuda.Device().attributes
        self.processors = int(attributes["MultiProcessorCount"])
        self.shared_bytes = int(attributes["MaxSharedMemoryPerBlockOptin"])
        context, lt = _StreamContext(cupy), _cublaslt()
        self._cublas = Cublas(context.numbers())
        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        valid_for = f"{name}, cuBLASLt {lt.version if lt else None}"
        is_valid = functools.partial(is_way, lt=lt)
        choices = Choices(cache_folder() / "products", valid_for, is_valid)
        self.products = Products(
            self._multiply_by_cublas, functools.partial(complete, self), lt, context, choices
        )
        self._launch_kernel = cupy.cuda.driver.launchKernel
        self._driver_error = cupy.cuda.driver.CUDADriverError
        self._stream = cupy.cuda.get_current_stream
        self._modules = Modules()
        self._context, self._ndarray = context, cupy.ndarray
        # This initialises the thread's CUDA context, which a launch needs.
        self._thread = _Thread(functools.partial(cupy.cuda.runtime.free, 0))

    def launch(
        self,
        source: str,
        constants: Constants,
        name: str,
        grid: Sequence[int | Blocks],
        threads: int,
        shared: int = 0,
        /,
        **arguments: Any,
    ) -> None:
        if not all(grid):
            return
        thread, key = self._thread, (source, name, *constants.items())
        kernel = thread.kernels.get(key)
        if kernel is None:
            module, parameters = self._modules.get(source, constants)
            kernel = _Kernel(name, module.get_function(name), parameters[name])
            thread.kernels[key] = kernel
        if shared > kernel.shared:
            kernel.allow_shared(shared)
        last = grid[-1]
        if type(last) is Blocks:
            # Not before the kernel is there: it cannot be built while it is recorded.
            there = int(last) if thread.varying is None else last.most
            if not there:
                return
            grid = (*grid[:-1], there)
        ordered = kernel.in_order(arguments)
        kernel.arguments.put(_numbers(ordered))
        if thread.keep is not None:
            thread.keep(ordered)
        try:
            self._launch_kernel(
                kernel.address,
                grid[0],
                grid[1] if len(grid) > 1 else 1,
                1,
                threads,
                *(1, 1),
                shared,
                self._stream().ptr,
                kernel.arguments.pointers,
                0,
            )
        except self._driver_error as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            raise MemoryError(f"no memory is left for the kernel {name}") from error
        if type(last) is Blocks and thread.varying is not None:
            thread.varying(last, len(grid) - 1)

    def build(self, kernels: Iterable[tuple[str, Constants]]) -> None:
        self._modules.begin(kernels)

    def multiply(self, product: Product) -> None:
        if product.out.size:
            if (keep := self._thread.keep) is not None:
                keep(product)
            self.products(product)

    def will_replay(self, stream: Any) -> None:
        """What is asked for on a stream will be replayed on the current one, with its workspace."""
        self._context.share_workspace(stream)

    @contextmanager
    def keeping(
        self, places: Container[int], varying: Callable[[Blocks, int], None]
    ) -> Iterator[list[Any]]:
        """Within the block, keep the memory of arrays that this thread's work is given.

        places: of allocations that need not be kept. varying: is called after each launch with
        Blocks, made with the most that there may be, with them and their axis of the grid.
        """
        kept: dict[int, Any] = {}

        def keep(arguments: Iterable[Any]) -> None:
            for x in arguments:
                if isinstance(x, tuple):
                    keep(x)
                elif isinstance(x, self._ndarray) and x.data.mem.ptr not in places:
                    kept[x.data.mem.ptr] = x.data.mem

        found: list[Any] = []
        thread = self._thread
        thread.keep, thread.varying = keep, varying
        try:
            yield found
        finally:
            thread.keep = thread.varying = None
            found += kept.values()

    def _multiply_by_cublas(self, product: Product, problem: Problem) -> None:
        self._cublas.multiply(product, problem)
        add_bias(self, product)


def _numbers(arguments: Iterable[Any]) -> list[int | float]:
    """Arguments as numbers for the driver: structs as their fields, arrays as addresses."""
    numbers: list[int | float] = []
    for x in arguments:
        kind = type(x)
        if kind is int or kind is float:
            numbers.append(x)
        elif kind is tuple:
            numbers += _numbers(x)
        else:
            numbers.append(0 if x is None else x.data.ptr)
    return numbers


class _StreamContext:
    """CuPy's current stream, as the StreamContext of products.py."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.get_current_stream
        self._zero_one = cupy.array([0, 1], np.float32)
        self._workspaces: dict[int, Any] = {}

    def address(self, x: Array) -> int:
        return x.data.ptr

    def stream(self) -> int:
        return self._stream().ptr

    def workspace(self) -> int:
        stream = self.stream()
        if stream not in self._workspaces:
            self._workspaces[stream] = self._cupy.cuda.alloc(WORKSPACE_BYTES)
        return self._workspaces[stream].ptr

    def share_workspace(self, stream: Any) -> None:
        """Let a stream use the workspace of the current one, on which its work will run."""
        self.workspace()
        self._workspaces[stream.ptr] = self._workspaces[self.stream()]

    def numbers(self) -> int:
        return self._zero_one.data.ptr

    def aside(self) -> AbstractContextManager[None]:
        return arena().aside()

    def like(self, x: Array) -> Array:
        return self._cupy.empty((x.shape[0], stride_of(x)), x.dtype)[:, : x.shape[1]]

    def seconds(self, run: Callable[[], None], most: float = math.inf) -> float:
        """The median time of a run over a few groups of runs, after a warm-up.

        A group is a single run if that takes long. The first group alone counts if a run of it
        takes more than `most`.
        """
        run()
        runs = 1 if self._seconds_of_a_group(run, 1) > _LONG else _RUNS
        groups = [self._seconds_of_a_group(run, runs)]
        while len(groups) < _GROUPS and groups[0] <= most:
            groups.append(self._seconds_of_a_group(run, runs))
        return statistics.median(groups)

    def _seconds_of_a_group(self, run: Callable[[], None], runs: int) -> float:
        """The mean time of a run in a group of runs."""
        cuda = self._cupy.cuda
        begin, end = cuda.Event(), cuda.Event()
        begin.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(begin, end)) / 1000 / runs


def _cublaslt() -> CublasLt | None:
    try:
        return load()
    except CublasLtError as error:
        warnings.warn(f"products run on cuBLAS alone: {error}", stacklevel=2)
        return None
