"""Checks of an operation's arguments. Errors name the argument, what it must be, and what it is.

For functions that are registered with `Function.checked`. Shapes are checked on every backend, the
elements of an array only on the host: reading a device's would wait for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of an array, or () for a number."""
    shape: tuple[int, ...] = getattr(x, "shape", ())
    return shape


def is_matrix(where: str, x: Any, layout: str) -> None:
    """Raise ValueError unless x has two axes; `where` names the operation and the argument."""
    if len(shape_of(x)) != 2:
        raise ValueError(f"{where} must be a matrix {layout}, got shape {shape_of(x)}")


def has_shape(where: str, x: Any, shape: tuple[int, ...], layout: str) -> None:
    """Raise ValueError unless x has this shape; `layout` describes it in the message."""
    if shape_of(x) != shape:
        raise ValueError(f"{where} must have shape {shape}, {layout}, got {shape_of(x)}")


def are_rows(
    where: str,
    numbers: Any,
    shape: tuple[int, ...],
    layout: str,
    count: int,
    or_negative: bool = False,
) -> None:
    """Raise an error unless `numbers` are row numbers of a table of `count` rows.

    They must be an integer array (else TypeError) of this shape (else ValueError) with elements
    below `count` and, unless `or_negative`, not below 0 (else IndexError).
    """
    are_whole(where, numbers)
    if numbers.shape != shape:
        has_shape(where, numbers, shape, layout)
    if isinstance(numbers, np.ndarray) and numbers.size:
        # For few elements this is several times faster than min() and max().
        low = 0 if or_negative else numbers.item(numbers.argmin())
        high = numbers.item(numbers.argmax())
        if low < 0 or high >= count:
            wrong = low if low < 0 else high
            raise IndexError(f"{where}: index {wrong} is out of range for {count} rows")


def are_within(where: str, numbers: Any, least: int, most: int) -> None:
    """Raise an error unless `numbers` is an array of integers from `least` to `most`."""
    are_whole(where, numbers)
    if isinstance(numbers, np.ndarray) and numbers.size:
        low, high = numbers.item(numbers.argmin()), numbers.item(numbers.argmax())
        if low < least or high > most:
            wrong = low if low < least else high
            raise ValueError(f"{where} must be {least} to {most}, got {wrong}")


def are_whole(where: str, numbers: Any) -> None:
    """Raise TypeError unless `numbers` is an array of integers."""
    dtype: Any = getattr(numbers, "dtype", None)
    if dtype is None or dtype.kind not in "iu":
        what = type(numbers).__name__ if dtype is None else f"an array of {dtype}"
        raise TypeError(f"{where} must be an array of integers, got {what}")
