"""Which array library is in use, and moving arrays from one to another.

An operation never asks which backend is in use: it takes its array library from the arrays that it
gets (`array_module`). `use` and `using` decide only where *new* arrays are made.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any  # an array of any backend: numpy.ndarray, cupy.ndarray, ...


class BackendError(Exception):
    """A backend that cannot be used here; the message says why and what to do."""


class Recorder(Protocol):
    """A `record` whose functions take turns with each other, whatever other threads do.

    They share memory, so what one returns is there until the next call of any. They are one code
    for several sizes: a layer that is looked at closely in the first need not be in the others.
    """

    def another(self) -> Recorder:
        """A recorder of the same code for other arrays, whose functions take other turns."""

    def __call__(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """See `Backend.record`."""

    @property
    def nbytes(self) -> int:
        """The memory of what its recordings make, and have to be kept for."""


class NoRecorder:
    """The Recorder of a backend that does not record."""

    nbytes = 0

    def another(self) -> NoRecorder:
        return self

    def __call__(self, run: Callable[[], Any]) -> Callable[[], Any]:
        return run


def _copied_at_once(arrays: Sequence[Array]) -> Callable[[], list[np.ndarray]]:
    copies = [np.array(to_host(x)) for x in arrays]
    return lambda: copies


@dataclass(frozen=True)
class Backend:
    """An array library with NumPy's interface.

    xp: the library's module, with the functions that take its arrays.
    kind: the type of its arrays.
    empty: makes an uninitialised array of a shape and a dtype, in memory that is reused from step
        to step.
    from_host, to_host: copy from NumPy and to NumPy.
    bfloat16: whether the large operations compute in it.
    synchronize: waits until all launched work has finished.
    ahead: `map`, or a version of it that prepares the next item while one is in use.
    steps_between_checks: how often a loop whose end depends on values in its arrays reads them.
        Where reading means waiting for a device, a superfluous step costs less than a check.
    copied: begins to copy arrays to the host, as they are now, so that work which is asked for
        later may change them. Returns a function, for any thread, that waits for the copies.
    implementations: the backend whose implementations of operations run on its arrays; its own
        name, unless it stands in for another.
    record: prepares a function without arguments to be called again and again, at less cost for the
        host. What its call asks of a device is recorded once, and replayed: so all that changes
        from call to call must be read from arrays. The arrays stay, those that it returns as well,
        and the next call overwrites them. What cannot be recorded is run each time; without a way
        to record, it is the function itself.
    records: whether `record` does anything.
    records_gradients: whether it can record a function that computes gradients.
    recorder: makes a Recorder.
    most_kept_bytes: memory that may be kept from work to work, where that saves setting it up anew.
        On a host, what was never written to takes none of it.
    add_to: adds the second array to the first, in place.
    prepare_attention: prepares what attention from some sentences to others will need; None, or
        something with a `layout`, and a method `overwrite` that takes over another of the same one.
    prepare_embedding: what the gradient of an embedding of some ids will need, its `order`; None
        where it needs nothing. The ids are on the host.
    pack_for_top_k: prepares what `top_k` will read, in many calls, in place of its weight, its
        `packed`; None where that is the weight itself. It gets the weight, the most rows of a call,
        and what it returned for another weight of this shape, to be overwritten, or None.
    """

    name: str
    xp: Any
    kind: type
    empty: Callable[[tuple[int, ...], Any], Array]
    from_host: Callable[[np.ndarray], Array]
    to_host: Callable[[Array], np.ndarray]
    bfloat16: bool = False
    synchronize: Callable[[], None] = lambda: None
    ahead: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]] = map
    steps_between_checks: int = 1
    copied: Callable[[Sequence[Array]], Callable[[], list[np.ndarray]]] = _copied_at_once
    implementations: str = ""
    record: Callable[[Callable[[], Any]], Callable[[], Any]] = lambda run: run
    records: bool = False
    records_gradients: bool = False
    recorder: Callable[[], Recorder] = NoRecorder
    most_kept_bytes: int = 1 << 30
    add_to: Callable[[Array, Array], Any] = operator.iadd
    prepare_attention: Callable[[Any, Any], Any] = lambda queries, keys: None
    prepare_embedding: Callable[[np.ndarray], Array | None] = lambda ids: None
    pack_for_top_k: Callable[[Array, int, Array | None], Array | None] = lambda *_: None

    def __post_init__(self) -> None:
        if not self.implementations:
            object.__setattr__(self, "implementations", self.name)

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """`values` (numbers, nested lists, an array of any backend) as an array of this backend."""
        if isinstance(values, self.kind):
            array: Array = values
            return array if dtype is None else array.astype(dtype, copy=False)
        return self.from_host(np.asarray(to_host(values), dtype=dtype))


def _numpy() -> Backend:
    try:
        has_loops = importlib.util.find_spec("numba") is not None
    except ImportError:  # where something forbids it
        has_loops = False
    return Backend(
        *("numpy", np, np.ndarray, np.empty, np.asarray, np.asarray),
        record=lambda run: importlib.import_module("autograd.cpu").recorder()(run),
        recorder=lambda: importlib.import_module("autograd.cpu").recorder(),
        pack_for_top_k=lambda *x: importlib.import_module("autograd.cpu").pack_for_top_k(*x),
        records=has_loops,
        add_to=lambda *x: importlib.import_module("autograd.cpu").add_to(*x),
    )


def _cupy() -> Backend:
    opened: Backend = importlib.import_module("autograd.cuda.opening").cupy_backend()
    return opened


_openers: dict[str, Callable[[], Backend]] = {"numpy": _numpy, "cupy": _cupy}
_by_name: dict[str, Backend] = {}
_by_kind: dict[type, Backend] = {}


def register(name: str, opener: Callable[[], Backend]) -> None:
    """Make the backend that `opener` returns available under `name`."""
    _openers[name] = opener
    _by_name.pop(name, None)


def names() -> tuple[str, ...]:
    """The names of all backends, including those that cannot be used on this machine."""
    return tuple(_openers)


def backend(name: str) -> Backend:
    """The backend called `name`. Raises BackendError if it cannot be used."""
    if name not in _by_name:
        if name not in _openers:
            known = ", ".join(sorted(_openers))
            raise BackendError(f"there is no backend {name!r}; choose one of {known}")
        opened = _openers[name]()
        _by_name[name] = opened
        serve(opened)
    return _by_name[name]


def serve(opened: Backend) -> None:
    """Let a backend have the arrays of its kind, whether it has been opened by name or not."""
    _by_kind[opened.kind] = opened


_process_backend = backend("numpy")
_context_backend: ContextVar[Backend | None] = ContextVar("backend", default=None)


def use(name: str) -> None:
    """Make new arrays on the backend `name`, in the whole process."""
    global _process_backend
    _process_backend = backend(name)


@contextmanager
def using(name: str) -> Iterator[Backend]:
    """Make new arrays on the backend `name` inside a `with`, in this context only."""
    token = _context_backend.set(backend(name))
    try:
        yield current()
    finally:
        _context_backend.reset(token)


def current() -> Backend:
    """The backend on which this context makes new arrays."""
    return _context_backend.get() or _process_backend


def bfloat16() -> np.dtype[Any]:
    """The dtype bfloat16, the upper 16 bits of a float32, which NumPy itself lacks."""
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise BackendError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from error


def backend_of(x: Array) -> Backend:
    """The backend that `x` belongs to. Numbers and NumPy's scalars belong to NumPy."""
    kind = type(x)
    if kind not in _by_kind:
        parent = next((k for k in kind.__mro__ if k in _by_kind), np.ndarray)
        _by_kind[kind] = _by_kind[parent]
    return _by_kind[kind]


def array_module(x: Array) -> Any:
    """The library whose functions take `x`, `xp` for short: NumPy or CuPy."""
    return backend_of(x).xp


def ordinary(x: Array) -> Array:
    """`x` as an ordinary array: a NumPy array of a subclass or of another byte order is converted.

    Compiled loops accept only native np.ndarrays, and a subclass may change the meaning of
    operators (np.matrix). Anything else is returned unchanged. TypeError for a masked array, whose
    mask would be lost.
    """
    if isinstance(x, np.ndarray) and not (type(x) is np.ndarray and x.dtype.isnative):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(
                "the mask of a masked array would be lost: write x.filled(number) for an array "
                "without one, or ops.where(mask, number, x)"
            )
        return np.asarray(x, x.dtype.newbyteorder("="))
    return x


def to_host(x: Any) -> np.ndarray:
    """`x` as a NumPy array: copied from a device, or `x` itself."""
    return backend_of(x).to_host(x)
