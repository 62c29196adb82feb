"""Compile CUDA to machine code without a GPU, by the package nvidia-cuda-nvrtc.

The compiler's log is cached between runs: see tests/kept.py.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tests.kept import kept

_USED = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class Usage(NamedTuple):
    """The registers that each thread of a kernel uses, and the bytes that it spills to memory."""

    registers: int
    spilled: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC, or None if the package is not installed."""
    try:
        files = metadata.files("nvidia-cuda-nvrtc") or []
    except metadata.PackageNotFoundError:
        return None
    found = [f for f in files if re.search(r"libnvrtc\.so\.\d+$", str(f))]
    return ctypes.CDLL(str(found[0].locate())) if found else None


def compiled(text: str, architecture: str, constants: Mapping[str, Any]) -> dict[str, Usage]:
    """Compile to machine code, and return the usage of each kernel.

    AssertionError has the compiler's message.
    """
    # With the options that CuPy adds: denormal floats count as zero.
    options = [f"-arch={architecture}", "--std=c++17", "-ftz=true", "--ptxas-options=-v"]
    options += [f"-D{name}={value}" for name, value in constants.items()]

    def compile_it(folder: Path) -> None:
        (folder / "log").write_text(_log_of_compiling(text, options))

    version = metadata.version("nvidia-cuda-nvrtc")
    log = (kept(("NVRTC", version, text, tuple(options)), compile_it) / "log").read_text()
    return {
        name: Usage(int(registers), int(stores) + int(loads))
        for name, stores, loads, registers in _USED.findall(log)
    }


def _log_of_compiling(text: str, options: Sequence[str]) -> str:
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    assert not nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None)
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, buffer)
    log = buffer.value.decode()
    assert not failed, log
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    assert size.value > 0
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log
