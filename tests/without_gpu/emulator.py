"""Kernels of autograd/cuda, built by the host's C++ compiler and run on the host's memory.

    kernels = load("norm", COLUMNS=512, REAL_BYTES=4)
    kernels.launch("add_dropout_norm", (grid,), (128,), arguments)

cuda.h says how threads are emulated. Inside `on_strict_arrays()` the operations of autograd.cuda
run on strict arrays.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from autograd.backend import backend
from autograd.cuda import device
from autograd.cuda.bias import add_bias, complete
from autograd.cuda.device import Blocks, Constants
from autograd.cuda.embedding import order_of
from autograd.cuda.product import Product
from autograd.cuda.signature import Arguments, in_order, signatures
from tests.without_gpu import strict_arrays
from tests.without_gpu.build import KERNELS, built, compiler, precompiled
from tests.without_gpu.strict_arrays import StrictArray

__all__ = ["EmulatedDevice", "KernelError", "Kernels", "compiler", "cublaslt", "load", "load_text"]

HEADER = Path(__file__).with_name("cuda.h")
# What they find, the host would forgive. They call functions of cuda.h.
_CHECKS = "-fsanitize=alignment,bounds"
_OPTIONS = ["-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", _CHECKS]
_LAUNCHER = """
extern "C" {{
unsigned parameters_of_{name} = emulator::Launch<{name}>::parameters;
const char* launch_{name}(const unsigned* shape, size_t shared, void** arguments) {{
    return emulator::run({{shape[0], shape[1], shape[2]}}, {{shape[3], shape[4], shape[5]}}, shared,
                         emulator::Launch<{name}>::enter, arguments);
}}
}}
"""


_ONE_AT_A_TIME = threading.Lock()


class KernelError(Exception):
    """A launch that a GPU would refuse, or that would never end."""


class Kernels:
    """The kernels of one source, built with some constants."""

    def __init__(self, library: ctypes.CDLL, text: str) -> None:
        self._library = library
        self.signatures = signatures(text)
        self._arguments = {name: Arguments(p) for name, p in self.signatures.items()}

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared: int = 0,
    ) -> None:
        """Run a kernel. Arguments are NumPy arrays, None for a null pointer, or numbers."""
        expected = ctypes.c_uint.in_dll(self._library, f"parameters_of_{name}").value
        assert expected == len(self.signatures[name]), "the signature was read wrongly"
        shape = (ctypes.c_uint * 6)(*_three(grid), *_three(block))
        function = getattr(self._library, f"launch_{name}")
        function.restype = ctypes.c_char_p
        room = self._arguments[name]
        # The fibers are shared by the process, and the kernel has one buffer for its arguments.
        with _ONE_AT_A_TIME:
            try:
                room.put([_passed(x) for x in arguments])
            except struct.error as error:
                raise KernelError(f"{name}: {error}") from error
            error = function(shape, ctypes.c_size_t(shared), ctypes.c_void_p(room.pointers))
        if error:
            raise KernelError(f"{name}: {error.decode()}")


def _passed(x: Any) -> int | float:
    """An argument as the driver takes it: an array by its address."""
    if x is None:
        return 0
    if isinstance(x, np.ndarray):
        return x.ctypes.data
    if isinstance(x, int | float):
        return x
    raise TypeError(f"a kernel's argument is an array, None or a number, not {x!r}")


def _three(numbers: Sequence[int]) -> tuple[int, ...]:
    return (*numbers, 1, 1, 1)[:3]


def load(source: str, **constants: Any) -> Kernels:
    """The kernels of autograd/cuda/`source`.cu, with preprocessor constants."""
    return load_text(device.source_of(source), **constants)


@functools.cache
def load_text(text: str, **constants: Any) -> Kernels:
    """The kernels of a source."""
    launchers = "".join(_LAUNCHER.format(name=name) for name in signatures(text))
    defined = [f"-D{name}={value}" for name, value in sorted(constants.items())]
    library = built(
        "kernels.so",
        {"kernels.cpp": text + launchers},
        [*_OPTIONS, *defined, *KERNELS],
        [("-include", _header())],
    )
    return Kernels(ctypes.CDLL(str(library)), text)


@functools.cache
def _header() -> Path:
    return precompiled("cuda.h", {"cuda.h": HEADER.read_text()}, _OPTIONS)


@functools.cache
def cublaslt() -> Path:
    """A shared library with cuBLASLt's interface for the host's memory (cublaslt.cpp)."""
    source = Path(__file__).with_name("cublaslt.cpp").read_text()
    options = ["-O1", "-shared", "-Wall", "-Werror", "cublaslt.cpp"]
    return built("cublaslt.so", {"cublaslt.cpp": source}, options)


# The dtypes of arrays that a kernel may take as a pointer to each type. Those of _ONE_BY_ONE are
# read an element at a time, so they need no alignment.
_POINTEES = {
    "real": ("float32", "bfloat16"),
    "float": ("float32",),
    "double": ("float64",),
    "float2": ("float32",),
    "float4": ("float32",),
    "uint2": ("bfloat16",),
    "unsigned char": ("uint8",),
    "int": ("int32",),
    "Tile": ("int32",),
    "long long": ("int64",),
}
_ONE_BY_ONE = ("unsigned char", "int", "long long", "float", "double")


def has_whole_rows(x: np.ndarray) -> bool:
    """Whether the elements of a row lie side by side, as a kernel reads them.

    The stride of an axis of length 1 is never used, and says nothing.
    """
    strides = [stride for n, stride in zip(x.shape, x.strides, strict=True) if n > 1]
    return x.size == 0 or not strides or strides[-1] == x.itemsize


class EmulatedDevice:
    """The device of autograd.cuda for strict arrays (see strict_arrays.py).

    It has one processor, so that each block has many rows.
    """

    processors = 1
    shared_bytes = 227 * 1024  # as an H100 has, and cuda.h

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
        assert threads % 32 == 0, "these kernels use all threads of a warp"
        assert shared <= self.shared_bytes
        kernels = load(source, **constants)
        parameters = kernels.signatures[name]
        on_host: list[Any] = []
        for parameter, x in zip(parameters, in_order(name, parameters)(arguments), strict=True):
            x = x._data if isinstance(x, StrictArray) else x
            fields = x if isinstance(x, tuple) else (x,)
            fields = tuple(f._data if isinstance(f, StrictArray) else f for f in fields)
            assert len(fields) == parameter.fields, (name, parameter, fields)
            on_host += fields
            if isinstance(x, np.ndarray):
                points_to = parameter.pointee or "nothing"
                assert x.dtype.name in _POINTEES[points_to], (name, parameter, x.dtype)
                assert has_whole_rows(x), (name, parameter, x.shape, x.strides)
                assert x.ctypes.data % 16 == 0 or points_to in _ONE_BY_ONE, (name, parameter)
        counts = [int(count) for count in grid]
        if all(counts):
            kernels.launch(name, counts, (threads,), on_host, shared)

    def build(self, kernels: Iterable[tuple[str, Constants]]) -> None:
        """They are built when they are launched."""

    def multiply(self, product: Product) -> None:
        left, right = (x._data.astype(np.float32) for x in (product.a, product.b))
        result = (left.T if product.a_transposed else left) @ (
            right.T if product.b_transposed else right
        )
        if product.scale is not None:
            result *= product.scale._data
        out = product.out._data
        out[...] = out + result if product.add else result
        add_bias(self, product)
        complete(self, product)


@contextmanager
def on_strict_arrays() -> Iterator[None]:
    """Let the operations of autograd.cuda run on strict arrays, emulated, inside a `with`."""
    strict_arrays.register()
    target = backend("strict")
    device.register("strict", EmulatedDevice)
    as_on_cupy = {
        "implementations": "cupy",
        "prepare_embedding": lambda ids: target.from_host(order_of(ids)),
    }
    before = {name: getattr(target, name) for name in as_on_cupy}
    for name, value in as_on_cupy.items():
        object.__setattr__(target, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(target, name, value)
