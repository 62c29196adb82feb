"""A GPU through CuPy: what device.py asks of it."""

from __future__ import annotations

import functools
import importlib
import statistics
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from autograd.backend import Array
from autograd.cuda.bias import add_bias
from autograd.cuda.choices import Choices, cache_folder
from autograd.cuda.cublas import Cublas
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem, load
from autograd.cuda.device import Constants, source_of
from autograd.cuda.memory import arena
from autograd.cuda.products import WORKSPACE_BYTES, Product, Products, is_way, stride_of
from autograd.cuda.signature import Arguments, Parameter, in_order, signatures

_ALWAYS_SHARED = 48 * 1024  # bytes of shared memory that a block gets without asking
_OUT_OF_MEMORY = 2  # CUresult
_RUNS, _GROUPS = 5, 3  # of a way to compute a product, to see how long it takes


class _Kernel:
    """A kernel that is built, with room for its arguments: of one thread."""

    def __init__(self, name: str, function: Any, parameters: Sequence[Parameter]) -> None:
        self.function = function  # holds the code that `address` is of
        self.address = function.kernel.ptr
        self.arguments = Arguments(parameters)
        self.in_order = in_order(name, parameters)
        # What a launch may ask for, besides what the source has as arrays of fixed sizes.
        self.shared = _ALWAYS_SHARED - function.shared_size_bytes

    def allow_shared(self, size: int) -> None:
        """Let a launch ask for so many bytes of shared memory."""
        self.function.max_dynamic_shared_size_bytes = self.shared = size


class Gpu:
    """CuPy's current device. `products` is how it multiplies matrices."""

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self.processors = int(cupy.cuda.Device().attributes["MultiProcessorCount"])
        place, lt = _Place(cupy), _cublaslt()
        self._cublas = Cublas(place.numbers())
        name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
        about = f"{name}, cuBLASLt {lt.version if lt else None}"
        choices = Choices(cache_folder() / "products", about, is_way)
        self.products = Products(self._multiply_by_cublas, lt, place, choices)
        self._raw_module = cupy.RawModule
        self._launch_kernel = cupy.cuda.driver.launchKernel
        self._driver_error = cupy.cuda.driver.CUDADriverError
        self._stream = cupy.cuda.get_current_stream
        self._begin_thread = functools.partial(cupy.cuda.runtime.free, 0)
        self._module = functools.cache(self._build)
        self._of_thread = threading.local()

    def _build(self, source: str, constants: tuple[tuple[str, int], ...]) -> tuple[Any, Any]:
        """The module of a source, and the parameters of its kernels."""
        options = ("--std=c++17", *(f"-D{key}={value}" for key, value in constants))
        # The headers are part of the text, for CuPy keeps what it has built under the text's hash.
        text = source_of(source)
        return self._raw_module(code=text, options=options), signatures(text)

    def _kernels(self) -> dict[Any, _Kernel]:
        """Those that this thread has used: rooms for arguments are not shared."""
        try:
            kernels: dict[Any, _Kernel] = self._of_thread.kernels
        except AttributeError:
            self._begin_thread()  # the driver launches nothing where no memory was asked for
            kernels = self._of_thread.kernels = {}
        return kernels

    def launch(
        self,
        source: str,
        constants: Constants,
        name: str,
        grid: Sequence[int],
        threads: int,
        shared: int = 0,
        /,
        **arguments: Any,
    ) -> None:
        if not all(grid):
            return
        kernels, key = self._kernels(), (source, name, *constants.items())
        kernel = kernels.get(key)
        if kernel is None:
            module, parameters = self._module(source, tuple(constants.items()))
            kernel = kernels[key] = _Kernel(name, module.get_function(name), parameters[name])
        if shared > kernel.shared:
            kernel.allow_shared(shared)
        kernel.arguments.put(_numbers(kernel.in_order(arguments)))
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
            raise MemoryError(f"none is left for the kernel {name}") from error

    def multiply(self, product: Product) -> None:
        if product.out.size:
            self.products(product)

    def _multiply_by_cublas(self, product: Product, problem: Problem) -> None:
        self._cublas.multiply(product, problem)
        add_bias(self, product)


def _numbers(arguments: Iterable[Any]) -> list[int | float]:
    """What the driver takes: the fields of structs one after another, arrays by their address."""
    numbers: list[int | float] = []
    for x in arguments:
        kind = type(x)
        if kind is int or kind is float:
            numbers.append(x)
        elif kind is tuple:
            numbers += x
        else:
            numbers.append(0 if x is None else x.data.ptr)
    return numbers


class _Place:
    """CuPy's current stream, for Products (products.py says what is asked of it)."""

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

    def numbers(self) -> int:
        return self._zero_one.data.ptr

    def like(self, x: Array) -> Array:
        return arena().scratch((x.shape[0], stride_of(x)), x.dtype)[:, : x.shape[1]]

    def seconds(self, run: Callable[[], None]) -> float:
        """The median of some groups of runs, after one for which nothing is ready."""
        cuda, groups = self._cupy.cuda, []
        run()
        for _ in range(_GROUPS):
            begin, end = cuda.Event(), cuda.Event()
            begin.record()
            for _ in range(_RUNS):
                run()
            end.record()
            end.synchronize()
            groups.append(cuda.get_elapsed_time(begin, end) / 1000 / _RUNS)
        return statistics.median(groups)


def _cublaslt() -> CublasLt | None:
    try:
        return load()
    except CublasLtError as error:
        warnings.warn(f"products run on cuBLAS alone: {error}", stacklevel=2)
        return None
