"""What the launchers of this folder ask of a GPU: to run a kernel, and to multiply matrices."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autograd.backend import Array, backend_of

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

        Arguments are the device's arrays, None for a null pointer, or NumPy numbers, which keep
        their type. `shared` is the size of the dynamic shared memory in bytes.
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


class _Gpu:
    """CuPy's current device."""

    def __init__(self) -> None:
        self._cupy = importlib.import_module("cupy")
        self._cublas = importlib.import_module("cupy_backends.cuda.libs").cublas
        self._handle = importlib.import_module("cupy.cuda.device").get_cublas_handle
        self.processors = int(self._cupy.cuda.Device().attributes["MultiProcessorCount"])
        self._on_host = np.array([0, 1], np.float32)
        self._on_device = self._cupy.array([0, 1], np.float32)
        self._kernel = functools.cache(self._build)

    def _build(self, source: str, constants: tuple[tuple[str, int], ...], name: str) -> Any:
        options = ("--std=c++17", *(f"-D{key}={value}" for key, value in constants))
        # The headers are part of the text, for CuPy keeps what it has built under the text's hash.
        module = self._cupy.RawModule(code=source_of(source), options=options)
        return module.get_function(name)

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
        kernel = self._kernel(source, tuple(sorted(constants.items())), name)
        if shared > _ALWAYS_SHARED and shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
        if all(grid):
            given = tuple(map(_as_passed, arguments))
            kernel(tuple(grid), (threads,), given, shared_mem=shared)

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
        zero = self._on_host.ctypes.data if scale is None else self._on_device.data.ptr
        one = zero + 4
        # Parts of a long sum are float32, too, when they are added up.
        cublas.setMathMode(handle, _DISALLOW_REDUCED_PRECISION_REDUCTION)
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


def _as_passed(x: Any) -> Any:
    """An argument in the form that every version of CuPy passes by value."""
    if x is None:
        return np.uintp(0)
    return np.asarray(x) if isinstance(x, np.void) else x


_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _DEFAULT = 68, 77, -1  # cublasComputeType_t, and how
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16  # cublasMath_t
_ALWAYS_SHARED = 48 * 1024  # bytes of shared memory that a kernel gets without asking
_tf32 = False


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 matrices may round what they multiply to TF32, 10 bits and not
    23, as tensor cores take it; not unless asked for. For the whole process."""
    global _tf32
    _tf32 = allowed


def _compute_type(x: Array) -> int:
    return _COMPUTE_32F_FAST_TF32 if _tf32 and x.dtype == np.float32 else _COMPUTE_32F


_TYPES = {"float32": 0, "bfloat16": 14}  # cudaDataType


def _described(x: Array) -> tuple[int, int, int]:
    """A matrix as cuBLAS takes it: address, type, and numbers from row to row."""
    return x.data.ptr, _TYPES[x.dtype.name], max(x.strides[0] // x.itemsize, x.shape[1])


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
