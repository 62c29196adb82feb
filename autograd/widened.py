"""Running references on bfloat16 arrays, computed in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.backend import Array


def in_float32(
    reference: Callable[..., Any],
    has_gradient: bool,
    arrays: tuple[Array, ...],
    settings: dict[str, Any],
) -> Any:
    """Run a reference on bfloat16 arrays: widened to float32, with the result rounded.

    CuPy can neither sort bfloat16 nor multiply stacks of it, and sums need float32 anyway.
    """
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


def _writer(gradient: Array) -> Any:
    def into(out: Array, add: bool) -> None:
        out[...] = out + gradient if add else gradient

    return into


def _widened(x: Any) -> Any:
    is_array = hasattr(x, "dtype") and x.dtype.itemsize == 2
    return x.astype(np.float32) if is_array else x


def _rounded(x: Any, dtype: Any) -> Any:
    """A matrix in `dtype`. Tuples hold losses and other statistics, which stay float32."""
    return x if isinstance(x, tuple) else x.astype(dtype)
