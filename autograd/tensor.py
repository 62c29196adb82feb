"""Tensors and Parameters: values that gradients are computed for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from autograd.backend import Array, array_module, backend_of, current, ordinary, to_host

if TYPE_CHECKING:
    # Operations take Tensors, and so import this module: autograd/__init__.py binds `ops` here.
    from autograd import ops as ops
    from autograd.buffer import ParameterBuffer

_serial_numbers = itertools.count(1)
State = tuple[dict[str, Any] | None, dict[str, Any]]  # of an object: its __dict__ and its slots
_NUMBERS = list, tuple, int, float  # these belong to no array library


class Tensor:
    """A differentiable array. Arrays and numbers that are not Tensors are constants.

    `value` is the array. Numbers and lists become an array of the current backend; an array stays
    on its own backend. Its elements must be floating-point numbers: TypeError otherwise, since no
    others have gradients. A Tensor has the operators and methods of an array and can be passed to
    the NumPy functions that numpy_functions.py lists. Operations on it are recorded while a Tape
    runs. Operations without a gradient, such as comparisons, return plain arrays.
    """

    __slots__ = ("serial", "value")

    def __init__(self, value: Any, dtype: Any = None) -> None:
        if isinstance(value, Tensor):
            raise TypeError("a Tensor must be made of an array, got a Tensor")
        # np.float64 is a float too, but as the result of a NumPy operation it stays with NumPy.
        if type(value) is np.ndarray and dtype is None and value.dtype.isnative:
            array = value  # the common case
        else:
            new = isinstance(value, _NUMBERS) and not isinstance(value, np.generic)
            backend = current() if new else backend_of(value)
            array = ordinary(backend.asarray(value, dtype))
        if array.dtype.kind != "f" and not _is_differentiable(array.dtype):
            raise TypeError(
                f"a {type(self).__name__} must hold floating-point numbers, since others have no "
                f"gradients, got {array.dtype}: write 1.0 for 1, give a dtype such as np.float32, "
                "or use a plain array, which is a constant"
            )
        self.value: Array = array
        self.serial = next(_serial_numbers)

    def __getstate__(self) -> State:
        """The state for copies and pickles, without the serial number: a copy is a new Tensor."""
        return _attributes(self, but=("serial",))

    def __setstate__(self, state: State) -> None:
        attributes, slots = state
        if attributes:
            self.__dict__.update(attributes)  # not by setattr: a subclass may have a property there
        for name, value in slots.items():
            setattr(self, name, value)
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

    def item(self) -> float:
        """The value as a Python number; ValueError unless there is exactly one element."""
        return self.numpy().item()

    def astype(self, dtype: Any) -> Any:
        """A Tensor of another floating-point dtype; for other dtypes (np.int64, bool), an array."""
        if _is_differentiable(np.dtype(dtype)):
            return ops.astype(self, dtype=dtype)
        return self.value.astype(dtype)

    def __float__(self) -> float:
        """The value as a Python number, which has no gradient.

        NumPy also calls this for `array[0] = x`, which looks the same from here: the gradient is
        lost silently. Write `ops.stack(x, y)` to join several Tensors into one.
        """
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError(
                "a Tensor without axes cannot be iterated over; float() gives its number"
            )
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.ndim:
            raise TypeError(f"the format {spec!r} needs a single number, got shape {self.shape}")
        return format(self.item(), spec)

    # NumPy's protocols for its functions.

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "a Tensor is not converted to an array implicitly, which would lose its gradient: "
            "write x.numpy() for its value, and ops.stack(x, y), without a list, to join Tensors"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        from autograd.numpy_functions import call_ufunc  # it imports Tensor

        return call_ufunc(ufunc, method, inputs, settings)

    def __array_function__(self, function: Any, _: Any, arguments: Any, settings: Any) -> Any:
        from autograd.numpy_functions import call

        return call(function, arguments, settings)

    # Comparisons return boolean arrays. Tensors are hashed by identity.

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return self.value == _compared(self, other)

    def __ne__(self, other: Any) -> Any:
        return self.value != _compared(self, other)

    def __lt__(self, other: Any) -> Any:
        return self.value < _compared(self, other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _compared(self, other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _compared(self, other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _compared(self, other)

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

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.power(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ops.power(base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.take(self, index=index)

    if not TYPE_CHECKING:  # else a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            from autograd.numpy_functions import missing

            raise AttributeError(missing(type(self).__name__, name), name=name, obj=self)

    def _refuse_remainder(self, other: Any) -> Any:
        raise TypeError(
            "%, // and divmod are not operations of a Tensor, because their gradients are of no "
            "use: take only the values, x.numpy() % y"
        )

    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = _refuse_remainder
    __divmod__ = __rdivmod__ = _refuse_remainder

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "elements of a Tensor cannot be assigned, because its gradient would be wrong: write "
            "ops.where(mask, new, x), or p.assign(values) for a whole Parameter"
        )

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def sin(self) -> Tensor:
        return ops.sin(self)

    def cos(self) -> Tensor:
        return ops.cos(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return ops.clip(self, min=min, max=max)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        return ops.var(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Tensor:
        return ops.std(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def flatten(self) -> Tensor:
        return ops.reshape(self, shape=(self.size,))

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        return ops.reshape(self, shape=_flat(shape))

    def transpose(self, *axes: int | tuple[int, ...] | None) -> Tensor:
        reverse = not axes or (len(axes) == 1 and axes[0] is None)
        return ops.transpose(self, axes=None if reverse else _flat(axes))

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return ops.transpose(self, axes=None)


class Parameter(Tensor):
    """A Tensor that is trained: `tape.backward` writes its gradient to `grad`.

    `master` is the array that an optimizer updates: `value` itself, or the float32 array of which
    `value` is a bfloat16 copy. `grad` has the dtype of `master`; the first backward pass allocates
    it. In a `ParameterBuffer`, all three are views into the buffer's flat arrays.
    """

    __slots__ = ("buffer", "grad", "master")

    def __init__(self, value: Any, dtype: Any = None) -> None:
        super().__init__(value, dtype)
        self.master: Array = self.value
        self.grad: Array | None = None
        self.buffer: ParameterBuffer | None = None

    def __getstate__(self) -> State:
        """Without `master`, which is `value`, or without any array that a buffer copies itself."""
        arrays = ("master",) if self.buffer is None else ("value", "master", "grad")
        return _attributes(self, but=("serial", *arrays))

    def __setstate__(self, state: State) -> None:
        super().__setstate__(state)
        if self.buffer is None:
            self.master = self.value

    def __copy__(self) -> Parameter:
        raise TypeError("a Parameter is copied with its array: use copy.deepcopy")

    def _refuse_in_place(self, other: Any) -> Tensor:
        raise TypeError(
            "`p += x` would replace the Parameter by a Tensor, which is not trained: write "
            "y = p + x for a new value, or p.assign(p.numpy() + x) to change the Parameter"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _refuse_in_place

    def numpy(self) -> np.ndarray:
        """The master value as a NumPy array, in full precision."""
        return to_host(self.master)

    def assign(self, values: Any) -> None:
        """Overwrite the value in place with `values`, an array of any backend."""
        self.master[...] = ordinary(backend_of(self.master).asarray(values, self.master.dtype))
        if self.value is not self.master:
            self.value[...] = self.master

    def gradient_store(self) -> Array:
        """The array for the gradient, `grad`, allocated if there is none yet."""
        if self.grad is None:
            self.grad = array_module(self.master).empty_like(self.master)
        return self.grad


def _attributes(x: Tensor, but: tuple[str, ...]) -> State:
    """All attributes and slots of x, those of a subclass included, except the slots in `but`."""
    state: Any = object.__getstate__(x)
    attributes, slots = state
    return attributes, {name: a for name, a in slots.items() if name not in but}


def _is_differentiable(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or "float" in dtype.type.__name__  # bfloat16 has another kind


def _compared(x: Tensor, other: Any) -> Any:
    """The operand of a comparison: a number, or an array on the Tensor's backend."""
    if isinstance(other, Tensor):
        return other.value
    if isinstance(other, list | tuple):
        return backend_of(x.value).asarray(other, x.dtype)
    return other


def _flat(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """The tuple (1, 2) for arguments given as f(1, 2), f((1, 2)) or f([1, 2])."""
    first: Any = numbers[0] if numbers else None
    several = isinstance(first, list | tuple) or getattr(first, "ndim", 0) > 0
    return tuple(first) if several else numbers
