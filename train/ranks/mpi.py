"""Ranks that are connected by MPI, through mpi4py."""

from __future__ import annotations

import atexit
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np
from mpi4py import MPI

from autograd import BackendError, ParameterBuffer
from autograd.backend import Array, backend_of
from npformer.errors import UserError
from train.ranks.devices import choose_device
from train.ranks.exchange import BucketedExchange
from train.ranks.lifeline import Lifeline
from train.ranks.nccl import NCCLTransport
from train.ranks.ranks import AgreedError, Ending, Exchange, Ranks

_Value = TypeVar("_Value")

_SPINNING = 2e-3  # seconds of waiting, after which it is done with pauses
_PAUSE = 2e-4


class MPIRanks(Ranks):
    """The ranks of an MPI communicator.

    host: the name of this rank's host, by which others reach it
    """

    def __init__(self, communicator: MPI.Comm, host: str) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        self._hosts = self.all(host)
        self._lifeline: Lifeline | None = None
        self._nccl: NCCLTransport | None = None

    def connect(self) -> dict[int, str]:
        """End together from now on, even if a rank is killed.

        Returns the ranks of which that cannot be promised, and why.
        """
        self._lifeline = Lifeline(self, self._hosts, self._communicator.Abort)
        sys.excepthook = self._end_for_a_bug
        atexit.register(self._lifeline.say_goodbye)
        return self._lifeline.unconnected

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self._hosts[rank]}"

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
        error: Exception | None = None
        if self.is_first:
            try:
                value = function()
            except (UserError, BackendError) as caught:
                error = caught
        found, message = self.all((value, error and str(error)))[0]
        if message is not None:
            raise AgreedError(message) from error
        result: _Value = found
        return result

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
            message = f"{messages[failed[0]]}"
            if len(failed) < self.size:
                message = f"{self.name(failed[0])}: {message}"
            raise AgreedError(message) from error

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        values = np.array([stop, seconds if self.is_first else 0.0])
        self._wait(self._communicator.Iallreduce(MPI.IN_PLACE, values, MPI.MAX))
        return bool(values[0]), float(values[1])

    def choose_device(self, backend: str) -> None:
        choose_device(self, self._hosts, backend)

    def copy_from_first(self, array: Array) -> None:
        if _is_on_gpu(array):
            self._between_gpus().copy_from_first(array)
        else:
            self._wait(self._communicator.Ibcast(array, root=0))

    def exchange(self, buffer: ParameterBuffer) -> Exchange | None:
        between_gpus = _is_on_gpu(buffer.values)
        return BucketedExchange(buffer, self._between_gpus() if between_gpus else self)

    def await_sums(self) -> None:
        if self._nccl:
            self._nccl.await_sums()

    def _between_gpus(self) -> NCCLTransport:
        if self._nccl is None:
            self._nccl = NCCLTransport(self)
            atexit.register(self._nccl.close)
        return self._nccl

    def start_sum(self, array: Array) -> _Sum:
        return _Sum(self, self._communicator.Iallreduce(MPI.IN_PLACE, array, MPI.SUM))

    def poll(self) -> None:
        """MPI works on its sums only while it is called."""
        self._communicator.Iprobe()

    def end(self, ending: Ending) -> int:
        if not ending.agreed:
            self._end_all(ending)
        return super().end(ending if self.is_first else ending._replace(text=""))

    def _end_all(self, ending: Ending) -> NoReturn:
        assert self._lifeline is not None
        self._lifeline.end_all(ending)

    def _end_for_a_bug(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """In place of `sys.excepthook`: an exception of one rank would leave the others waiting."""
        lines = traceback.format_exception(kind, error, trace)
        end = f"npformer: {self.name(self.rank)} has failed, so all ranks end"
        self._end_all(Ending(1, "".join([*lines, end])))

    def _wait(self, request: MPI.Request) -> None:
        """Wait for a request. Signals are handled meanwhile."""
        began = self.waiting_since = time.monotonic()
        while not request.Test():
            time.sleep(0 if time.monotonic() - began < _SPINNING else _PAUSE)
        self.waited += time.monotonic() - began
        self.waiting_since = None


class _Sum:
    def __init__(self, ranks: MPIRanks, request: MPI.Request) -> None:
        self._ranks, self._request = ranks, request

    def wait(self) -> None:
        self._ranks._wait(self._request)


def _is_on_gpu(array: Array) -> bool:
    return backend_of(array).name == "cupy"
