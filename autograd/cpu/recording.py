"""Recording the loops that a function runs, and playing them back without Python.

The first call runs the function, and records its loops: each with the addresses of its arrays and
the numbers that it was given. The second call does so again, and compares. Only what does the same
with the same arrays in both can be played back; all others run as they are from then on.

What would be lost is work that no loop does, such as NumPy's. Its result is a new array: a loop
that gets it was given another one in the call before, for all arrays are kept. Or it changes an
array in place: so in the second call, the bytes of arrays are summed up before each loop and after
it, and whatever changes in between was not changed by a loop. Operations that have loops must
have run them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

from autograd.cpu import MODULES, pool
from autograd.cpu.addition import covers, fast_add
from autograd.cpu.commands import (
    Loop,
    Record,
    UnrecordableError,
    arrays_in,
    comparable,
    name_of,
    running_record,
)
from autograd.cpu.loops import compiled, of_rows, out_of_memory, watch
from autograd.cpu.registers import byte_at, word_at
from autograd.operation import Call, Function, are_calls_observed, watching
from autograd.ops.arithmetic import add

T = TypeVar("T")

_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, as are all that words are multiplied with

logger = logging.getLogger(__name__)

# Only from now on: if it were with the others, in MODULES, a program's first sum would load loops.
add.on("numpy", covers=covers)(fast_add)


class Recorded(Generic[T]):
    """A function of no arguments whose first two calls run it, and whose others play it back.

    What its second call returns, all others return as well: the same arrays, with new numbers. One
    thread at a time may call it. If a call fails, the next one records anew. While calls are
    watched or counted, or run references, it runs.
    """

    def __init__(self, run: Callable[[], T], recorder: LoopRecorder) -> None:
        self._run, self._recorder = run, recorder
        self._gives_up = False
        self._first: tuple[Record, T] | None = None
        self._second: tuple[Record, T] | None = None

    def __call__(self) -> T:
        # Another record may be played back: it needs the loops themselves.
        if running_record() is not None or are_calls_observed():
            return self._run()
        if self._second is not None:
            record, result = self._second
            _play(record)
            return result
        if self._gives_up:
            return self._run()
        if self._first is None:
            return self._recorded()
        return self._compared()

    def _recorded(self) -> T:
        """Run, and record."""
        record = Record(self._recorder.blocks)
        with record.running():
            result = self._run()
        self._first = record, result
        return result

    def _compared(self) -> T:
        """Run, record once more, and compare."""
        assert self._first is not None
        first, before = self._first
        if self._recorder.has_watched:
            record = Record(first.blocks)
        else:
            record = _Watching(first, arrays_in(before))
        self._first = None
        with record.running(), watching(*MODULES) as calls:
            result = self._run()
        try:
            _check_implementations(calls)
            record.compare(first)
            _compare_results(before, result)
        except UnrecordableError as reason:
            self._gives_up = True
            logger.debug("a function is run each time, and not played back: %s", reason)
        else:
            record.finish()
            self._second = record, result
            self._recorder.note(record)
        return result


class LoopRecorder:
    """Makes functions Recorded that take turns, and share the memory that their loops write to.

    The first is watched closely. The others, for other sizes, are the same code.

    Attributes:
        blocks: the memory; one that is too small for a function is replaced, for later ones
        has_watched: whether a function was watched, and can be played back
    """

    def __init__(self, has_watched: bool = False) -> None:
        self.blocks: list[np.ndarray] = []
        self.has_watched = has_watched
        self._bytes_of_commands = 0
        self._kept: dict[int, np.ndarray] = {}  # blocks of records, by id

    def another(self) -> LoopRecorder:
        return LoopRecorder(self.has_watched)

    def __call__(self, run: Callable[[], T]) -> Recorded[T]:
        return Recorded(run, self)

    def note(self, record: Record) -> None:
        """Note a record that can be played back."""
        self.has_watched = True
        self._bytes_of_commands += record.commands.nbytes
        self._kept |= {id(block): block for block in record.blocks}

    @property
    def nbytes(self) -> int:
        """The bytes of memory and of commands."""
        return self._bytes_of_commands + sum(block.nbytes for block in self._kept.values())


def _check_implementations(calls: dict[Function, list[Call]]) -> None:
    for function, made in calls.items():
        if any(implementation == "reference" for *_, implementation in made):
            raise UnrecordableError(f"{function.name} has no loop for these arguments")


def _compare_results(first: Any, second: Any) -> None:
    try:
        if comparable(first) == comparable(second):
            return
    except TypeError as error:
        raise UnrecordableError(f"it returns {error}") from None
    raise UnrecordableError("what it returns was not the same array both times")


class _Watching(Record):
    """A second record, which notices what changes an array besides loops."""

    def __init__(self, first: Record, result: list[np.ndarray]) -> None:
        super().__init__(first.blocks)
        self._reason = ""
        # Parts of memory by number: first address, the one after the last, sum of the bytes.
        self._numbers: dict[tuple[int, int], int] = {}
        self._parts = np.empty((0, 3), np.int64)
        self._sum_up(self._numbers_of(first.given + result))

    @contextmanager
    def command(self, loop: Loop, count: int, arguments: tuple[Any, ...]) -> Iterator[int]:
        known = len(self._parts)
        own = self._numbers_of(arrays_in(arguments))
        concerned = self._overlapping(own)
        self._check(concerned[concerned < known], name_of(loop))
        with super().command(loop, count, arguments) as place:
            yield place
        self._sum_up(concerned)

    def compare(self, first: Record) -> None:
        self._check(np.arange(len(self._parts)), "the end")
        super().compare(first)
        if self._reason:
            raise UnrecordableError(self._reason)

    def _numbers_of(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The parts of memory that arrays take; new ones get a number."""
        bounds = [byte_bounds(x) for x in arrays]
        new = [x for x in dict.fromkeys(bounds) if x not in self._numbers]
        if new:
            self._numbers |= {x: len(self._parts) + i for i, x in enumerate(new)}
            rows = np.array([(*x, 0) for x in new], np.int64)
            self._parts = np.concatenate([self._parts, rows])
        return np.array([self._numbers[x] for x in bounds], np.int64)

    def _overlapping(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers of the parts that others are in, or partly in; those themselves as well."""
        first, last = self._parts[:, :1], self._parts[:, 1:2]
        begin, end = self._parts[numbers, 0], self._parts[numbers, 1]
        return np.flatnonzero(((first < end) & (begin < last)).any(axis=1))

    def _check(self, numbers: np.ndarray, before: str) -> None:
        """Note it if one of these parts is not as the last loop has left it."""
        if not self._reason and _sums_differ(self._parts, numbers):
            self._reason = f"before {before}, something that is not a loop changed an array"

    def _sum_up(self, numbers: np.ndarray) -> None:
        _write_sums(self._parts, numbers)


@compiled
def _sums_differ(parts, numbers):
    """How many of these parts of memory have another sum than is written down."""
    count = 0
    for i in numbers:
        count += parts[i, 2] != _sum_of_bytes(parts[i, 0], parts[i, 1])
    return count


@compiled
def _write_sums(parts, numbers):
    for i in numbers:
        parts[i, 2] = _sum_of_bytes(parts[i, 0], parts[i, 1])


@of_rows
def _sum_of_bytes(first, last):
    """A number that changes with the bytes from one address to another."""
    total, words = 0, (last - first) // 8
    for j in range(words):
        total += word_at(first + 8 * j) * (_FACTOR + 2 * j)
    for at in range(first + 8 * words, last):
        total += byte_at(at) * (_FACTOR - 2 * (at - first))
    return total


def _play(record: Record) -> None:
    """Repeat the commands. Raises MemoryError."""
    words = record.commands
    first = words.ctypes.data
    failed = _play_all(pool.address(watch), first, first + words.nbytes)
    if failed:
        raise out_of_memory(record.loop_at((failed - first) // 8))


@compiled
def _play_all(pool_address, first, end):
    return pool.play(pool_address, first, end)
