"""Ranks that are connected by MPI, through mpi4py."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from mpi4py import MPI

from autograd import BackendError, ParameterBuffer
from autograd.backend import Array
from npformer.errors import UserError
from train.ranks.exchange import BucketedExchange
from train.ranks.ranks import AgreedError, Exchange, Ranks

_Value = TypeVar("_Value")

_SPINNING = 2e-3  # seconds of waiting, after which it is done with pauses
_PAUSE = 2e-4


class MPIRanks(Ranks):
    """The ranks of an MPI communicator."""

    def __init__(self, communicator: MPI.Comm) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        self.host = MPI.Get_processor_name()

    def all(self, value: _Value) -> list[_Value]:
        sent = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self._wait(self._communicator.Iallgather(np.array([sent.size], np.int64), sizes))
        received = np.empty(int(sizes.sum()), np.uint8)
        starts = np.cumsum(sizes) - sizes
        self._wait(self._communicator.Iallgatherv(sent, [received, sizes, starts, MPI.BYTE]))
        return [
            pickle.loads(received[start : start + size].tobytes())
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        ]

    def on_first(self, function: Callable[[], _Value]) -> _Value:
        value: Any = None
        with self.together():
            if self.is_first:
                value = function()
        found: _Value = self.all(value)[0]
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        error: Exception | None = None
        try:
            yield
        except (UserError, BackendError) as caught:
            error = caught
        messages = self.all(error and str(error))
        failed = [rank for rank, message in enumerate(messages) if message is not None]
        if failed:
            first = failed[0]
            words = f"{messages[first]}"
            if len(failed) < self.size and first > 0:
                words = f"rank {first}: {words}"
            raise AgreedError(words, told=self.rank == first) from error

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        values = np.array([stop, seconds if self.is_first else 0.0])
        self._wait(self._communicator.Iallreduce(MPI.IN_PLACE, values, MPI.MAX))
        return bool(values[0]), float(values[1])

    def copy_from_first(self, array: Array) -> None:
        self._wait(self._communicator.Ibcast(array, root=0))

    def exchange(self, buffer: ParameterBuffer) -> Exchange | None:
        return BucketedExchange(buffer, self)

    def start_sum(self, array: Array) -> _Sum:
        return _Sum(self, self._communicator.Iallreduce(MPI.IN_PLACE, array, MPI.SUM))

    def poll(self) -> None:
        """MPI works on its sums only while it is called."""
        self._communicator.Iprobe()

    def _wait(self, request: MPI.Request) -> None:
        """Wait for a request. Signals are handled meanwhile."""
        began = time.monotonic()
        while not request.Test():
            time.sleep(0 if time.monotonic() - began < _SPINNING else _PAUSE)


class _Sum:
    def __init__(self, ranks: MPIRanks, request: MPI.Request) -> None:
        self._ranks, self._request = ranks, request

    def wait(self) -> None:
        self._ranks._wait(self._request)
