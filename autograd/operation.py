"""How an operation and its gradient are declared.

    @op
    def relu(x):
        y = array_module(x).maximum(x, 0)

        def vjp(dy):
            return dy * (y > 0)

        return y, vjp

The decorated function is the *reference*: written for the reader, and correct in float32 and
float64 on every backend. `@relu.on("numpy", covers=...)` registers a faster implementation with the
same signature; the reference runs for arguments that it does not cover. `@relu.checked` registers a
function with that signature that checks the arguments and raises an error for wrong ones. It runs
before every implementation, so that these need not check again.

The contract of an implementation:

- Positional arguments are differentiable, keyword-only arguments are not. A positional argument is
  an array, or a number, which is a constant; an optional one that is None counts as not given.
  Arrays are in native byte order. Lists and tuples have been converted to arrays of the dtype of
  the first Tensor. Wrong arguments raise an error in the forward pass.
- It returns its value, of a floating-point dtype, and `vjp`. That takes the gradient of the value
  and returns a tuple with a gradient for each positional argument, or just the gradient if there is
  one argument. With several outputs, the value and its gradient are tuples; the gradient of an
  output that nothing used is the number 0.0, which must not be returned unchanged. The last
  `auxiliary` values are not outputs: they stay plain arrays, without a gradient and without a place
  in that tuple.
- It never writes to its inputs, nor to its value once that is returned, and `vjp` keeps arrays,
  never Tensors.
- `vjp` owns `dy`: it may overwrite it, and may return it, or a view of it, once. What it returns is
  writable and shares memory with nothing else. A gradient may have the broadcast shape; the tape
  sums it to the shape of the argument.
- A gradient may be a writer instead of an array: `into(out, add)` writes it to `out`, or adds it.
  The tape never calls the writer of a constant, may call a `LateWriter` (writers.py) later,
  together with others, and lets a `BackgroundWriter` go on until its parameter is needed: what one
  reads shares no memory with what `vjp` returns.
- A gradient may be a `WithSum` (writers.py). A `vjp` that is marked by `takes_sum` gets it as it is
  if it is the whole gradient of an output.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any, overload

import numpy as np

from autograd.backend import Array, backend_of, current, ordinary
from autograd.flops import running_flops
from autograd.tape import running_tape
from autograd.tensor import Tensor
from autograd.widened import in_float32, is_bfloat16

Vjp = Callable[[Any], Any]
Implementation = Callable[..., Any]
Covers = Callable[..., bool]

_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)
_watched: ContextVar[dict[Function, list[Call]] | None] = ContextVar("watched", default=None)

Call = tuple[tuple[Any, ...], dict[str, Any], str]  # arrays, keywords, implementation chosen


@contextmanager
def references() -> Iterator[None]:
    """Run the reference of every operation inside a `with`."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


def are_calls_observed() -> bool:
    """Whether calls are watched or counted, or run references: then none is to be left out."""
    return bool(_reference_only.get() or _watched.get() is not None or running_flops())


class Function:
    """A function of arrays with a reference implementation and possibly faster ones.

    The backend and the dtype of the first argument choose the implementation.
    """

    def __init__(self, reference: Implementation) -> None:
        self.reference = reference
        self._widened: Implementation | None = None
        self.name = reference.__name__
        self._check: Callable[..., None] | None = None
        # By backend and name of the dtype: bfloat16 is not one of NumPy's own types.
        self._fast: dict[tuple[str, str], Implementation] = {}
        self._registered: dict[tuple[str, str], Implementation] = {}  # those that are not forgotten
        self._of_kind: tuple[int, type, Implementation] | None = None
        self.__doc__ = reference.__doc__
        self.__name__ = reference.__name__
        self.__module__ = reference.__module__
        self.__wrapped__ = reference  # inspect.signature and help() show the reference

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def on(
        self, backend: str, *dtypes: str, covers: Covers | None = None
    ) -> Callable[[Implementation], Implementation]:
        """Register an implementation for a backend and dtypes, "float32" by default.

        `covers` takes the same arguments, and says whether the implementation handles them. Without
        it, the implementation handles all.
        """

        def register(implementation: Implementation) -> Implementation:
            chosen = implementation if covers is None else self._either(implementation, covers)
            for key in [(backend, dtype) for dtype in dtypes or ("float32",)]:
                self._registered[key] = chosen
                if not hasattr(self._fast.get(key), "imports"):  # which puts it in its place
                    self._fast[key] = chosen
            return implementation

        return register

    def given(self, place: int, kind: type) -> Callable[[Implementation], Implementation]:
        """Register what runs, on every backend, if a positional argument is of another kind.

        place: the argument's number. It is not an array, but has the shape of one; what runs has
        the signature of the reference.
        """

        def register(implementation: Implementation) -> Implementation:
            self._of_kind = place, kind, implementation
            return implementation

        return register

    def found_in(
        self, module: str, backend: str, *dtypes: str, usable: Callable[[], bool] = lambda: True
    ) -> None:
        """Import a module at the first call; it registers an implementation.

        That is used as soon as the whole module is there, for other threads may call meanwhile. If
        the module is not `usable`, the reference runs.
        """

        keys = [(backend, dtype) for dtype in dtypes or ("float32",)]

        def first(*arrays: Any, **settings: Any) -> Any:
            if usable():
                import_module(module)
                self._fast |= {key: self._registered[key] for key in keys}
            else:
                self.forget(backend, *dtypes)
            return self.implementation(arrays[0])(*arrays, **settings)

        first.imports = module  # type: ignore[attr-defined]
        self._fast |= {key: self._registered.get(key, first) for key in keys}

    def forget(self, backend: str, *dtypes: str) -> None:
        """Run the reference for a backend's arrays of these dtypes, "float32" by default."""
        for dtype in dtypes or ("float32",):
            self._fast.pop((backend, dtype), None)

    def _either(self, implementation: Implementation, covers: Covers) -> Implementation:
        """The implementation for arguments that it covers, and the reference for all others."""

        def either(*arrays: Any, **settings: Any) -> Any:
            if covers(*arrays, **settings):
                return implementation(*arrays, **settings)
            return self._reference_for(arrays[0].dtype)(*arrays, **settings)

        either.covers = covers  # type: ignore[attr-defined]
        return either

    def widen(self) -> None:
        """Compute the reference of bfloat16 arrays in float32, as sums and products need it."""
        self._widened = in_float32(self.reference, isinstance(self, Op))

    def checked(self, check: Callable[..., None]) -> Callable[..., None]:
        """Register a function that checks the arguments before any implementation runs."""
        check.__qualname__ = self.name  # Python's message about a missing argument begins with it
        self._check = check
        return check

    def implementation(self, first: Array) -> Implementation:
        """The implementation that runs for a first argument like `first`."""
        if not self._fast and self._widened is None:
            return self.reference
        dtype: Any = getattr(first, "dtype", None)
        if dtype is None or not dtype.isnative or not self._fast or _reference_only.get():
            return self._reference_for(dtype)
        key = backend_of(first).implementations, dtype.type.__name__
        return self._fast.get(key) or self._reference_for(dtype)

    def _reference_for(self, dtype: Any) -> Implementation:
        """The reference, computed in float32 if it needs that for arrays of this dtype."""
        if self._widened is None or dtype is None or not is_bfloat16(dtype):
            return self.reference
        return self._widened

    def __call__(self, *arrays: Any, **settings: Any) -> Any:
        return self._run(arrays, settings)

    def _run(self, arrays: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        """Apply to arrays. The caller gives up `settings`, which may be changed here."""
        converted: dict[str, Any] = {}
        for k, v in settings.items():
            if not isinstance(v, _UNUSUAL):
                continue
            if isinstance(v, Tensor):
                raise TypeError(f"{self.name}: {k} has no gradient: give a number or a plain array")
            if not v.ndim:
                converted[k] = v.item()  # NumPy's scalars would promote the dtypes of arrays
            elif type(v) is not np.ndarray:
                converted[k] = ordinary(v)
        if self._check is not None:
            self._check(*arrays, **settings)  # as they were given, with their shapes
        settings.update(converted)
        if self._of_kind is not None:
            place, kind, instead = self._of_kind
            if type(arrays[place]) is kind:
                return instead(*arrays, **settings)
        implementation = self.implementation(arrays[0])
        watched = _watched.get()
        if watched is not None and self in watched:
            covers = getattr(implementation, "covers", lambda *_, **__: True)
            is_fast = implementation not in (self.reference, self._widened) and covers(
                *arrays, **settings
            )
            watched[self].append((arrays, settings, "fast" if is_fast else "reference"))
        flops = running_flops()
        if flops is not None:
            reference = self._reference_for(getattr(arrays[0], "dtype", None))
            return flops.run(self.name, reference, isinstance(self, Op), arrays, settings)
        return implementation(*arrays, **settings)


class Op(Function):
    """A differentiable operation; the module's docstring has the contract."""

    def __init__(self, reference: Implementation, *, auxiliary: int = 0) -> None:
        super().__init__(reference)
        self.auxiliary = auxiliary
        self._signature = inspect.signature(reference)
        parameters = self._signature.parameters.values()
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        self._positional = frozenset(p.name for p in positional)
        self._required = max(1, sum(p.default is p.empty for p in positional))
        any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self._most = math.inf if any_number else len(positional)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Apply to Tensors and constants. Returns Tensors if any argument is one, else arrays."""
        if len(arguments) != self._most or arguments[-1] is None:
            arguments, settings = self._bind(arguments, settings)
        arrays = [a.value for a in arguments if isinstance(a, Tensor)]
        has_tensors = bool(arrays)
        if len(arrays) < len(arguments):
            arrays = _with_constants(arguments, arrays[0] if has_tensors else None)
        value, vjp = self._run(tuple(arrays), settings)
        if not has_tensors:
            return value
        beside: tuple[Array, ...] = ()
        if self.auxiliary:
            value, beside = value[: -self.auxiliary], value[-self.auxiliary :]
            value = value if len(value) > 1 else value[0]
        several = isinstance(value, tuple)
        outputs = tuple(map(Tensor, value)) if several else (Tensor(value),)
        tape = running_tape()
        if tape is not None:
            tape.record(self.name, arguments, outputs, vjp, several)
        return (*outputs, *beside) if several or beside else outputs[0]

    def _bind(
        self, arguments: tuple[Any, ...], settings: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and settings, with positional arguments given by name moved to their place."""
        if not self._positional.isdisjoint(settings):  # such as x=...
            bound = self._signature.bind(*arguments, **settings)
            arguments, settings = bound.args, bound.kwargs
        # An optional argument that was not given has no gradient. None of any number is optional.
        fewest = len(arguments) if self._most == math.inf else self._required
        while len(arguments) > fewest and arguments[-1] is None:
            arguments = arguments[:-1]
        if not self._required <= len(arguments) <= self._most:
            count = self._required if len(arguments) < self._required else self._most
            named = [n for n, p in self._signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
            by_name = f"; by name it takes {', '.join(named)}" if named else ""
            raise TypeError(
                f"{self.name} takes {count} argument{'' if count == 1 else 's'}, "
                f"not {len(arguments)}{by_name}"
            )
        return arguments, settings


_UNUSUAL = np.generic, np.ndarray, Tensor  # settings that must be rejected or converted
_SEQUENCES = list, tuple
_POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def _with_constants(arguments: Sequence[Any], like: Array | None) -> list[Any]:
    """The arguments as implementations expect them; `like` is the first Tensor's value, if any."""
    arrays: list[Any] = []
    numbers_alone = like is None
    for a in arguments:
        if type(a) is np.ndarray and a.dtype.isnative:  # `ordinary` would return it
            numbers_alone = False
        elif isinstance(a, Tensor):
            a = a.value
        elif isinstance(a, np.generic):  # NumPy's scalars would promote the dtypes of arrays
            a = a.item()
        elif isinstance(a, _SEQUENCES):
            a = current().asarray(a) if like is None else backend_of(like).asarray(a, like.dtype)
            numbers_alone = False
        else:
            a = ordinary(a)
            numbers_alone = numbers_alone and not hasattr(a, "dtype")
        arrays.append(a)
    if numbers_alone:
        arrays[0] = current().asarray(arrays[0])
    return arrays


@overload
def op(reference: Implementation, /) -> Op: ...


@overload
def op(*, auxiliary: int) -> Callable[[Implementation], Op]: ...


def op(
    reference: Implementation | None = None, /, *, auxiliary: int = 0
) -> Op | Callable[[Implementation], Op]:
    """Declare a differentiable operation by its reference implementation.

    auxiliary: how many of its last values have no gradient.
    """
    declare = partial(Op, auxiliary=auxiliary)
    return declare if reference is None else declare(reference)


def function(reference: Implementation) -> Function:
    """Declare a function without a gradient that may have faster implementations.

    It may write to its arguments and return nothing.
    """
    return Function(reference)


@contextmanager
def watching(*functions: Function) -> Iterator[dict[Function, list[Call]]]:
    """Collect the calls of operations inside a `with`, in this context.

    Each call is (arrays, keyword arguments, "reference" or "fast"). A tool can thus look inside a
    model, at its attention weights for instance, without a change to the model.
    """
    calls: dict[Function, list[Call]] = {f: [] for f in functions}
    token = _watched.set(calls)
    try:
        yield calls
    finally:
        _watched.reset(token)
