"""The kinds of a loop's arguments: machine code is made for each combination of them.

An argument is a number, None, an array, or a tuple of arguments, also a named one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

# Of NumPy's flags: whether an array is C-contiguous, aligned and writeable.
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
FLAGS = C_CONTIGUOUS | ALIGNED | WRITEABLE


class OfNumber(NamedTuple):
    """A number of a class: int, float, bool or one of NumPy's; or None, which is none."""

    type: type


class OfArray(NamedTuple):
    """An array; `flags` are those of FLAGS that it has."""

    dtype: np.dtype
    ndim: int
    flags: int


class OfTuple(NamedTuple):
    """A tuple, of this class."""

    type: type
    kinds: tuple[Kind, ...]


Kind = OfNumber | OfArray | OfTuple


def kind_of(x: Any) -> Kind:
    """The kind of an argument that is `plain`. Raises TypeError if it has none."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" and x.dtype.isnative:
        return OfArray(x.dtype, x.ndim, x.flags.num & FLAGS)
    if isinstance(x, tuple):
        return OfTuple(type(x), tuple(map(kind_of, x)))
    if isinstance(x, int | float | None) or (
        isinstance(x, np.generic) and x.dtype.kind in "biuf" and x.dtype.isnative
    ):
        return OfNumber(type(x))
    what = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
    raise TypeError(f"loops take arrays of numbers, numbers and tuples of them, not {what}")


def plain(x: Any) -> Any:
    """The argument without what only Python can tell apart.

    Such are subclasses, of which machine code knows nothing, dtypes that are equal and not the
    same, and Python's integers that only 64 bits without a sign can hold.
    """
    if isinstance(x, np.ndarray):
        dtype = _the(x.dtype.str)
        if x.dtype is not dtype and x.dtype == dtype:
            x = x.view(dtype)
        return x if type(x) is np.ndarray else x.view(np.ndarray)
    if isinstance(x, np.generic):
        return _the(x.dtype.str).type(x)
    if isinstance(x, tuple):
        parts = map(plain, x)
        return type(x)._make(parts) if hasattr(x, "_make") else tuple(parts)
    if isinstance(x, int) and not isinstance(x, bool):
        return int(x) if -1 << 63 <= x < 1 << 63 else np.uint64(x)  # which may be an OverflowError
    return float(x) if isinstance(x, float) else x


@cache
def _the(dtype: str) -> np.dtype:
    """Of equal dtypes, one."""
    return np.dtype(dtype)


def known(kinds: Sequence[Kind]) -> list[Any]:
    """The objects by which machine code recognises arguments of these kinds.

    The first two are for what it returns.
    """
    found = [NotImplemented, None]
    for x in _known(kinds):
        if not any(x is other for other in found):
            found.append(x)
    return found


def _known(kinds: Sequence[Kind]) -> Iterator[Any]:
    for kind in kinds:
        if isinstance(kind, OfArray):
            yield from (np.ndarray, kind.dtype)
        elif isinstance(kind, OfTuple):
            yield kind.type
            yield from _known(kind.kinds)
        elif kind.type is bool:
            yield from (True, False)
        elif kind.type is not type(None):
            yield kind.type


def in_words(kind: Kind) -> str:
    """A kind in words; other kinds have other words."""
    if isinstance(kind, OfArray):
        return f"{kind.dtype.str}[{kind.ndim}]{kind.flags:x}"
    name = f"{kind.type.__module__}.{kind.type.__qualname__}"
    if isinstance(kind, OfTuple):
        return f"{name}({', '.join(map(in_words, kind.kinds))})"
    return name
