"""Several processes with an emulated GPU each, for tests of what ranks do together.

    with Ranks(2) as ranks:
        found = ranks.call(function, ranks.unique_id())  # function(rank, size, unique_id) in each

They stay between calls, so a test costs no start of CuPy. Functions are found by their names, in a
module that does not import CuPy at its top.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple

from tests.without_gpu import cupy


class _Rank(NamedTuple):
    process: BaseProcess
    connection: Connection


class Ranks:
    """Processes with ranks from 0; each uses the GPU of the host that has its number."""

    def __init__(self, size: int, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {cupy.GPUS: str(size), cupy.SECONDS: "60", **(environment or {})}
        self._ranks = [self._start() for _ in range(size)]

    def _start(self) -> _Rank:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._environment), daemon=True)
        process.start()
        theirs.close()
        return _Rank(process, ours)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for rank in self._ranks:
            rank.process.kill()
            rank.process.join()
            rank.connection.close()

    def call(self, function: Callable[..., Any], *arguments: Any, size: int | None = None) -> Any:
        """What `function(rank, size, *arguments)` returns in each of the first `size` processes.

        An exception that it raises is a result, too. A process that is killed gives EOFError or a
        ConnectionError, and another takes its place.
        """
        ranks = range(len(self._ranks) if size is None else size)
        for rank in ranks:
            self.begin(rank, function, rank, len(ranks), *arguments)
        return [self.result(rank) for rank in ranks]

    def begin(self, rank: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function(*arguments)` in one process, without waiting for it."""
        self._ranks[rank].connection.send((function, arguments))

    def result(self, rank: int) -> Any:
        """What the call that was begun returned or raised."""
        try:
            return self._ranks[rank].connection.recv()
        except (EOFError, ConnectionError) as gone:
            self._ranks[rank].process.join()
            self._ranks[rank] = self._start()
            return gone

    def one(self, rank: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function(*arguments)` returned or raised in one process."""
        self.begin(rank, function, *arguments)
        return self.result(rank)

    def unique_id(self) -> bytes:
        """A new one of NCCL, for one communicator."""
        found = self.one(0, _unique_id)
        assert isinstance(found, bytes), found
        return found


def _unique_id() -> bytes:
    from cupy.cuda import nccl

    found: bytes = nccl.get_unique_id()
    return found


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    cupy.install(execute=True)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            result = function(*arguments)
        except Exception as error:  # a test looks at it
            result = error
        connection.send(result)
