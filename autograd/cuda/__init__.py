"""Fast implementations of the large operations on a GPU: kernels by hand, and cuBLAS's products.

Each operation's module is imported when it first runs; CuPy builds a kernel for the sizes that it
is used with, and keeps it on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from autograd import ops
from autograd.cuda.products import allow_tf32
from autograd.operation import Kernel

__all__ = ["KERNELS", "allow_tf32", "enable"]

# The module that has the implementation of each, and the dtypes that it is for.
KERNELS = {
    ops.linear: ("linear", "float32", "bfloat16"),
    ops.attention: ("attention", "float32", "bfloat16"),
    ops.add_dropout_norm: ("norm", "float32", "bfloat16"),
    ops.dropout: ("dropout", "float32", "bfloat16"),
    ops.layer_norm: ("norm", "float32", "bfloat16"),
    ops.embedding: ("embedding", "float32", "bfloat16"),
    ops.projected_cross_entropy: ("cross_entropy", "float32", "bfloat16"),
    ops.plan_attention: ("attention", "int32"),
    ops.cached_attention: ("cached_attention", "float32", "bfloat16"),
    ops.append_to_cache: ("cached_attention", "float32", "bfloat16"),
    ops.likeliest_symbols: ("likeliest", "float32", "bfloat16"),
    ops.adam_step: ("adam", "float32"),
    ops.squared_norm: ("adam", "float32"),
}


def enable(backend: str = "cupy") -> None:
    """Have the large operations run their kernels on arrays of a backend."""
    for kernel, (module, *dtypes) in KERNELS.items():
        _at_first_call(kernel, f"{__name__}.{module}", backend, dtypes)


def _at_first_call(kernel: Kernel, module: str, backend: str, dtypes: Sequence[str]) -> None:
    """Register what imports an implementation's module when it is needed, and gives way to it."""

    @kernel.on(backend, *dtypes)
    def implementation(*arrays: Any, **settings: Any) -> Any:
        found = getattr(import_module(module), f"fast_{kernel.name}")
        kernel.on(backend, *dtypes)(found)
        return found(*arrays, **settings)
