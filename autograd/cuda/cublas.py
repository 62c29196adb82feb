"""Matrix products by cuBLAS, without bias and ReLU."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from autograd.cuda.cublaslt import Problem
from autograd.cuda.product import Product

_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _DEFAULT = 68, 77, -1  # cublasComputeType_t, and how
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16  # cublasMath_t
_ALLOC_FAILED = 3  # cublasStatus_t
_TYPES = {"float32": 0, "bfloat16": 14}  # cudaDataType


class Cublas:
    """The library, through CuPy. `numbers` is the device address of the float32 numbers 0 and 1."""

    def __init__(self, numbers: int) -> None:
        self._cublas = importlib.import_module("cupy_backends.cuda.libs").cublas
        self._handle = importlib.import_module("cupy.cuda.device").get_cublas_handle
        self._zero_one = np.array([0, 1], np.float32)
        self._on_host, self._on_device = self._zero_one.ctypes.data, numbers
        self._prepared: set[int] = set()  # handles

    def multiply(self, product: Product, problem: Problem) -> None:
        """The product without bias and ReLU. Raises MemoryError if cuBLAS lacks memory."""
        cublas, handle, scale, p = self._cublas, self._prepared_handle(), product.scale, problem
        zero = self._on_host if scale is None else self._on_device
        one = zero + 4
        dtype, is_float32 = _TYPES[p.dtype], p.dtype == "float32"
        if scale is not None:
            cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_DEVICE)
        try:
            # cuBLAS is column-major, so it sees every matrix transposed: outᵀ = bᵀ aᵀ.
            cublas.gemmEx(
                handle,
                int(p.b_transposed),
                int(p.a_transposed),
                *(p.columns, p.rows, p.depth),
                one if scale is None else scale.data.ptr,
                *(product.b.data.ptr, dtype, p.b_stride),
                *(product.a.data.ptr, dtype, p.a_stride),
                one if product.add else zero,
                *(product.out.data.ptr, _TYPES[p.out_dtype], p.out_stride),
                _COMPUTE_32F_FAST_TF32 if p.tf32 and is_float32 else _COMPUTE_32F,
                _DEFAULT,
            )
        except cublas.CUBLASError as error:
            _name_memory(error)
            raise
        finally:
            if scale is not None:
                cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)

    def _prepared_handle(self) -> int:
        """This thread's handle, set to the current stream."""
        try:
            handle: int = self._handle()
        except self._cublas.CUBLASError as error:
            _name_memory(error)
            raise
        if handle not in self._prepared:
            # Partial sums are added up in float32, too.
            self._cublas.setMathMode(handle, _DISALLOW_REDUCED_PRECISION_REDUCTION)
            self._prepared.add(handle)
        return handle


def _name_memory(error: Any) -> None:
    """Raise MemoryError if cuBLAS lacked memory."""
    if error.status == _ALLOC_FAILED:
        raise MemoryError("no memory is left for cuBLAS") from error
