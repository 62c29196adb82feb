"""How an operation and its gradient are declared.

    @op
    def relu(x):
        y = array_module(x).maximum(x, 0)

        def vjp(dy):
            return dy * (y > 0)

        return y, vjp

The decorated body is the *reference*: written for the reader, correct in float32 and float64 on
every backend. `@relu.on("numpy")` registers a faster implementation with the same signature.

The contract of an implementation:

- Positional arguments are differentiable (an array, or a number as a constant; trailing ones that
  are None count as not given), keyword-only ones are not. It returns its value and `vjp`, which
  takes the gradient of the value and returns one gradient for each positional argument, bare where
  there is one argument. With several outputs, the value and its gradient are tuples, and the
  gradient of an output that nothing used is the number 0.0, which may not be returned as it is.
- It never writes to its inputs, and `vjp` holds arrays, never Tensors.
- `vjp` owns `dy`: it may overwrite it, or return it, or a view of it, once. What it returns is
  writable and shares memory with nothing else; a gradient may have the broadcast shape (the tape
  sums it down).
- In place of an array a gradient may be a writer, `into(out, add)`, which writes the gradient to
  `out` or adds it; for a constant it is never called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from autograd.backend import Array, backend_of
from autograd.tape import running_tape
from autograd.tensor import Tensor

Vjp = Callable[[Any], Any]
Implementation = Callable[..., Any]

_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)
_watched: ContextVar[dict[Kernel, list[Call]] | None] = ContextVar("watched", default=None)

Call = tuple[tuple[Any, ...], dict[str, Any], str]  # arrays, keywords, implementation chosen


@contextmanager
def references() -> Iterator[None]:
    """Run the reference of every operation inside a `with`, whatever else is registered."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


class Kernel:
    """A function of arrays with a reference implementation and, perhaps, faster ones.

    The implementation is chosen by the backend and the dtype of the first argument.
    """

    def __init__(self, reference: Implementation) -> None:
        self.reference = reference
        self.name = reference.__name__
        # By the dtype's name: bfloat16 is no type of NumPy's own.
        self._fast: dict[tuple[str, str], Implementation] = {}
        self.__doc__ = reference.__doc__
        self.__name__ = reference.__name__
        self.__module__ = reference.__module__
        self.__wrapped__ = reference  # inspect.signature and help() show the reference

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def on(self, backend: str, *dtypes: str) -> Callable[[Implementation], Implementation]:
        """Register an implementation for a backend and dtypes ("float32" unless given)."""

        def register(implementation: Implementation) -> Implementation:
            for dtype in dtypes or ("float32",):
                self._fast[backend, dtype] = implementation
            return implementation

        return register

    def implementation(self, first: Array) -> Implementation:
        """The implementation that runs for a first argument like `first`."""
        if not self._fast or _reference_only.get():
            return self.reference
        dtype: Any = getattr(first, "dtype", None)
        if dtype is None:
            return self.reference
        return self._fast.get((backend_of(first).name, dtype.type.__name__), self.reference)

    def __call__(self, *arrays: Any, **settings: Any) -> Any:
        return self._run(arrays, settings)

    def _run(self, arrays: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        """Apply to arrays; `settings` is the caller's own dictionary, and given up by it."""
        for k, v in settings.items():
            if isinstance(v, np.generic):
                settings[k] = v.item()
        implementation = self.implementation(arrays[0])
        watched = _watched.get()
        if watched is not None and self in watched:
            chosen = "reference" if implementation is self.reference else "fast"
            watched[self].append((arrays, settings, chosen))
        return implementation(*arrays, **settings)


class Op(Kernel):
    """A differentiable operation. See the module's text for the contract."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Apply to Tensors and constants: Tensors if any argument is one, else plain arrays."""
        while arguments[-1] is None:  # an optional argument that is not there has no gradient
            arguments = arguments[:-1]
        arrays, has_tensors = [], False
        for a in arguments:
            if isinstance(a, Tensor):
                arrays.append(a.value)
                has_tensors = True
            else:  # NumPy's numbers would promote the arrays that they meet
                arrays.append(a.item() if isinstance(a, np.generic) else a)
        value, vjp = self._run(tuple(arrays), settings)
        if not has_tensors:
            return value
        several = isinstance(value, tuple)
        outputs = tuple(map(Tensor, value)) if several else (Tensor(value),)
        tape = running_tape()
        if tape is not None:
            tape.record(self.name, arguments, outputs, vjp, several)
        return outputs if several else outputs[0]


def op(reference: Implementation) -> Op:
    """Declare a differentiable operation by its reference implementation."""
    return Op(reference)


def kernel(reference: Implementation) -> Kernel:
    """Declare a function of arrays that has no gradient, but may have faster implementations."""
    return Kernel(reference)


@contextmanager
def watching(*kernels: Kernel) -> Iterator[dict[Kernel, list[Call]]]:
    """Collect the calls of some operations inside a `with`, in this context.

    Each call is (its arrays, its keyword arguments, "reference" or "fast"). So a tool can look
    inside a model, at its attention weights for instance, and the model need not know.
    """
    calls: dict[Kernel, list[Call]] = {k: [] for k in kernels}
    token = _watched.set(calls)
    try:
        yield calls
    finally:
        _watched.reset(token)
