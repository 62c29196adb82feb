"""Processes that work on a stream of items, whose results come in the order of the items.

A worker has the next item while it works on one, so that it never waits, and no more, so that
memory stays bounded. Workers are started anew instead of forked: a fork of a process with threads
may hang, and not every system can. They end when this process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from npformer.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items that a worker has at a time


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def workers(
    make: Callable[..., Callable[[Item], Result]], arguments: tuple[Any, ...], jobs: int
) -> Iterator[Callable[[Iterable[Item]], Iterator[Result]]]:
    """A function that applies `make(*arguments)` to items in `jobs` processes, in order.

    `make` is called once in each process; it, the arguments, items and results must be picklable.
    With one job everything is done here, without another process. Raises UserError if the function
    does, or if a process is killed.
    """
    if jobs == 1:
        function = make(*arguments)
        yield lambda items: map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # which would let interrupts through
    pool: list[tuple[SpawnProcess, Connection]] = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make, arguments), daemon=True)
            with _interrupts_blocked():
                process.start()
            theirs.close()
            pool.append((process, ours))
        yield lambda items: _in_order(pool, items)
    finally:
        for _, connection in pool:
            connection.close()
        for process, _ in pool:
            process.terminate()
            process.join()


def _in_order(pool: list[tuple[SpawnProcess, Connection]], items: Iterable[Item]) -> Iterator[Any]:
    given: deque[int] = deque()  # the workers of the items whose results are to come
    for number, item in enumerate(items):
        if len(given) == _AHEAD * len(pool):
            yield _result(*pool[given.popleft()])
        worker = number % len(pool)
        process, connection = pool[worker]
        try:
            connection.send(item)
        except BrokenPipeError:
            _result(process, connection)  # what it said before it ended
            raise
        given.append(worker)
    while given:
        yield _result(*pool[given.popleft()])


def _result(process: SpawnProcess, connection: Connection) -> Any:
    try:
        result = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            raise UserError(
                f"a process of --jobs was killed ({name}), perhaps because memory was short; "
                "try again with fewer --jobs"
            ) from None
        raise RuntimeError("a process has failed; its error is above") from None
    if isinstance(result, UserError):
        raise result
    return result


def _work(
    connection: Connection, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> None:
    """What a worker does: results for items, until its connection is closed."""
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # Items are received by a thread. Otherwise both processes could wait until the other receives.
    threading.Thread(target=_receive, args=(connection, items), daemon=True).start()
    function = make(*arguments)
    while (item := items.get()) is not None:
        try:
            result = function(item)
        except UserError as error:
            result = error
        try:
            connection.send(result)
        except BrokenPipeError:
            return


def _receive(connection: Connection, items: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            items.put(connection.recv())
    except (EOFError, ConnectionResetError):
        items.put(None)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C waits; and processes started here never get it, since this process ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
