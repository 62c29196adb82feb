"""Tensors and Parameters: values that gradients are computed for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from autograd.backend import Array, array_module, backend_of, current, to_host

if TYPE_CHECKING:
    from autograd.buffer import ParameterBuffer

_serial_numbers = itertools.count(1)


class Tensor:
    """A differentiable value. A plain array or number is a constant; nothing else decides it.

    `value` is an array of the current backend (an array that is given stays where it is).
    Operators and methods are those of arrays; all that happens to a Tensor while a Tape runs is
    recorded on it.
    """

    __slots__ = ("serial", "value")
    __array_ufunc__ = None  # NumPy leaves `array + tensor` to Tensor.__radd__

    def __init__(self, value: Any, dtype: Any = None) -> None:
        if isinstance(value, Tensor):
            raise TypeError("a Tensor is made of an array; this is a Tensor already")
        # np.float64 is a float too, but the result of an operation on NumPy's arrays stays there.
        new = isinstance(value, list | tuple | int | float) and not isinstance(value, np.generic)
        owner = current() if new else backend_of(value)
        self.value: Array = owner.asarray(value, dtype)
        self.serial = next(_serial_numbers)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, in memory or pickled: to the tape it is a Tensor of its own."""
        return {"value": self.value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        self.serial = next(_serial_numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.value.dtype)

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    @property
    def size(self) -> int:
        return int(self.value.size)

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array."""
        return to_host(self.value)

    def __float__(self) -> float:
        return float(self.numpy())

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __pow__(self, exponent: float) -> Tensor:
        return ops.power(self, exponent=exponent)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.take(self, index=index)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        return ops.reshape(self, shape=_flat(shape))

    def transpose(self, *axes: int | tuple[int, ...]) -> Tensor:
        return ops.transpose(self, axes=_flat(axes) or None)

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.transpose(self, axes=None)


class Parameter(Tensor):
    """A Tensor that is learnt: `tape.backward` leaves its gradient in `grad`.

    Where a `ParameterBuffer` holds it, its arrays are views into that buffer's flat ones. Otherwise
    the first backward pass makes `grad`. `master` is what an optimizer changes: `value` itself, or
    the float32 numbers that `value` is a bfloat16 copy of; `grad` has its dtype.
    """

    __slots__ = ("buffer", "grad", "master")

    def __init__(self, value: Any, dtype: Any = None) -> None:
        super().__init__(value, dtype)
        if self.dtype.kind in "iub":
            raise TypeError(f"a Parameter holds floating-point numbers; these are {self.dtype}")
        self.master: Array = self.value
        self.grad: Array | None = None
        self.buffer: ParameterBuffer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """In a buffer, that alone: it is copied as a whole, and says where its Parameters lie."""
        if self.buffer is None:
            return {"value": self.value, "grad": self.grad}
        return {"buffer": self.buffer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.serial = next(_serial_numbers)
        self.buffer = state.get("buffer")
        if self.buffer is None:
            self.value = self.master = state["value"]
            self.grad = state["grad"]

    def __copy__(self) -> Parameter:
        raise TypeError("a Parameter is copied with its array: use copy.deepcopy")

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array, as exact as it is kept."""
        return to_host(self.master)

    def assign(self, values: Any) -> None:
        """Overwrite the value, in place, with an array of any backend."""
        self.master[...] = backend_of(self.master).asarray(values, self.master.dtype)
        if self.value is not self.master:
            self.value[...] = self.master

    def gradient_store(self) -> Array:
        """The array that a gradient is to be written to; made here if there is none yet."""
        if self.grad is None:
            self.grad = array_module(self.master).empty_like(self.master)
        return self.grad


def _flat(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """The numbers of f(1, 2) or f((1, 2))."""
    return tuple(numbers[0]) if numbers and isinstance(numbers[0], tuple) else numbers


# At the end, because the operations themselves are defined in terms of Tensor.
from autograd import ops  # noqa: E402
