"""Which commands may be played back as a chain: all of them for some rows, then for other rows.

A loop over rows touches, of some of its arrays, only the rows of its task. As long as loops follow
each other on the same rows, and none reads or writes what another one's tasks write elsewhere,
their order is free but for that of the rows themselves. So a thread goes through them with its
rows, which stay in its cache, and does not wait for the others after each loop.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from autograd.cpu.places import Place


class Roles(NamedTuple):
    """What a loop over rows does with its arguments, which are counted after the task's number.

    Attributes:
        rows: those that are arrays, or None, of which a task touches only its own rows
        written: others that are written to
    """

    rows: frozenset[int]
    written: frozenset[int]


def roles_named(task: Callable[..., None], rows: str, written: str) -> Roles:
    """The roles of arguments that are given by their names."""
    at = {name: i - 1 for i, name in enumerate(inspect.signature(task).parameters)}
    return Roles(*(frozenset(at[name] for name in names.split()) for names in (rows, written)))


def with_roles(loop: Callable[..., None], roles: Roles | None) -> Callable[..., None]:
    """The loop, which knows its roles."""
    loop.roles = roles  # type: ignore[attr-defined]
    return loop


def roles_of(loop: Callable[..., None]) -> Roles | None:
    """The roles of a loop over rows."""
    roles: Roles | None = loop.roles  # type: ignore[attr-defined]
    return roles


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
        self._tasks: Any = None  # their number, and the rows of each
        self._of_rows: set[_Part] = set()
        self._read: set[_Part] = set()
        self._written: set[_Part] = set()

    def joined(self, roles: Roles | None, count: Any, arguments: Sequence[Any]) -> bool:
        """Whether a loop joins the chain. If not, the chain now begins with it.

        arguments: what `commands.comparable` makes of them, without the number of tasks; the first
        is the rows of a task.
        """
        if roles is None:
            self._tasks = None
            return False
        of_rows, read, written = set[_Part](), set[_Part](), set[_Part]()
        for i, argument in enumerate(arguments):
            of_its_role = of_rows if i in roles.rows else written if i in roles.written else read
            of_its_role.update(_parts_of(argument))
        tasks = count, arguments[0]
        if self._tasks == tasks and not self._is_disturbed_by(of_rows, read, written):
            self._of_rows |= of_rows
            self._read |= read
            self._written |= written
            return True
        self._tasks = tasks
        self._of_rows, self._read, self._written = of_rows, read, written
        return False

    def _is_disturbed_by(self, of_rows: set[_Part], read: set[_Part], written: set[_Part]) -> bool:
        """Whether the order of the tasks of this loop and of those in the chain matters."""
        return (
            _overlap(of_rows - self._of_rows, self._of_rows)
            or _overlap(of_rows, self._read | self._written)
            or _overlap(read, self._of_rows | self._written)
            or _overlap(written, self._of_rows | self._read | self._written)
        )


def _parts_of(x: Any) -> list[_Part]:
    """The memory of the arrays in what `commands.comparable` makes of an argument."""
    if isinstance(x, Place):
        bytes_ = math.prod(x.shape) * np.dtype(x.dtype).itemsize
        rows, row = (x.shape[0], x.strides[0]) if x.shape else (1, bytes_)
        # NumPy gives any stride to a dimension of one row.
        end = x.address + max(rows * row, bytes_)
        return [_Part(x.address, end, row)] if bytes_ else []
    return [found for part in x for found in _parts_of(part)] if isinstance(x, tuple) else []


def _overlap(some: set[_Part], others: set[_Part]) -> bool:
    return any(a.overlaps(b) for a in some for b in others)
