"""Which commands may be played back as a chain: all of them for some rows, then for other rows.

A loop over rows touches, of some of its arrays, only the rows of its task. As long as loops follow
each other on the same rows, and none reads or writes what another one's tasks write elsewhere,
their order is free but for that of the rows themselves. So a thread goes through them with its
rows, which stay in its cache, and does not wait for the others after each loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Roles(NamedTuple):
    """What a loop over rows does with its arguments, which are counted after the task's number.

    Attributes:
        rows: those that are arrays, or None, of which a task touches only its own rows
        written: others that are written to
    """

    rows: frozenset[int]
    written: frozenset[int]


def roles_of(task: Callable[..., None], rows: str, written: str) -> Roles:
    """The roles of arguments that are given by their names."""
    places = {name: i - 1 for i, name in enumerate(inspect.signature(task).parameters)}
    return Roles(*(frozenset(places[name] for name in names.split()) for names in (rows, written)))


class _Part(NamedTuple):
    """Memory of an array: from one address to another, and the bytes of a row."""

    first: int
    end: int
    row: int

    def overlaps(self, other: _Part) -> bool:
        return self.first < other.end and other.first < self.end


class Chain:
    """Commands that go on from each other, on the same rows."""

    def __init__(self) -> None:
        self._tasks: tuple[int, ...] | None = None  # their number, and the rows of each
        self._of_rows: list[_Part] = []
        self._read: list[_Part] = []
        self._written: list[_Part] = []

    def joined(self, roles: Roles | None, count: int, arguments: tuple[Any, ...]) -> bool:
        """Whether a loop joins the chain. If not, the chain now begins with it.

        arguments: those after the number of tasks, of which the first is the rows of each.
        """
        if roles is None:
            self._tasks = None
            return False
        of_rows, read, written = [], [], []
        for i, argument in enumerate(arguments):
            parts = list(map(_part, _arrays_in(argument)))
            (of_rows if i in roles.rows else written if i in roles.written else read).extend(parts)
        tasks = count, arguments[0]
        if self._tasks == tasks and not self._is_disturbed_by(of_rows, read, written):
            self._of_rows += of_rows
            self._read += read
            self._written += written
            return True
        self._tasks = tasks
        self._of_rows, self._read, self._written = of_rows, read, written
        return False

    def _is_disturbed_by(
        self, of_rows: list[_Part], read: list[_Part], written: list[_Part]
    ) -> bool:
        """Whether the order of the tasks of this loop and of those in the chain matters."""
        return (
            any(a.overlaps(b) and a != b for a in of_rows for b in self._of_rows)
            or _overlap(of_rows, self._read + self._written)
            or _overlap(read, self._of_rows + self._written)
            or _overlap(written, self._of_rows + self._read + self._written)
        )


def _part(x: np.ndarray) -> _Part:
    first = x.ctypes.data
    return _Part(first, first + x.nbytes, x.strides[0] if x.ndim else x.itemsize)


def _arrays_in(x: Any) -> list[np.ndarray]:
    if isinstance(x, np.ndarray):
        return [x] if x.size else []
    return [found for part in x for found in _arrays_in(part)] if isinstance(x, tuple) else []


def _overlap(some: list[_Part], others: list[_Part]) -> bool:
    return any(a.overlaps(b) for a in some for b in others)
