"""The real CuPy, run where there is no GPU.

    stand_in = install(execute=True)  # before cupy is imported, in a separate process
    import cupy

CuPy contains the CUDA runtime in one of its modules. `install` redirects each of its functions to
a stand-in (runtime.cpp), which is also the driver's library; cublas.cpp replaces cuBLAS,
cublaslt.cpp cuBLASLt, and nccl.cpp NCCL, between processes. Kernels, ours and those that CuPy
generates, are built by the host's C++ compiler and run by the emulator (emulator.py). Sorting,
which CuPy contains as machine code, is done by NumPy. So this tests the use of CuPy down to its
calls of CUDA, except for their order on several streams, which is tested only where collectives of
NCCL take part (order.h).

With `execute=False` kernels and products do nothing: only the host's part of a training step is
left.

    python -m tests.without_gpu.cupy tests/gpu/test_operations.py  # pytest, with CuPy emulated
    python -m tests.without_gpu.cupy.run train train --data ...    # any module, with CuPy emulated
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.without_gpu.build import KERNELS, built, compiler, precompiled
from tests.without_gpu.cupy.elf import Symbol, symbols

PACKAGE, VERSION = "cupy-cuda13x", "14.2."  # its inner functions are replaced

# The folder of CuPy's caches on disk; without it, each process has a temporary one.
FOLDER = "NPFORMER_EMULATED_CUPY"

# How many GPUs the host has; one if it is not set. As on a host that has them, a process sees those
# that CUDA_VISIBLE_DEVICES names.
GPUS = "NPFORMER_EMULATED_GPUS"

# How long a rank waits for the others before that is an error, where NCCL would wait forever.
SECONDS = "NPFORMER_EMULATED_NCCL_SECONDS"

# If it is set, the death of a rank is not noticed, as NCCL does not between the GPUs of one host.
SILENT = "NPFORMER_EMULATED_NCCL_SILENT"

_HERE = Path(__file__).parent
_OPTIONS = ["-O0", "-w"]  # of kernels
# The names by which CuPy loads them.
_RUNTIME, _CUBLAS, _CUBLASLT = "libcuda.so.1", "libcublas.so.13", "libcublasLt.so.13"
_NCCL = "libnccl.so.2"
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(([^)]*)\)\s+)?(\w+)\s*\(')
_RUN, _FAULT = 0, 2  # of Turn in machine.h
_READ, _WRITE, _EXECUTE = 1, 2, 4  # of mprotect


class Counts(NamedTuple):
    """The number of calls of CUDA, by kind of work."""

    launches: int
    products: int
    copies: int
    memsets: int
    synchronizations: int
    allocations: int
    collectives: int
    sorts: int


class _Touched(ctypes.Structure):
    """As in machine.h."""

    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("written", ctypes.c_bool),
    )


class StandIn:
    """The GPU that this process seems to have."""

    def __init__(self, runtime: ctypes.CDLL, execute: bool) -> None:
        self._runtime, self._execute, self._sorts = runtime, execute, 0
        runtime.stand_in_reason.restype = ctypes.c_char_p

    def counts(self) -> Counts:
        """The counts since the process started."""
        found = (ctypes.c_longlong * (len(Counts._fields) - 1))()
        self._runtime.stand_in_counts(found)
        return Counts(*found, self._sorts)

    def sort(self, dtype: Any, data: int, keys: int, shape: Sequence[int]) -> None:
        """Replaces cupy.cuda.thrust.sort."""
        if self._turn(_touched(data, dtype, shape)):
            _array(data, dtype, shape).sort(axis=-1)

    def argsort(self, dtype: Any, out: int, data: int, keys: int, shape: Sequence[int]) -> None:
        """Replaces cupy.cuda.thrust.argsort, which sorts its data, too."""
        if self._turn(_touched(data, dtype, shape), _touched(out, np.intp, shape)):
            values = _array(data, dtype, shape)
            order = _array(out, np.intp, shape)
            order[...] = values.argsort(axis=-1, kind="stable")
            values.sort(axis=-1)

    def lexsort(self, *_: Any) -> None:
        """Replaces cupy.cuda.thrust.lexsort, whose machine code cannot run here."""
        raise NotImplementedError("sorting by several keys is not emulated")

    def _turn(self, *touched: _Touched) -> bool:
        """Count a sort, which is asked of the current stream; whether it is done now."""
        self._sorts += 1
        stream = importlib.import_module("cupy").cuda.get_current_stream().ptr
        found = self._runtime.stand_in_turn(
            b"a sort", ctypes.c_void_p(stream), (_Touched * len(touched))(*touched), len(touched)
        )
        if found == _FAULT:
            raise RuntimeError(self._runtime.stand_in_reason().decode())
        return self._execute and found == _RUN


def _touched(address: int, dtype: Any, shape: Sequence[int]) -> _Touched:
    return _Touched(address, math.prod(shape) * np.dtype(dtype).itemsize, True)


def _array(address: int, dtype: Any, shape: Sequence[int]) -> np.ndarray:
    """An array over the device's memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def reason_to_skip() -> str:
    """Why CuPy cannot be emulated here; empty if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "functions are replaced in the machine code of Linux on x86-64 alone"
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return f"needs CuPy (pip install {PACKAGE}=={VERSION}0)"
    if not version.startswith(VERSION):
        return f"knows the inside of CuPy {VERSION}x, and this is {version}"
    if compiler() is None:
        return "needs a C++ compiler (or pip install ziglang)"
    if find_spec("ml_dtypes") is None:
        return "bfloat16 on NumPy needs ml_dtypes"
    try:
        importlib.metadata.version("nvidia-cuda-nvrtc")
    except importlib.metadata.PackageNotFoundError:
        return "CuPy asks NVRTC for its version (pip install nvidia-cuda-nvrtc)"
    if "cudaMalloc" not in _runtime_functions():
        return "this CuPy does not name the functions of the CUDA runtime that it carries"
    return ""


def install(execute: bool, processors: int = 1, nccl: bool = True) -> StandIn:
    """From now on, replace the GPU for CuPy by a stand-in with this number of processors.

    Without `nccl`, CuPy finds what NCCL is installed, or none.
    """
    if reason := reason_to_skip():
        raise RuntimeError(f"CuPy cannot be emulated: {reason}")
    if "cupy" in sys.modules:
        raise RuntimeError("CuPy has been imported before its GPU was replaced")
    # The loader finds a library that is loaded already by its name.
    runtime = ctypes.CDLL(str(_stand_in_for_the_runtime()))
    ctypes.CDLL(str(_stand_in_for_cublas()))
    ctypes.CDLL(str(_stand_in_for_cublaslt()))
    if nccl:
        ctypes.CDLL(str(_stand_in_for_nccl()))
    folder = _folder()
    os.environ["CUPY_CACHE_DIR"] = str(folder / ("kernels" if execute else "no-kernels"))
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's reductions are machine code
    os.environ["XDG_CACHE_HOME"] = str(folder)  # where autograd.cuda saves its choices
    runtime.stand_in_begin(execute, processors)
    _replace_the_runtime(runtime)
    stand_in = StandIn(runtime, execute)
    nvrtc = importlib.import_module("cupy.cuda.compiler")
    nvrtc._compile_using_nvrtc_no_warning = functools.partial(_compiled, execute)
    thrust = importlib.import_module("cupy.cuda.thrust")
    thrust.sort, thrust.argsort, thrust.lexsort = stand_in.sort, stand_in.argsort, stand_in.lexsort
    return stand_in


@functools.cache
def _folder() -> Path:
    if given := os.environ.get(FOLDER):
        return Path(given)
    made = tempfile.mkdtemp(prefix="npformer-cupy-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


# The CUDA runtime


def _module_file(name: str) -> Path:
    """A compiled module of CuPy, without importing anything."""
    package = find_spec("cupy_backends")
    assert package is not None
    assert package.origin is not None
    (found,) = Path(package.origin).parent.glob(f"cuda/{name}.*.so")
    return found


@functools.cache
def _runtime_functions() -> dict[str, Symbol]:
    """The functions of the CUDA runtime that CuPy contains."""
    return {
        s.name: s
        for s in symbols(_module_file("api/runtime"))
        if s.is_function and s.place is not None and re.match(r"cuda[A-Z]", s.name)
    }


def _replace_the_runtime(stand_in: ctypes.CDLL) -> None:
    """Overwrite CuPy's functions with jumps to the stand-in, or to an error if it lacks one."""
    path = _module_file("api/runtime")
    known = next(s for s in symbols(path) if s.name == "PyInit_runtime")
    lies_at = _address(ctypes.CDLL(str(path)).PyInit_runtime) - (known.place or 0)
    missing = _address(stand_in.stand_in_has_no)
    for name, symbol in _runtime_functions().items():
        if hasattr(stand_in, name):
            code = _jump(_address(getattr(stand_in, name)))
        else:
            code = _first_argument(_address(_text(name))) + _jump(missing)
        assert len(code) <= symbol.size, name
        _overwrite(lies_at + (symbol.place or 0), code)


@functools.cache
def _text(name: str) -> ctypes.Array[ctypes.c_char]:
    """A string in memory, until the process ends."""
    return ctypes.create_string_buffer(name.encode())


def _address(x: Any) -> int:
    found = ctypes.cast(x, ctypes.c_void_p).value
    assert found
    return found


def _jump(target: int) -> bytes:
    return b"\x48\xb8" + struct.pack("<Q", target) + b"\xff\xe0"  # mov rax, target; jmp rax


def _first_argument(value: int) -> bytes:
    return b"\x48\xbf" + struct.pack("<Q", value)  # mov rdi, value


def _overwrite(at: int, code: bytes) -> None:
    """Change machine code in memory."""
    size = os.sysconf("SC_PAGE_SIZE")
    first, end = at // size * size, at + len(code)
    for may in (_READ | _WRITE | _EXECUTE, _READ | _EXECUTE):
        mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        if mprotect(ctypes.c_void_p(first), ctypes.c_size_t(end - first), may):
            raise OSError(ctypes.get_errno(), "the system does not let code be changed")
        if may & _WRITE:
            ctypes.memmove(at, code, len(code))


# Building


def _texts(*paths: str) -> dict[str, str]:
    """Files of tests/without_gpu by their relative paths."""
    return {path: (_HERE.parent / path).read_text() for path in paths}


def _stand_in_for_the_runtime() -> Path:
    texts = _texts("cupy/runtime.cpp", "cupy/machine.h", "cupy/order.h")
    return _stand_in(_RUNTIME, texts, "cupy/runtime.cpp")


def _stand_in_for_cublas() -> Path:
    """Its functions, and errors in the place of all others that CuPy's module needs."""
    needed = {s.name for s in symbols(_module_file("libs/cublas")) if s.place is None}
    missing = (
        '#include "machine.h"\n'
        "#define MISSING(function) \\\n"
        '    extern "C" __attribute__((weak)) int function() { \\\n'
        '        return stand_in_refuses(15, "it has no " #function); }\n'
        + "".join(f"MISSING({name})\n" for name in sorted(needed) if name.startswith("cublas"))
    )
    texts = {
        **_texts("cupy/cublas.cpp", "cupy/machine.h"),
        "cupy/missing.cpp": missing,
        "cublas.map": f"{_CUBLAS} {{ global: *; }};\n",
    }
    options = ["cupy/cublas.cpp", "cupy/missing.cpp", "-Wl,--version-script=cublas.map"]
    return _stand_in(_CUBLAS, texts, *options, uses=[("", _stand_in_for_the_runtime())])


def _stand_in_for_cublaslt() -> Path:
    texts = _texts("cupy/cublaslt.cpp", "cublaslt.cpp", "cupy/machine.h")
    uses = [("", _stand_in_for_the_runtime())]
    return _stand_in(_CUBLASLT, texts, "cupy/cublaslt.cpp", uses=uses)


def _stand_in_for_nccl() -> Path:
    texts = _texts("cupy/nccl.cpp", "cupy/machine.h", "cupy/numbers.h", "cupy/sockets.h")
    uses = [("", _stand_in_for_the_runtime())]
    return _stand_in(_NCCL, texts, "cupy/nccl.cpp", "-pthread", uses=uses)


def _stand_in(
    name: str, texts: Mapping[str, str], *options: str, uses: Sequence[tuple[str, Path]] = ()
) -> Path:
    always = ["-O2", "-Wall", "-Werror", "-shared", f"-Wl,-soname,{name}"]
    return built(name, texts, [*always, *options], uses)


def _compiled(
    execute: bool,
    source: str,
    options: Sequence[str] = (),
    arch: str | None = None,
    filename: str = "",
    name_expressions: Sequence[str] | None = None,
    *_: Any,
) -> tuple[bytes, dict[str, str]]:
    """Replaces CuPy's call of NVRTC: returns what cuModuleLoadData accepts as machine code."""
    if name_expressions:
        raise NotImplementedError("kernels that are templates are not emulated")
    if not execute:
        return b"\0", {}
    kernels = "".join(
        f"STAND_IN_KERNEL({name}, {bounds})\n" if bounds else f"STAND_IN_KERNEL({name})\n"
        for bounds, name in _KERNEL.findall(source)
    )
    defined = [option for option in options if option.startswith("-D")]
    library = built(
        "kernels.so",
        {"kernels.cpp": source + "\n" + kernels},
        [
            *(*_OPTIONS, *defined, *KERNELS),
            "-Wl,-Bsymbolic-functions",  # a kernel may have the name of a function of the C library
        ],
        [("-include", _header()), ("-I", _header().parent / "include"), _headers_of_cupy()],
        importlib.metadata.version(PACKAGE),
    )
    return os.fsencode(library) + b"\0", {}


@functools.cache
def _header() -> Path:
    """The header that kernels include first, with replacements of CuPy's headers beside it."""
    headers = (str(path.relative_to(_HERE.parent)) for path in _HERE.rglob("*.*h"))
    return precompiled(
        "cupy/kernel.h",
        _texts("cuda.h", *headers),
        [*_OPTIONS, "-Icupy/include"],
        [_headers_of_cupy()],
        importlib.metadata.version(PACKAGE),
    )


def _headers_of_cupy() -> tuple[str, Path]:
    cupy = importlib.import_module("cupy")
    return "-I", Path(cupy.__file__).parent / "_core/include"
