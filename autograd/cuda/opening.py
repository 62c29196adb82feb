"""The backend "cupy": checks that everything it needs is there, and says what is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from autograd.backend import Array, Backend, BackendError, backend
from autograd.sentences import Sentences

_LEAST_CAPABILITY = 80  # Ampere, the first with bfloat16 on tensor cores
_MOST_KEPT_BYTES = 1 << 32  # base with a beam of 4 takes some 10 MB for each sentence of a batch
_INSTALL = "pip install 'npformer[cuda13]' (or [cuda12])"
_ANOTHER = "end what else runs on the GPU (nvidia-smi), or choose another with CUDA_VISIBLE_DEVICES"


def gpu_count() -> int:
    """How many GPUs this process may use. Raises BackendError if there are none."""
    driver = "it needs one of NVIDIA's and a driver for CuPy's version of CUDA (nvidia-smi)"
    with _or_else("finds no usable GPU", driver, RuntimeError):
        return int(_cupy().cuda.runtime.getDeviceCount())  # 0 is an error as well


def choose_gpu(number: int) -> str:
    """Put this thread's arrays on a GPU, from 0 up to `gpu_count`; returns the card's PCI address.

    To be called before the backend is opened, which uses the GPU that is current then.
    """
    device = _cupy().cuda.Device(number)
    with _or_else("cannot use the GPU", _ANOTHER, RuntimeError):
        device.use()
        return str(device.pci_bus_id)


def cupy_backend() -> Backend:
    """The backend of CuPy's current device. Raises BackendError if it cannot be used."""
    gpu_count()
    cupy = _cupy()
    with _or_else("finds no cuBLAS", f"{_INSTALL} brings it", ImportError):
        # As an attribute: the package finds the library that pip has installed.
        _ = importlib.import_module("cupy_backends.cuda.libs").cublas
    device = cupy.cuda.Device()
    capability = int(device.compute_capability)
    if capability < _LEAST_CAPABILITY:
        raise BackendError(
            f"the backend 'cupy' needs a GPU of compute capability 8.0 (Ampere) or newer; this one "
            f"has {capability // 10}.{capability % 10}"
        )
    with _or_else("cannot use the GPU's memory", _ANOTHER, MemoryError, RuntimeError):
        cupy.zeros(1)
    with _or_else("cannot start cuBLAS", f"where it lacks memory, {_ANOTHER}", RuntimeError):
        cupy.cuda.device.get_cublas_handle()
    compiler = f"{_INSTALL} brings NVRTC and CUDA's headers"
    not_built = RuntimeError, cupy.cuda.compiler.CompileException
    with _or_else("cannot build kernels", compiler, *not_built):
        cupy.ones(1)  # by a kernel
    recording = importlib.import_module("autograd.cuda.recording")
    return Backend(
        "cupy",
        cupy,
        cupy.ndarray,
        importlib.import_module("autograd.cuda.memory").arena().empty,
        cupy.asarray,
        cupy.asnumpy,
        bfloat16=True,
        synchronize=device.synchronize,
        ahead=importlib.import_module("autograd.cuda.ahead").ahead,
        steps_between_checks=8,
        record=recording.Recorded,
        recorder=recording.GraphRecorder,
        records=True,
        records_gradients=True,
        most_kept_bytes=_MOST_KEPT_BYTES,
        copied=importlib.import_module("autograd.cuda.copied").copied,
        prepare_attention=_prepare_attention,
        prepare_embedding=_prepare_embedding,
    )


def _cupy() -> Any:
    with _or_else("needs CuPy", _INSTALL, ImportError):
        return importlib.import_module("cupy")


def _prepare_attention(queries: Sentences, keys: Sentences) -> Any:
    return importlib.import_module("autograd.cuda.attention").plan(backend("cupy"), queries, keys)


def _prepare_embedding(ids: np.ndarray) -> Array:
    order = importlib.import_module("autograd.cuda.embedding").order_of(ids)
    return backend("cupy").from_host(order)


@contextmanager
def _or_else(what: str, advice: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors inside a `with` into one line: what the backend lacks, why, and what to do."""
    try:
        yield
    except errors as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"the backend 'cupy' {what} ({reason}): {advice}") from error
