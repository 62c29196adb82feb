"""The sums that ranks exchange which are threads of this process: see thread_ranks.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from autograd.backend import Array
from tests.train.thread_ranks import in_threads
from train.ranks.ranks import Ranks

_Result = TypeVar("_Result")


class Meeting:
    """Where the threads meet. It notes what each of them has sent, in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: list[list[Array]] = [[] for _ in range(size)]
        self.arrived = threading.Condition()
        self.failed = False

    def run(self, work: Callable[[int, Member], _Result]) -> list[_Result]:
        """Call work(rank, member) in a thread for each rank; returns what they return.

        An exception of one is raised here, and ends the waiting of others.
        """

        def guarded(ranks: Ranks) -> _Result:
            try:
                return work(ranks.rank, Member(self, ranks.rank))
            except BaseException:
                with self.arrived:
                    self.failed = True
                    self.arrived.notify_all()
                raise

        return in_threads(self.size, guarded)


class Member:
    """One rank's transport."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self._rank = meeting, rank

    def start_sum(self, array: Array) -> _Sum:
        assert array.flags.c_contiguous
        with self._meeting.arrived:
            sent = self._meeting.sent[self._rank]
            sent.append(array.copy())  # what changes from now on is lost, so tests notice it
            array[...] = np.nan  # under way: whoever reads it now is too early
            self._meeting.arrived.notify_all()
            return _Sum(self._meeting, array, len(sent) - 1)

    def poll(self) -> None:
        pass


class _Sum:
    def __init__(self, meeting: Meeting, array: Array, number: int) -> None:
        self._meeting, self._array, self._number = meeting, array, number

    def wait(self) -> None:
        meeting = self._meeting
        with meeting.arrived:
            meeting.arrived.wait_for(
                lambda: meeting.failed or all(len(s) > self._number for s in meeting.sent)
            )
            parts = [sent[self._number] for sent in meeting.sent if len(sent) > self._number]
        if len(parts) < meeting.size:
            raise threading.BrokenBarrierError("another rank has failed")
        assert len({part.shape for part in parts}) == 1, "ranks send in different orders"
        self._array[...] = sum(parts)
