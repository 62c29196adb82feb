"""cuBLAS's products of matrices; what follows a product is for others to compute."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from autograd.backend import Array
from autograd.cuda.products import Product, stride_of

_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _DEFAULT = 68, 77, -1  # cublasComputeType_t, and how
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16  # cublasMath_t
_ALLOC_FAILED = 3  # cublasStatus_t
_TYPES = {4: 0, 2: 14}  # cudaDataType of float32 and bfloat16, by their bytes


class Cublas:
    """The library, as CuPy brings it. `numbers` is where 0 and 1 lie on the device, in float32."""

    def __init__(self, numbers: int) -> None:
        self._cublas = importlib.import_module("cupy_backends.cuda.libs").cublas
        self._handle = importlib.import_module("cupy.cuda.device").get_cublas_handle
        self._zero_one = np.array([0, 1], np.float32)
        self._on_host, self._on_device = self._zero_one.ctypes.data, numbers
        self._prepared: set[int] = set()  # handles

    def multiply(self, product: Product, tf32: bool) -> None:
        """The product without its bias and ReLU. Raises MemoryError where cuBLAS has no room."""
        out, a, b, a_transposed, b_transposed, scale, add, _, _ = product
        cublas, handle = self._cublas, self._prepared_handle()
        zero = self._on_host if scale is None else self._on_device
        one = zero + 4
        if scale is not None:
            cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_DEVICE)
        try:
            # cuBLAS counts by columns, and so sees every matrix transposed: outᵀ = bᵀ aᵀ.
            cublas.gemmEx(
                handle,
                int(b_transposed),
                int(a_transposed),
                *(out.shape[1], out.shape[0], a.shape[0] if a_transposed else a.shape[1]),
                one if scale is None else scale.data.ptr,
                *_described(b),
                *_described(a),
                one if add else zero,
                *_described(out),
                _COMPUTE_32F_FAST_TF32 if tf32 and a.itemsize == 4 else _COMPUTE_32F,
                _DEFAULT,
            )
        except cublas.CUBLASError as error:
            raise _explained(error) from error
        finally:
            if scale is not None:
                cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)

    def _prepared_handle(self) -> int:
        """This thread's handle on the library, on the current stream."""
        try:
            handle: int = self._handle()
        except self._cublas.CUBLASError as error:
            raise _explained(error) from error
        if handle not in self._prepared:
            # Parts of a long sum are float32, too, when they are added up.
            self._cublas.setMathMode(handle, _DISALLOW_REDUCED_PRECISION_REDUCTION)
            self._prepared.add(handle)
        return handle


def _explained(error: Any) -> Exception:
    """An error of cuBLAS's; a MemoryError where that is what it is."""
    if error.status == _ALLOC_FAILED:
        return MemoryError("cuBLAS has no memory left to work in")
    return error  # type: ignore[no-any-return]


def _described(x: Array) -> tuple[Any, int, int]:
    """A matrix as cuBLAS takes it: address, type, and numbers from row to row."""
    return x.data.ptr, _TYPES[x.itemsize], stride_of(x)
