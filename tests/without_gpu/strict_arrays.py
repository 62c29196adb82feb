"""A stand-in array library that separates host and device as strictly as CuPy, or more strictly.

Its arrays are NumPy's underneath, but refuse to be converted to NumPy arrays implicitly, and to be
combined with them in an operator, a function, an index or an assignment. Code that runs with it
copies between host and device only explicitly, and so runs on a device. After `register()` it is
the backend "strict".
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from autograd import backend

REFUSAL = "implicit conversion between a strict array and a NumPy array; use asarray or get"

FROM_HOST = {"array", "asarray", "ascontiguousarray"}
METHODS = (
    "all any argmax argmin argsort astype clip copy cumprod cumsum diagonal dot fill flatten item "
    "max mean min nonzero prod ravel repeat reshape round searchsorted sort squeeze std sum "
    "swapaxes take tolist trace transpose var view"
)
ATTRIBUTES = "dtype flags imag itemsize nbytes ndim real shape size strides T"
OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
COMPARISONS = "lt le eq ne gt ge"


class Pointer(NamedTuple):
    """The address of an array, like CuPy's `data`."""

    ptr: int


class StrictArray:
    """An array that for NumPy is on another device."""

    __array_ufunc__ = None  # NumPy's operators and ufuncs refuse it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: np.ndarray) -> None:
        assert type(data) is np.ndarray
        self._data = data

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(REFUSAL)

    def __array_function__(self, *_: Any) -> Any:
        raise TypeError(REFUSAL)

    @property
    def data(self) -> Pointer:
        return Pointer(self._data.ctypes.data)

    def get(self) -> np.ndarray:
        """A copy on the host."""
        return self._data.copy()

    def __len__(self) -> int:
        return len(self._data)

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __repr__(self) -> str:
        return f"strict {self._data!r}"

    def __getitem__(self, index: Any) -> StrictArray:
        return StrictArray(self._data[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._data[_index(index)] = _unwrap(value)

    def __neg__(self) -> StrictArray:
        return _wrap(-self._data)

    def __pos__(self) -> StrictArray:
        return _wrap(+self._data)

    def __abs__(self) -> StrictArray:
        return _wrap(abs(self._data))

    def __invert__(self) -> StrictArray:
        return _wrap(~self._data)


def _index(index: Any) -> tuple[Any, ...]:
    """An index that gives an array even for one element, and a view where NumPy gives one."""
    index = index if isinstance(index, tuple) else (index,)
    return _unwrap(index if any(i is Ellipsis for i in index) else (*index, Ellipsis))


def _unwrap(x: Any) -> Any:
    if isinstance(x, StrictArray):
        return x._data
    if isinstance(x, np.ndarray):
        raise TypeError(REFUSAL)
    if isinstance(x, list | tuple):
        return type(x)(map(_unwrap, x))
    if isinstance(x, dict):
        return {k: _unwrap(v) for k, v in x.items()}
    return x


def _wrap(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return StrictArray(np.asarray(x))
    if isinstance(x, list | tuple):
        return type(x)(map(_wrap, x))
    return x


def _method(name: str) -> Callable[..., Any]:
    def method(self: StrictArray, *args: Any, **settings: Any) -> Any:
        out = settings.get("out")
        result = getattr(self._data, name)(*_unwrap(args), **_unwrap(settings))
        return result if name in ("item", "tolist") else _wrap(result) if out is None else out

    return method


def _operator(name: str) -> Callable[..., Any]:
    def operator(self: StrictArray, other: Any) -> Any:
        if isinstance(other, list | tuple):
            raise TypeError("a list is not a strict array")
        result = getattr(self._data, name)(_unwrap(other))
        return result if result is NotImplemented else _wrap(result)

    return operator


def _in_place(name: str) -> Callable[..., Any]:
    def operator(self: StrictArray, other: Any) -> StrictArray:
        getattr(self._data, name)(_unwrap(other))
        return self

    return operator


for _name in METHODS.split():
    setattr(StrictArray, _name, _method(_name))
for _name in ATTRIBUTES.split():  # _wrap does not change a tuple of numbers
    setattr(StrictArray, _name, property(lambda self, name=_name: _wrap(getattr(self._data, name))))
for _name in OPERATORS.split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(StrictArray, f"__r{_name}__", _operator(f"__r{_name}__"))
    setattr(StrictArray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in COMPARISONS.split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))


class _Function:
    """A function of NumPy for strict arrays, with `at` and `reduce` of a ufunc."""

    def __init__(self, function: Any, name: str) -> None:
        self._function, self.__name__ = function, name

    def __call__(self, *args: Any, **settings: Any) -> Any:
        if self.__name__ in FROM_HOST:
            args = tuple(_from_host(a) for a in args)
        elif (isinstance(self._function, np.ufunc) or self.__name__ in ("clip", "where")) and any(
            isinstance(a, list | tuple) for a in args
        ):
            raise TypeError(f"{self.__name__} of a list; a list is not a strict array")
        elif self.__name__ == "where" and not isinstance(args[0], StrictArray):
            raise TypeError("where of a condition that is not a strict array")
        out = settings.get("out")
        result = self._function(*_unwrap(args), **_unwrap(settings))
        return _wrap(result) if out is None else out

    def __getattr__(self, name: str) -> Any:
        if name not in ("at", "reduce", "accumulate", "outer", "reduceat"):
            raise AttributeError(name)
        return _Function(getattr(self._function, name), name)


def _from_host(x: Any) -> Any:
    return StrictArray(x.copy()) if isinstance(x, np.ndarray) else x


class _Module(types.ModuleType):
    """NumPy's names for strict arrays: wrapped functions, and NumPy's types and constants."""

    ndarray = StrictArray

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found
        wrapped = _Function(found, name)
        setattr(self, name, wrapped)
        return wrapped

    @staticmethod
    def asnumpy(x: StrictArray) -> np.ndarray:
        return x.get()


xp = _Module("strict")


_BACKEND = backend.Backend(
    "strict", xp, StrictArray, xp.empty, xp.asarray, xp.asnumpy, bfloat16=True
)


def register() -> None:
    """Make this library the backend "strict"."""
    backend.register("strict", lambda: _BACKEND)
