"""What the launchers of this folder ask of a GPU: to run a kernel, and to multiply matrices."""

from __future__ import annotations

import functools
import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autograd.backend import Array, backend_of
from autograd.cuda.signature import Arguments, Parameter, signatures

FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)

FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)

Constants = Mapping[str, int]


class Device(Protocol):
    """A GPU, or what stands for one in tests.

    `processors` is the number of its multiprocessors.
    """

    processors: int

    def launch(
        self,
        source: str,
        constants: Constants,
        name: str,
        grid: Sequence[int],
        threads: int,
        arguments: Sequence[Any],
        shared: int = 0,
    ) -> None:
        """Run the kernel `name` of `source`.cu, built with preprocessor constants.

        The grid has one or two axes. Arguments are the device's arrays, None for a null pointer, or
        numbers, which become what the source says (signature.py). `shared` is the size of the
        dynamic shared memory in bytes.
        """

    def product(
        self,
        out: Array,
        a: Array,
        b: Array,
        *,
        a_transposed: bool = False,
        b_transposed: bool = False,
        scale: Array | None = None,
        add: bool = False,
    ) -> None:
        """out = scale · a b, or out + scale · a b with `add`; the sums are float32.

        Matrices whose rows may lie further apart than they are long. `scale` is a float32 number on
        the device.
        """

    def address(self, x: Array) -> int:
        """Where the first number of an array lies."""


def source_of(name: str) -> str:
    """The text of a source with the headers that it includes, each once."""
    seen: set[str] = set()

    def text_of(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        return _INCLUDE.sub(lambda match: text_of(match[1]), (FOLDER / file).read_text())

    return text_of(f"{name}.cu")


class _Kernel:
    """A kernel that is built, with room for its arguments: of one thread."""

    def __init__(self, function: Any, parameters: Sequence[Parameter]) -> None:
        self.function = function  # holds the code that `address` is of
        self.address = function.kernel.ptr
        self.arguments = Arguments(parameters)
        self.shared = _ALWAYS_SHARED

    def allow_shared(self, size: int) -> None:
        if size > self.shared:
            self.function.max_dynamic_shared_size_bytes = self.shared = size


class _Gpu:
    """CuPy's current device."""

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._cublas = importlib.import_module("cupy_backends.cuda.libs").cublas
        self._handle = importlib.import_module("cupy.cuda.device").get_cublas_handle
        self.processors = int(cupy.cuda.Device().attributes["MultiProcessorCount"])
        self._on_host = np.array([0, 1], np.float32)
        self._zero_on_host = self._on_host.ctypes.data
        self._on_device = cupy.array([0, 1], np.float32)
        self._prepared: set[int] = set()  # handles of cuBLAS
        self._raw_module = cupy.RawModule
        self._launch_kernel = cupy.cuda.driver.launchKernel
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
        arguments: Sequence[Any],
        shared: int = 0,
    ) -> None:
        if not all(grid):
            return
        kernels, key = self._kernels(), (source, name, *constants.items())
        kernel = kernels.get(key)
        if kernel is None:
            module, parameters = self._module(source, tuple(constants.items()))
            kernel = kernels[key] = _Kernel(module.get_function(name), parameters[name])
        if shared > kernel.shared:
            kernel.allow_shared(shared)
        kernel.arguments.put(
            [x if type(x) in _NUMBERS else 0 if x is None else x.data.ptr for x in arguments]
        )
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

    def product(
        self,
        out: Array,
        a: Array,
        b: Array,
        *,
        a_transposed: bool = False,
        b_transposed: bool = False,
        scale: Array | None = None,
        add: bool = False,
    ) -> None:
        depth = len(a) if a_transposed else a.shape[1]
        cublas, handle = self._cublas, self._handle()
        if handle not in self._prepared:
            # Parts of a long sum are float32, too, when they are added up.
            cublas.setMathMode(handle, _DISALLOW_REDUCED_PRECISION_REDUCTION)
            self._prepared.add(handle)
        zero = self._zero_on_host if scale is None else self._on_device.data.ptr
        one = zero + 4
        if scale is not None:
            cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_DEVICE)
        try:
            # cuBLAS counts by columns, and so sees every matrix transposed: outᵀ = bᵀ aᵀ.
            cublas.gemmEx(
                handle,
                int(b_transposed),
                int(a_transposed),
                *(out.shape[1], out.shape[0], depth),
                one if scale is None else scale.data.ptr,
                *_described(b),
                *_described(a),
                one if add else zero,
                *_described(out),
                _compute_type(a),
                _DEFAULT,
            )
        finally:
            if scale is not None:
                cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)

    def address(self, x: Array) -> int:
        return int(x.data.ptr)


_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _DEFAULT = 68, 77, -1  # cublasComputeType_t, and how
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16  # cublasMath_t
_ALWAYS_SHARED = 48 * 1024  # bytes of shared memory that a kernel gets without asking
_NUMBERS = (int, float)  # types of arguments that are no arrays
_tf32 = False


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 matrices may round what they multiply to TF32, 10 bits and not
    23, as tensor cores take it; not unless asked for. For the whole process."""
    global _tf32
    _tf32 = allowed


def _compute_type(x: Array) -> int:
    return _COMPUTE_32F_FAST_TF32 if _tf32 and x.itemsize == 4 else _COMPUTE_32F


_TYPES = {4: 0, 2: 14}  # cudaDataType of float32 and bfloat16, by their bytes


def _described(x: Array) -> tuple[int, int, int]:
    """A matrix as cuBLAS takes it: address, type, and numbers from row to row."""
    size = x.itemsize
    return x.data.ptr, _TYPES[size], max(x.strides[0] // size, x.shape[1])


_openers: dict[str, Callable[[], Device]] = {}


def register(backend: str, opener: Callable[[], Device]) -> None:
    """Let the arrays of a backend belong to the device that `opener` returns."""
    _openers[backend] = functools.cache(opener)


register("cupy", _Gpu)


def device_of(x: Array) -> Device:
    """The device that an array lies on."""
    return _openers[backend_of(x).name]()


def blocks(count: int, size: int) -> int:
    """How many blocks of `size` cover `count`."""
    return -(-count // size)
