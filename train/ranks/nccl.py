"""Sums GPU arrays over ranks by NCCL, through CuPy, while the GPU goes on with the backward pass.

What is computed is queued on CuPy's current stream, and sums on a stream of their own, which that
one does not wait for. Two events order each sum: it begins when the array is complete, and what is
queued after `wait` finds the result. The host waits for neither.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from autograd.backend import Array
from npformer.errors import UserError
from train.ranks.ranks import Ranks

_PAUSE = 2e-4  # seconds between two looks at what the GPU has done
_GRACE = 1.0  # seconds for the others to tell that a rank has died, which explains a failure best


class NCCLTransport:
    """The sums over ranks that have a GPU each; see `Transport`.

    All ranks make it at the same place, once they have chosen their devices. It is of the calling
    thread. Every method raises UserError on the rank that learns of a failed connection.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        with ranks.together():
            self._nccl = _nccl()
        self._cuda = importlib.import_module("cupy").cuda
        self._types = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}
        self._communicator: Any = None
        with self._errors_told():
            unique_id = ranks.all(self._nccl.get_unique_id() if ranks.is_first else b"")[0]
            self._communicator = self._connected(unique_id)
        self._stream = self._cuda.Stream(non_blocking=True)
        self._under_way = 0  # sums that were started and not waited for
        self._began: Any = None  # the event before the first wait for them
        self._waits: list[tuple[Any, Any]] = []  # an event before the waits of a step, one after

    def _connected(self, unique_id: bytes) -> Any:
        """A communicator. This waits for all ranks; signals are handled meanwhile."""
        device, ranks = self._cuda.Device(), self._ranks

        def connect() -> Any:
            device.use()  # each thread has a current device
            return self._nccl.NcclCommunicator(ranks.size, unique_id, ranks.rank)

        return ThreadPoolExecutor(1).submit(connect).result()

    def start_sum(self, array: Array) -> _Sum:
        """Queue the sum, and return."""
        place = array.data.ptr, array.data.ptr
        about = array.size, self._types[array.dtype.name], self._nccl.NCCL_SUM
        summed = self._ordered(
            lambda: self._communicator.allReduce(*place, *about, self._stream.ptr)
        )
        self._under_way += 1
        return _Sum(self, array, summed)

    def poll(self) -> None:
        """NCCL needs no calls to proceed."""

    def copy_from_first(self, array: Array) -> None:
        """Overwrite a contiguous array by that of the first rank. Waits until that is done."""
        about = array.size, self._types[array.dtype.name], 0
        copied = self._ordered(
            lambda: self._communicator.bcast(array.data.ptr, *about, self._stream.ptr)
        )
        self._cuda.get_current_stream().wait_event(copied)
        self.await_sums()

    def await_sums(self) -> None:
        """Wait until all that was queued is done. Signals and failures are noticed meanwhile."""
        done = self._cuda.get_current_stream().record()
        while not done.done:
            self._check()
            time.sleep(_PAUSE)
        self._check()
        for began, ended in self._waits:
            self._ranks.waited += self._cuda.get_elapsed_time(began, ended) / 1000
        self._waits.clear()

    def close(self) -> None:
        """End the connection. Nothing may be under way."""
        self._communicator.destroy()

    def _ordered(self, queue: Callable[[], None]) -> Any:
        """Queue a collective after the work of the current stream; returns an event after it."""
        self._stream.wait_event(self._cuda.get_current_stream().record(self._event()))
        with self._errors_told():
            queue()
        return self._stream.record(self._event())

    def _event(self) -> Any:
        return self._cuda.Event(disable_timing=True)

    def _wait(self, event: Any) -> None:
        """Let what is queued from here on wait for a sum."""
        current = self._cuda.get_current_stream()
        if self._began is None:
            self._began = current.record()
        current.wait_event(event)
        self._under_way -= 1
        if not self._under_way:
            self._waits.append((self._began, current.record()))
            self._began = None
            self._check()

    def _check(self) -> None:
        """Raise UserError if a collective has failed. Its GPU would never finish it."""
        with self._errors_told():
            self._communicator.check_async_error()

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Give up the connection, and raise UserError, for an error of NCCL."""
        try:
            yield
        except self._nccl.NcclError as error:
            if self._communicator is not None:
                self._communicator.abort()  # what waits on this GPU goes on
            time.sleep(_GRACE)
            raise UserError(
                f"NCCL cannot connect the GPUs ({error}); NCCL_DEBUG=WARN has it say why, and "
                "NCCL_SOCKET_IFNAME names the network that it uses"
            ) from error


class _Sum:
    """A sum that is under way. It keeps the array's memory from being used for anything else."""

    def __init__(self, transport: NCCLTransport, array: Array, event: Any) -> None:
        self._transport, self._array, self._event = transport, array, event

    def wait(self) -> None:
        self._transport._wait(self._event)


def _nccl() -> Any:
    """CuPy's module of NCCL. Raises UserError if the library is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # CuPy says the same in many lines
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        version = importlib.import_module("cupy").cuda.runtime.runtimeGetVersion() // 1000
        raise UserError(
            "several GPUs are connected by NCCL, and CuPy does not find it: pip install "
            f"nvidia-nccl-cu{version} (npformer[cuda{version}] brings it)"
        )
    return nccl
