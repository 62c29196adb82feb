"""Ranks that are threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from npformer import UserError
from train.ranks.ranks import AgreedError, Ranks

_Value = TypeVar("_Value")


class ThreadRanks(Ranks):
    """One of the ranks that `in_threads` makes."""

    def __init__(self, rank: int, values: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(values)
        self._values, self._barrier = values, barrier

    def all(self, value: _Value) -> list[_Value]:
        self._values[self.rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def on_first(self, function: Callable[[], _Value]) -> _Value:
        value: Any = None
        with self.together():
            if self.is_first:
                value = function()
        found: _Value = self.all(value)[0]
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        error = None
        try:
            yield
        except UserError as caught:
            error = str(caught)
        messages = [message for message in self.all(error) if message is not None]
        if messages:
            raise AgreedError(messages[0])


def in_threads(size: int, work: Callable[[Ranks], _Value]) -> list[_Value]:
    """What `work` returns on each of the ranks. A rank that fails ends the waiting of others."""
    barrier, values = threading.Barrier(size), [None] * size

    def guarded(rank: int) -> _Value:
        try:
            return work(ThreadRanks(rank, values, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(guarded, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception())]
    for error in errors:  # what others raise for the barrier says less
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
