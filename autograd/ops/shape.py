"""Moving elements about: reshape, transpose, take, concatenate."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.op import Vjp, op


@op
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Vjp]:
    """The same elements, in the same order, in another shape; one length may be -1."""
    before = x.shape
    return x.reshape(shape), lambda dy: dy.reshape(before)


@op
def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> tuple[Array, Vjp]:
    """Axes in another order; reversed unless `axes` says otherwise."""
    if axes is None:
        axes = tuple(reversed(range(x.ndim)))
    back = tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
    return x.transpose(axes), lambda dy: dy.transpose(back)


@op
def take(x: Array, *, index: Any) -> tuple[Array, Vjp]:
    """x[index], for slices, numbers, masks and integer arrays (repeated ones add up)."""
    module, shape, dtype = array_module(x), x.shape, x.dtype

    def vjp(dy: Array) -> Array:
        dx = module.zeros(shape, dtype)
        module.add.at(dx, index, dy)
        return dx

    return x[index], vjp


@op
def concatenate(*parts: Array, axis: int = 0) -> tuple[Array, Vjp]:
    """Join arrays along an axis."""
    module = array_module(parts[0])
    sizes = [p.shape[axis] for p in parts]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]

    def vjp(dy: Array) -> Any:
        # Views of dy that do not overlap: each part's gradient is memory of its own.
        pieces = module.split(dy, ends[:-1], axis=axis)
        return tuple(pieces) if len(pieces) > 1 else pieces[0]

    return module.concatenate(parts, axis=axis), vjp
