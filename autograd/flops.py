"""Counting the floating-point operations of a pass, by running the code on arrays that count.

    with count_flops() as flops:
        with Tape() as tape:
            loss = model.loss(batch)
        tape.backward(loss)
    flops.total                     # flops.forward["linear"], flops.backward["linear"], ...

While they are counted, every operation runs its reference, on arrays of a subclass of NumPy's that
adds up what it is asked to compute. So nothing is estimated from formulas, no operation can be
forgotten, and the values are those of the references. A fast implementation computes the same
values, though not always with the same work: it leaves out products that causal attention hides.

What counts: a product of matrices [n, k] and [k, m] is 2 n k m operations, a multiplication and an
addition for each; every other function of floating-point numbers, exp or a comparison as well as
+, is one for each number that it computes; and a sum is one for each number that is added. Copies,
sorting, and arithmetic of whole numbers are not counted.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from autograd.backend import Array, Backend, BackendError, serve

SUMS = "sums of gradients"
"""The name of the tape's own work, which adds up the gradients of what is used several times."""


class Flops:
    """Floating-point operations so far, by the names of operations.

    forward: those that computed values; backward: those that computed gradients.
    """

    def __init__(self) -> None:
        self.forward: Counter[str] = Counter()
        self.backward: Counter[str] = Counter()
        self._adds_to = self.backward, SUMS

    @property
    def total(self) -> int:
        """All of them, in both directions."""
        return self.forward.total() + self.backward.total()

    def add(self, count: int) -> None:
        """Count operations of what is running."""
        counts, name = self._adds_to
        counts[name] += count

    @contextmanager
    def of(self, counts: Counter[str], name: str) -> Iterator[None]:
        """Count what is computed inside a `with` under this name."""
        outside, self._adds_to = self._adds_to, (counts, name)
        try:
            yield
        finally:
            self._adds_to = outside

    def run(
        self,
        name: str,
        reference: Callable[..., Any],
        has_gradient: bool,
        arrays: tuple[Any, ...],
        settings: dict[str, Any],
    ) -> Any:
        """What the reference of an operation returns, with its work counted; its vjp counts too."""
        _on_the_host(name, arrays)
        with self.of(self.forward, name):
            settings = {key: _counting(value) for key, value in settings.items()}
            result = reference(*_counting(arrays), **settings)
        if not has_gradient:
            return _plain(result)
        value, vjp = result

        def counted(dy: Any) -> Any:
            with self.of(self.backward, name):
                gradients = vjp(_counting(dy))
            # Those that are arrays go on counting, while the tape adds them up.
            if isinstance(gradients, tuple | list):
                return tuple(map(written, gradients))
            return written(gradients)

        def written(gradient: Any) -> Any:
            if not callable(gradient):
                return gradient

            def into(out: Array, add: bool) -> None:
                with self.of(self.backward, name):
                    gradient(_counting(out), add)

            return into

        return _plain(value), counted


_running: ContextVar[Flops | None] = ContextVar("flops", default=None)


def running_flops() -> Flops | None:
    """What counts operations in this context, if anything does."""
    return _running.get()


@contextmanager
def count_flops() -> Iterator[Flops]:
    """Count the floating-point operations of all operations inside a `with`, on NumPy's arrays."""
    flops = Flops()
    token = _running.set(flops)
    try:
        yield flops
    finally:
        _running.reset(token)


class _Counting(np.ndarray[Any, Any]):
    """An array whose arithmetic is counted; so is that of every array computed from it."""

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **settings: Any
    ) -> Any:
        plain = _plain(inputs)
        settings = {key: _plain(value) for key, value in settings.items()}
        if out is not None:
            settings["out"] = _plain(out)
        result = getattr(ufunc, method)(*plain, **settings)
        flops = _running.get()
        if flops is not None:
            flops.add(_cost(ufunc, method, plain, result))
        if out is None:
            return _counting(result)
        return out if ufunc.nout > 1 else out[0]

    def __array_function__(self, function: Any, kinds: Any, inputs: Any, settings: Any) -> Any:
        module = function.__module__
        if function in _NOT_COUNTED or module.startswith(("numpy.linalg", "numpy.fft")):
            raise NotImplementedError(_REFUSAL.format(f"{module}.{function.__name__}"))
        return super().__array_function__(function, kinds, inputs, settings)


_REFUSAL = (
    "the floating-point operations of {} are not counted: write it with matmul, sums and "
    "elementwise functions"
)
_NOT_COUNTED = {np.dot, np.vdot, np.inner, np.einsum, np.convolve, np.correlate, np.interp}


def _cost(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], result: Any) -> int:
    """The floating-point operations of a call; inputs and result are plain arrays or numbers."""
    results = result if isinstance(result, tuple) else (result,)
    if not any(_is_floating(x) for x in (*inputs, *results)):
        return 0
    if ufunc is np.matmul:
        return 2 * inputs[0].shape[-1] * np.size(result)
    if ufunc.signature is not None:
        raise NotImplementedError(_REFUSAL.format(f"numpy.{ufunc.__name__}"))
    if method == "at":
        return np.size(inputs[0][inputs[1]])
    return np.size(results[0] if method in ("__call__", "outer") else inputs[0])


def _is_floating(x: Any) -> bool:
    """Whether these are floating-point numbers; bfloat16's kind is V."""
    return getattr(x, "dtype", np.dtype(bool)).kind in "fV"


def _counting(x: Any) -> Any:
    """Arrays, and results that NumPy returns as scalars, as counting arrays of the same memory."""
    if isinstance(x, tuple):
        return tuple(map(_counting, x))
    return np.asarray(x).view(_Counting) if isinstance(x, np.ndarray | np.generic) else x


def _plain(x: Any) -> Any:
    """Counting arrays as ordinary ones."""
    if isinstance(x, tuple):
        return tuple(map(_plain, x))
    return x.view(np.ndarray) if isinstance(x, _Counting) else x


def _on_the_host(name: str, arrays: tuple[Any, ...]) -> None:
    for x in arrays:
        if hasattr(x, "dtype") and not isinstance(x, np.ndarray | np.generic):
            raise BackendError(
                f"{name}: floating-point operations are counted on NumPy's arrays, got "
                f"{type(x).__module__}.{type(x).__name__}; the numbers are the same on each backend"
            )


class _Module(types.ModuleType):
    """NumPy, with functions whose arrays count."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type | np.ufunc) or not callable(found):
            return found

        def counting(*inputs: Any, **settings: Any) -> Any:
            return _counting(found(*inputs, **settings))

        return counting


_xp = _Module("counting")
serve(Backend("counting", _xp, _Counting, _xp.empty, _counting, _plain))
