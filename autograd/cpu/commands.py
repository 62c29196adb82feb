"""The loops that a function runs, as commands that can be repeated without Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from autograd.cpu.chains import Chain, roles_of
from autograd.cpu.places import Place
from autograd.cpu.pool import COMMAND_BYTES, COMMAND_CHAIN

_LINE = 64  # bytes of a cache line, to which arrays are aligned
_MOST_WORDS = 512  # of a command

Loop = Callable[..., None]

_running: ContextVar[Record | None] = ContextVar("record", default=None)


def running_record() -> Record | None:
    """The record that loops are added to in this context, if there is one."""
    return _running.get()


class UnrecordableError(Exception):
    """Why a function cannot be played back."""


class Record:
    """The loops of a call of a function, with their arguments.

    A command holds the addresses of arrays. All of them are kept, so that another record of the
    same function has the same calls only if it was given the same arrays, not others that came to
    lie in the same place. The arrays that loops write their results to are made by `memory`, in
    blocks that other records of the same function, or of others that take turns with it, use too.

    Attributes:
        calls: each loop and what is comparable of its arguments, in order, until it is finished
        given: all arrays that loops have got
        blocks: the memory that it has asked for, in this order
    """

    def __init__(self, shared: list[np.ndarray] | None = None) -> None:
        """shared: blocks of other records, which it may use, and has to make if they are too small.

        They are in the order in which they are asked for.
        """
        self.calls: list[tuple[Loop, Any]] = []
        self.given: list[np.ndarray] = []
        self._starts: list[int] = []  # the first word of each command
        self._loops: list[Loop] = []  # of the commands, once it is finished
        self.blocks: list[np.ndarray] = []
        self._shared = [] if shared is None else shared
        self._words = np.empty(64 * _MOST_WORDS, np.int64)
        self._used = 0

    @property
    def commands(self) -> np.ndarray:
        """All commands, one after the other, as words: a view."""
        return self._words[: self._used]

    def finish(self) -> None:
        """Find chains of commands, and give back the room for more: there are no more."""
        self._words = self.commands.copy()
        chain, head = Chain(), 0
        for start, (loop, (count, *arguments)) in zip(self._starts, self.calls, strict=True):
            if chain.joined(roles_of(loop), count, arguments):
                self._words[head + COMMAND_CHAIN] += 1
            else:
                head = start
        self._loops = [loop for loop, _ in self.calls]
        self.calls.clear()  # which take more memory than the commands

    def loop_at(self, word: int) -> Loop:
        """The loop whose command begins there, of a finished record."""
        return self._loops[self._starts.index(word)]

    def compare(self, first: Record) -> None:
        """Raise UnrecordableError unless the same was done with the same arrays and numbers."""
        for mine, others in itertools.zip_longest(self.calls, first.calls):
            if mine != others:
                name = name_of((mine or others)[0])
                raise UnrecordableError(
                    f"{name} does not get the same arrays and numbers each time"
                )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what loops are run inside a `with`, in this context."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)

    def memory(self, size: int) -> np.ndarray:
        """As many bytes, aligned to a cache line, which no other array of this record has."""
        i = len(self.blocks)
        if i == len(self._shared) or self._shared[i].size < size:
            room = 1 << (size - 1).bit_length()  # so that it is not replaced often
            flat = np.empty(room + _LINE, np.uint8)
            start = -flat.ctypes.data % _LINE
            self._shared[i : i + 1] = [flat[start : start + room]]
        self.blocks.append(self._shared[i])
        return self.blocks[i][:size]

    @contextmanager
    def command(self, loop: Loop, count: int, arguments: tuple[Any, ...]) -> Iterator[int]:
        """Add a loop that runs inside a `with`, which gets the address for its command."""
        self.calls.append((loop, comparable((count, *arguments))))
        self.given += arrays_in(arguments)
        if self._words.size - self._used < _MOST_WORDS:
            self._words = np.concatenate([self._words, np.empty_like(self._words)])
        yield self._words[self._used :].ctypes.data
        self._starts.append(self._used)
        self._used += int(self._words[self._used + COMMAND_BYTES]) // 8


def name_of(loop: Loop) -> str:
    """A loop's module and name."""
    return f"{loop.__module__}.{loop.__name__}"


def arrays_in(x: Any) -> list[np.ndarray]:
    """The arrays in nested tuples and lists."""
    if isinstance(x, np.ndarray):
        return [x]
    return [found for part in x for found in arrays_in(part)] if isinstance(x, _SEQUENCES) else []


def comparable(x: Any) -> Any:
    """What can be compared of numbers, and of arrays in nested tuples: where they are.

    Raises TypeError for anything else.
    """
    if isinstance(x, np.ndarray):
        return Place.of(x)
    if isinstance(x, _SEQUENCES):
        return tuple(map(comparable, x))
    if not isinstance(x, _NUMBERS):
        raise TypeError(f"neither numbers nor arrays, but {type(x).__name__}")
    return type(x).__name__, x


_SEQUENCES = tuple, list
_NUMBERS = int, float, np.generic, str, type(None)
