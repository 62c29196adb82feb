"""What this machine is: its processor and GPUs, and the versions of packages."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from train.processors import cores

_CPUINFO = Path("/proc/cpuinfo")
_GPU_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # widest first
_PACKAGES = (
    "numpy",
    "numba",
    "sentencepiece",
    "mpi4py",
    "mpich",
    "torch",
    "jax",
    "ctranslate2",
    "transformers",
    "cupy-cuda12x",
    "cupy-cuda13x",
)


@functools.cache
def machine() -> dict[str, Any]:
    """The processor, its cores and vectors, the system, and the GPUs if there are any."""
    info = _cpuinfo()
    found: dict[str, Any] = {
        "cpu": info.get("model name", platform.processor()),
        "cores": cores(),
        "system": platform.system(),
    }
    flags = info.get("flags", "").split()
    if vectors := next((name for flag, name in _VECTORS.items() if flag in flags), None):
        found["vectors"] = vectors
    if shutil.which(_GPU_QUERY[0]):
        output = subprocess.run(_GPU_QUERY, capture_output=True, text=True, check=False).stdout
        found["gpus"] = [gpu for gpu in output.split("\n") if gpu]
    return found


def _cpuinfo() -> dict[str, str]:
    """Linux's description of the first processor; empty on other systems."""
    if not _CPUINFO.exists():
        return {}
    lines = _CPUINFO.read_text().split("\n\n")[0].split("\n")
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def versions() -> dict[str, str]:
    """The versions of Python and of the relevant packages that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
