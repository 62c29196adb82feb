"""Parameters as views into one flat array, so that an optimizer updates all in one pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import (
    Array,
    Backend,
    BackendError,
    backend,
    backend_of,
    bfloat16,
    current,
)
from autograd.tensor import Parameter

ALIGNMENT = 256  # bytes: as CUDA's allocator aligns, enough for the widest vector loads
_PIECE = 1 << 22  # numbers that are moved at a time: all of them at once would need room twice


class _Slice(NamedTuple):
    start: int
    shape: tuple[int, ...]


class ParameterBuffer:
    """Named Parameters in one flat array, and their gradients in another.

    `values` and `grads` are flat arrays of one dtype. Each Parameter's `master` and `grad` are
    views into them, aligned to 256 bytes. The gaps between them hold zeros, and keep them under any
    optimizer that maps a zero gradient to a zero step. `grads` is None until `allocate_gradients`.
    `parameters` maps names to Parameters in the order given, with new Parameters for arrays.

    `rounded` is None, or a bfloat16 copy of `values`. The `value` of each Parameter is then a view
    into it, except for those named in `exact`. Whoever changes `values` must update `rounded`.
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray | Parameter],
        dtype: Any = np.float32,
        exact: Collection[str] = (),
    ) -> None:
        self._exact = frozenset(exact)
        step = ALIGNMENT // np.dtype(dtype).itemsize
        self._slices: dict[str, _Slice] = {}
        size = 0
        for name, given in values.items():
            self._slices[name] = _Slice(size, given.shape)
            size += -(-given.size // step) * step
        backend = current()
        self.values: Array = _aligned_zeros(backend, size, dtype)
        self.rounded: Array | None = None
        self.grads: Array | None = None
        self.parameters: dict[str, Parameter] = {}
        for name, given in values.items():
            view = self._view(self.values, name)
            parameter = given if isinstance(given, Parameter) else Parameter(given, dtype)
            view[...] = backend.asarray(parameter.numpy().astype(dtype, copy=False))
            parameter.value = parameter.master = view
            parameter.buffer = self
            self.parameters[name] = parameter

    def allocate_gradients(self) -> Array:
        """Give every Parameter a view into one flat array of zero gradients; returns the array."""
        if self.grads is None:
            self.grads = _aligned_zeros(
                backend_of(self.values), self.values.size, self.values.dtype
            )
            for name, parameter in self.parameters.items():
                parameter.grad = self._view(self.grads, name)
        return self.grads

    def spans(self) -> dict[str, slice]:
        """Where each Parameter lies in the flat arrays, with the gap behind it."""
        starts = [place.start for place in self._slices.values()]
        ends = [*starts[1:], int(self.values.size)]
        return {name: slice(*span) for name, *span in zip(self._slices, starts, ends, strict=True)}

    def views(self, flat: Array) -> dict[str, Array]:
        """The parts of a flat array that is laid out as `values`, by the Parameters' names."""
        return {name: self._view(flat, name) for name in self._slices}

    def to(self, name: str, rounded: bool = False) -> None:
        """Move the values to the backend `name`, with a bfloat16 copy if `rounded`.

        Gradients are dropped. Nothing happens if the values are there already, in the same form.
        Raises BackendError if the backend cannot be used, or does not compute in bfloat16.
        """
        target = backend(name)
        if target is backend_of(self.values) and rounded == (self.rounded is not None):
            return
        if rounded and not target.bfloat16:
            raise BackendError(
                f"the backend {name!r} does not compute in bfloat16; use float32 there, or a GPU"
            )
        self._take(self.values, target, rounded)

    def _take(self, values: Array, backend: Backend, rounded: bool) -> None:
        """Copy flat `values` to a backend, and make the Parameters views into the copy."""
        moved = _aligned_zeros(backend, values.size, values.dtype)
        for start in range(0, values.size, _PIECE):
            moved[start : start + _PIECE] = backend.asarray(values[start : start + _PIECE])
        copy = _aligned_zeros(backend, values.size, bfloat16()) if rounded else None
        if copy is not None:
            copy[...] = moved
        # Only now: what comes before may fail, and must then leave everything unchanged.
        self.values, self.rounded, self.grads = moved, copy, None
        for key, parameter in self.parameters.items():
            parameter.master, parameter.grad = self._view(moved, key), None
            is_copied = self.rounded is not None and key not in self._exact
            parameter.value = self._view(self.rounded, key) if is_copied else parameter.master

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, without gradients, as after `to`."""
        return {**vars(self), "rounded": self.rounded is not None, "grads": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._take(self.values, backend_of(self.values), state["rounded"])

    def __copy__(self) -> ParameterBuffer:
        raise TypeError("a buffer is copied with its Parameters: use copy.deepcopy")

    def _view(self, flat: Array, name: str) -> Array:
        start, shape = self._slices[name]
        return flat[start : start + int(np.prod(shape))].reshape(shape)


def _aligned_zeros(backend: Backend, size: int, dtype: Any) -> Array:
    """A flat array of zeros that is aligned to ALIGNMENT bytes."""
    itemsize = np.dtype(dtype).itemsize
    slack = backend.xp.zeros(size + ALIGNMENT // itemsize, dtype)
    if not isinstance(slack, np.ndarray):  # device allocators align to 256 bytes or more
        return slack[:size]
    start = -slack.ctypes.data % ALIGNMENT // itemsize
    return slack[start : start + size]
