"""Rearranging elements: reshape, transpose, take, concatenate, stack, split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import index
from typing import Any

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op


@op
def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Vjp]:
    """The same elements in the same order, in another shape; one length may be -1."""
    before = x.shape
    return x.reshape(shape), lambda dy: dy.reshape(before)


@op
def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> tuple[Array, Vjp]:
    """Permute the axes; without `axes`, reverse them."""
    if axes is None:
        axes = tuple(reversed(range(x.ndim)))
    back = tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))
    return x.transpose(axes), lambda dy: dy.transpose(back)


@op
def take(x: Array, *, index: Any) -> tuple[Array, Vjp]:
    """x[index], for slices, integers, masks and integer arrays, which may repeat elements."""
    xp, shape, dtype = array_module(x), x.shape, x.dtype

    def vjp(dy: Array) -> Array:
        dx = xp.zeros(shape, dtype)
        xp.add.at(dx, index, dy)
        return dx

    return x[index], vjp


@op
def concatenate(*parts: Array, axis: int = 0) -> tuple[Array, Vjp]:
    """Join arrays along an axis."""
    xp = array_module(parts[0])
    value = xp.concatenate(parts, axis=axis)
    ends = list(accumulate(p.shape[axis] for p in parts))

    def vjp(dy: Array) -> Any:
        # Views of dy that do not overlap, so that the gradients share no memory.
        pieces = xp.split(dy, ends[:-1], axis=axis)
        return tuple(pieces) if len(pieces) > 1 else pieces[0]

    return value, vjp


@concatenate.checked
def _check_concatenate(*_: Array, axis: int = 0) -> None:
    _check_axis("concatenate", axis)


def _check_axis(name: str, axis: int) -> None:
    try:
        index(axis)
    except TypeError:
        raise TypeError(f"{name}: axis must be an integer, got {axis!r}") from None


@op
def stack(*parts: Array, axis: int = 0) -> tuple[Array, Vjp]:
    """Join arrays of one shape along a new axis."""
    xp, count = array_module(parts[0]), len(parts)

    def vjp(dy: Array) -> Any:
        stacked = xp.moveaxis(dy, axis, 0)
        pieces = tuple(stacked[i, ...] for i in range(count))  # views, even of single numbers
        return pieces if len(pieces) > 1 else pieces[0]

    return xp.stack(parts, axis=axis), vjp


@stack.checked
def _check_stack(*_: Array, axis: int = 0) -> None:
    _check_axis("stack", axis)


@op
def split(x: Array, *, sections: int | Sequence[int], axis: int = 0) -> tuple[Any, Vjp]:
    """Split x along an axis: into `sections` equal parts, or before each of several indices."""
    xp, shape, dtype = array_module(x), x.shape, x.dtype
    slices = _slices(sections, axis % len(shape), shape)

    def vjp(gradients: tuple[Any, ...]) -> Array:
        dx = xp.zeros(shape, dtype)
        for part_of_x, dy in zip(slices, gradients, strict=True):
            part = dx[part_of_x]
            part += dy  # parts overlap if sections are not in order
        return dx

    return tuple(x[part_of_x] for part_of_x in slices), vjp


def _slices(
    sections: int | Sequence[int], axis: int, shape: tuple[int, ...]
) -> list[tuple[slice, ...]]:
    """The index of each part of `split`.

    Slices, since CuPy's split reads past the array if sections are out of range or out of order.
    """
    length = shape[axis]
    if isinstance(sections, int):
        sections = [i * (length // sections) for i in range(1, sections)]
    ends = [*sections, length]
    before = (slice(None),) * axis
    return [(*before, slice(a, b)) for a, b in pairwise([0, *ends])]


@split.checked
def _check_split(x: Array, *, sections: Any, axis: int = 0) -> None:
    _check_axis("split", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split: axis {axis} is out of range for shape {x.shape}")
    several = isinstance(sections, Sequence) or getattr(sections, "ndim", 0) > 0
    try:
        for number in sections if several else (sections,):
            index(number)
    except TypeError:
        raise TypeError(
            f"split: sections must be an integer, or a flat sequence of integers, got {number!r}"
        ) from None
    if several:
        return
    if sections < 1:
        raise ValueError(f"split: sections must be 1 or more, or several indices, got {sections}")
    if x.shape[axis] % sections:
        raise ValueError(
            f"split: axis {axis} of {x.shape} cannot be split into {sections} equal parts"
        )
