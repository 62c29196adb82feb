"""NumPy's functions on Tensors: each is an operation, or raises a TypeError that explains it.

    np.exp(p), np.maximum(p, 0), np.sum(p, axis=0), np.where(p > 1, p, 0)

NumPy dispatches a call to the Tensors among its arguments. A function that is not in these tables
would return an array of objects, or lose a gradient, and is an error. Comparisons return plain
arrays.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autograd import ops
from autograd.backend import array_module
from autograd.tensor import Tensor

_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: ops.add,
    np.subtract: ops.subtract,
    np.multiply: ops.multiply,
    np.divide: ops.divide,
    np.power: ops.power,
    np.matmul: ops.matmul,
    np.negative: ops.negative,
    np.positive: operator.pos,
    np.absolute: ops.abs,
    np.square: lambda x: ops.power(x, 2),
    np.exp: ops.exp,
    np.log: ops.log,
    np.sqrt: ops.sqrt,
    np.sin: ops.sin,
    np.cos: ops.cos,
    np.tanh: ops.tanh,
    np.maximum: ops.maximum,
    np.minimum: ops.minimum,
    np.equal: lambda x, y: _values(x) == _values(y),
    np.not_equal: lambda x, y: _values(x) != _values(y),
    np.less: lambda x, y: _values(x) < _values(y),
    np.less_equal: lambda x, y: _values(x) <= _values(y),
    np.greater: lambda x, y: _values(x) > _values(y),
    np.greater_equal: lambda x, y: _values(x) >= _values(y),
    np.isnan: lambda x: array_module(x.value).isnan(x.value),
    np.isinf: lambda x: array_module(x.value).isinf(x.value),
    np.isfinite: lambda x: array_module(x.value).isfinite(x.value),
}


def _reduction(operation: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return operation(a, axis=axis, keepdims=keepdims)

    return reduce


def _deviation(operation: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
        return operation(a, axis=axis, ddof=ddof, keepdims=keepdims)

    return reduce


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    by_position = a_min is not None or a_max is not None
    if by_position and (min is not None or max is not None):
        raise ValueError("np.clip: give the bounds by position, or as min and max, but not both")
    return ops.clip(a, min=a_min if min is None else min, max=a_max if max is None else max)


def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    return list(ops.split(ary, sections=indices_or_sections, axis=axis))


# With NumPy's names of the arguments, but only the arguments that the operations have.
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _reduction(ops.sum),
    np.mean: _reduction(ops.mean),
    np.max: _reduction(ops.max),
    np.min: _reduction(ops.min),
    np.var: _deviation(ops.var),
    np.std: _deviation(ops.std),
    np.clip: _clip,
    np.where: lambda condition, x, y: ops.where(condition, x, y),
    np.concatenate: lambda arrays, axis=0: ops.concatenate(*arrays, axis=axis),
    np.stack: lambda arrays, axis=0: ops.stack(*arrays, axis=axis),
    np.split: _split,
    np.reshape: lambda a, shape: a.reshape(shape),
    np.ravel: lambda a: a.flatten(),
    np.transpose: lambda a, axes=None: ops.transpose(a, axes=axes),
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a: a.size,
    np.zeros_like: lambda a: array_module(a.value).zeros_like(a.value),
    np.ones_like: lambda a: array_module(a.value).ones_like(a.value),
}


def call_ufunc(ufunc: Any, method: str, inputs: Sequence[Any], settings: dict[str, Any]) -> Any:
    """Apply a universal function of NumPy to Tensors."""
    if "out" in settings:
        raise TypeError(
            f"np.{ufunc.__name__} cannot write a Tensor to an array, which has no gradient: write "
            "y = x + p in place of x += p, and omit `out`"
        )
    if method != "__call__" or settings or ufunc not in _UFUNCS:
        what = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        raise _refusal(what, list(settings))
    return _UFUNCS[ufunc](*inputs)


def call(function: Any, arguments: Sequence[Any], settings: dict[str, Any]) -> Any:
    """Apply another function of NumPy to Tensors."""
    if function not in _FUNCTIONS:
        raise _refusal(_name(function))
    ours = _FUNCTIONS[function]
    signature = inspect.signature(ours)
    try:
        signature.bind(*arguments, **settings)
    except TypeError:
        unknown = [name for name in settings if name not in signature.parameters]
        raise _refusal(_name(function), unknown or ["these arguments"]) from None
    return ours(*arguments, **settings)


_INSTEAD = {
    "copy": "copy.deepcopy(x), or x.numpy().copy() for its value",
    "dot": "x @ y",
    "ravel": "x.flatten()",
    "squeeze": "x.reshape(shape) with the axes that stay",
    "swapaxes": "x.transpose(axes)",
}


def missing(kind: str, name: str) -> str:
    """The message for an attribute that a Tensor lacks, with advice if an array has it."""
    message = f"{kind!r} object has no attribute {name!r}"
    if name.startswith("__") or not hasattr(np.ndarray, name):
        return message
    call = "(...)" if callable(getattr(np.ndarray, name)) else ""
    instead = _INSTEAD.get(
        name, f"the operations of autograd.ops, or x.numpy().{name}{call} for its value"
    )
    return f"{message}, as an array has: write {instead}"


def _name(function: Any) -> str:
    """A function's name without `np.`: linalg.norm for np.linalg.norm."""
    package = str(function.__module__).removeprefix("numpy").removeprefix(".")
    return f"{package}.{function.__name__}" if package else str(function.__name__)


def _refusal(name: str, given_with: Sequence[str] = ()) -> TypeError:
    given = f" with {', '.join(given_with)}" if given_with else ""
    return TypeError(
        f"np.{name}{given} does not accept Tensors, because it would lose their gradients: use "
        f"the operations of autograd.ops, or only the values, np.{name}(x.numpy(), ...)"
    )


def _values(x: Any) -> Any:
    return x.value if isinstance(x, Tensor) else x
