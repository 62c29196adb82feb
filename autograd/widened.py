"""References of operations on bfloat16, computed in float32."""

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
    """What a reference gives for bfloat16 arrays: computed in float32, and rounded.

    CuPy neither sorts bfloat16 nor multiplies stacks of it, and sums belong into float32 anyway.
    """
    dtype = arrays[0].dtype
    result = reference(*map(_widened, arrays), **settings)
    if not has_gradient:
        return _rounded(result, dtype)
    value, vjp = result

    def rounded_vjp(dy: Any) -> Any:
        gradients = vjp(tuple(map(_widened, dy)) if isinstance(dy, tuple) else _widened(dy))
        # Writers: a Parameter's gradient is float32, and is not to be rounded on its way.
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
    """A matrix in `dtype`; losses and other statistics, which come in tuples, stay as they are."""
    return x if isinstance(x, tuple) else x.astype(dtype)
