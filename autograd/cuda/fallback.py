"""References, for what the kernels do not cover."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array
from autograd.operation import Kernel, Op


def reference(kernel: Kernel, *arrays: Array | None, **settings: Any) -> Any:
    """The reference of an operation: of bfloat16 in float32, and rounded again.

    CuPy neither sorts bfloat16 nor multiplies stacks of it, and sums belong into float32 anyway.
    """
    given = tuple(a for a in arrays if a is not None)
    dtype = given[0].dtype
    if dtype.itemsize != 2:
        return kernel.reference(*given, **settings)
    result = kernel.reference(*map(_widened, given), **settings)
    if not isinstance(kernel, Op):
        return _rounded(result, dtype)
    value, vjp = result

    def rounded_vjp(dy: Any) -> Any:
        gradients = vjp(tuple(map(_widened, dy)) if isinstance(dy, tuple) else _widened(dy))
        # Writers: a Parameter's gradient is float32, and is not to be rounded on its way.
        return tuple(map(_writer, gradients)) if len(given) > 1 else _writer(gradients)

    return _rounded(value, dtype), rounded_vjp


def _writer(gradient: Array) -> Any:
    def into(out: Array, add: bool) -> None:
        out[...] = out + gradient if add else gradient

    return into


def _widened(x: Any) -> Any:
    is_array = hasattr(x, "dtype") and x.dtype.itemsize == 2
    return x.astype(np.float32) if is_array else x


def _rounded(x: Any, dtype: Any) -> Any:
    """A matrix in `dtype`; statistics, which come in tuples, stay as they are."""
    return x if x is None or isinstance(x, tuple) else x.astype(dtype)
