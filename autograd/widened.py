"""Running references on bfloat16 arrays, computed in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.backend import Array
from autograd.tape import unbroadcast


def in_float32(reference: Callable[..., Any], has_gradient: bool) -> Callable[..., Any]:
    """A reference for bfloat16 arrays: they are widened to float32, and the result is rounded.

    CuPy can neither sort bfloat16 nor multiply stacks of it, and sums need float32 anyway.
    """

    def widened(*arrays: Array, **settings: Any) -> Any:
        dtype = arrays[0].dtype
        result = reference(*map(_widened, arrays), **settings)
        if not has_gradient:
            return _rounded(result, dtype)
        value, vjp = result

        def rounded_vjp(dy: Any) -> Any:
            gradients = vjp(tuple(map(_widened, dy)) if isinstance(dy, tuple) else _widened(dy))
            # Writers, since a Parameter's gradient is float32 and should not be rounded.
            return tuple(map(_writer, gradients)) if len(arrays) > 1 else _writer(gradients)

        return _rounded(value, dtype), rounded_vjp

    return widened


def is_bfloat16(dtype: Any) -> bool:
    """Whether a dtype is bfloat16, which is not one of NumPy's own."""
    return dtype.itemsize == 2 and dtype.kind == "V"


def _writer(gradient: Array) -> Any:
    def into(out: Array, add: bool) -> None:
        summed = unbroadcast(gradient, out.shape)
        out[...] = out + summed if add else summed

    return into


def _widened(x: Any) -> Any:
    return x.astype(np.float32) if hasattr(x, "dtype") and is_bfloat16(x.dtype) else x


def _rounded(x: Any, dtype: Any) -> Any:
    """A matrix in `dtype`. Tuples hold losses and other statistics, which stay float32."""
    return x if isinstance(x, tuple) else x.astype(dtype)
