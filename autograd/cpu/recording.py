"""Recording the loops that a function runs, and playing them back without Python.

The first call runs the function, and records its loops: each with the addresses of its arrays and
the numbers that it was given. The second call does so again, and compares. Only what does the same
with the same arrays in both can be played back; all others run as they are from then on.

What would be lost is work that no loop does, such as NumPy's. Its result is a new array: a loop
that gets it was given another one in the call before, for all arrays are kept. Or it changes an
array in place: so in the second call, the bytes of all arrays are summed up before each loop and
after it, and whatever changes in between was not changed by a loop. Operations that have loops must
have run them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

from autograd.cpu import MODULES, pool
from autograd.cpu.commands import Loop, Record, arrays_in, described, running_record
from autograd.cpu.loops import compiled, name_of, out_of_memory, watch
from autograd.cpu.registers import byte_at, word_at
from autograd.operation import Call, Function, watching

T = TypeVar("T")
_Bounds = tuple[int, int]  # the first address, and the one after the last

_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, as are all that words are multiplied with

logger = logging.getLogger(__name__)


class _UnrecordableError(Exception):
    """Why a function cannot be played back."""


class Recorded(Generic[T]):
    """A function of no arguments whose first two calls run it, and whose others play it back.

    What its second call returns, all others return as well: the same arrays, with new numbers. One
    thread at a time may call it. If a call fails, the next one records anew.
    """

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run
        self._gives_up = False
        self._first: tuple[Record, T] | None = None
        self._second: tuple[Record, T] | None = None

    def __call__(self) -> T:
        if running_record() is not None:  # which may be played back: it needs the loops themselves
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
        record = Record()
        with record.running():
            result = self._run()
        self._first = record, result
        return result

    def _compared(self) -> T:
        """Run, record once more, and compare."""
        assert self._first is not None
        first, before = self._first
        record, self._first = _Checked(first, arrays_in(before)), None
        with record.running(), watching(*MODULES) as calls:
            result = self._run()
        try:
            _check_implementations(calls)
            record.compare(first)
            _compare_results(before, result)
        except _UnrecordableError as reason:
            self._gives_up = True
            logger.info("a function is run each time, and not played back: %s", reason)
        else:
            self._second = record, result
        return result


def _check_implementations(calls: dict[Function, list[Call]]) -> None:
    for function, made in calls.items():
        if any(implementation == "reference" for *_, implementation in made):
            raise _UnrecordableError(f"{function.name} has no loop for these arguments")


def _compare_results(first: Any, second: Any) -> None:
    try:
        if described(first) == described(second):
            return
    except TypeError as error:
        raise _UnrecordableError(f"it returns {error}") from None
    raise _UnrecordableError("what it returns was not the same array both times")


class _Checked(Record):
    """A second record, which notices what changes an array besides loops."""

    def __init__(self, first: Record, result: list[np.ndarray]) -> None:
        super().__init__(first)
        self._reason = ""
        self._sums: dict[_Bounds, int] = {}  # of all bytes between two addresses
        self._sum_up(set(map(byte_bounds, first.given + result)))

    @contextmanager
    def command(self, loop: Loop, count: int, arguments: tuple[Any, ...]) -> Iterator[int]:
        own = set(map(byte_bounds, arrays_in(arguments)))
        concerned = own | self._overlapping(own)
        self._check(concerned, name_of(loop))
        with super().command(loop, count, arguments) as place:
            yield place
        self._sum_up(concerned)

    def compare(self, first: Record) -> None:
        """Raise an error if this call did something else than the first, or not only loops."""
        self._check(set(self._sums), "the end")
        for mine, others in itertools.zip_longest(self.calls, first.calls):
            if mine != others:
                name = name_of((mine or others)[0])
                raise _UnrecordableError(
                    f"{name} does not get the same arrays and numbers each time"
                )
        if self._reason:
            raise _UnrecordableError(self._reason)

    def _check(self, bounds: set[_Bounds], before: str) -> None:
        """Note it if one of these parts of memory is not as the last loop has left it."""
        known = [x for x in bounds if x in self._sums]
        if not self._reason and _sums_of(known) != [self._sums[x] for x in known]:
            self._reason = f"before {before}, something that is not a loop changed an array"

    def _sum_up(self, bounds: set[_Bounds]) -> None:
        self._sums.update(zip(bounds, _sums_of(list(bounds)), strict=True))

    def _overlapping(self, bounds: set[_Bounds]) -> set[_Bounds]:
        """The known parts of memory that some others are in, or partly in."""
        known, others = (np.array(list(x), np.int64).reshape(-1, 2) for x in (self._sums, bounds))
        begins, ends = known[:, :1] < others[:, 1], others[:, 0] < known[:, 1:]
        return {(first, last) for first, last in known[(begins & ends).any(axis=1)].tolist()}


def _sums_of(bounds: list[_Bounds]) -> list[int]:
    sums = np.empty(len(bounds), np.int64)
    _sum_bytes(np.array(bounds, np.int64).reshape(-1, 2), sums)
    return sums.tolist()


@compiled
def _sum_bytes(bounds, sums):
    """Of the bytes between two addresses a number that changes with them. bounds: [n, 2]."""
    for i in range(len(bounds)):
        first, last, total = bounds[i, 0], bounds[i, 1], 0
        words = (last - first) // 8
        for j in range(words):
            total += word_at(first + 8 * j) * (_FACTOR + 2 * j)
        for at in range(first + 8 * words, last):
            total += byte_at(at) * (_FACTOR - 2 * (at - first))
        sums[i] = total


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
