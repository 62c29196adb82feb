"""Processes that work on a stream of items, whose results come in the order of the items.

A worker has the next item while it works on one, so that it never waits, and no more, so that
memory stays bounded. Workers are started anew instead of forked: a fork of a process with threads
may hang, and not every system can. They end when this process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from npformer.errors import UserError
from train.signals import STOPPING

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # items that a worker has at a time


@dataclass
class _Worker:
    """A process, the connection to it, and how many results it owes."""

    process: SpawnProcess
    connection: Connection
    owed: int = 0


@contextmanager
def workers(
    make: Callable[..., Callable[[Item], Result]], arguments: tuple[Any, ...], jobs: int
) -> Iterator[Callable[[Iterable[Item]], Iterator[Result]]]:
    """A function that applies `make(*arguments)` to items in `jobs` processes, in order.

    `make` is called once in each process; it, the arguments, items and results must be picklable.
    With one job everything is done here, without another process. One stream of items is worked on
    at a time; what an unfinished one has left is dropped when the next one begins. Raises UserError
    if the function does, or if a process is killed.
    """
    if jobs == 1:
        function = make(*arguments)
        yield lambda items: map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # which would let interrupts through
    pool: list[_Worker] = []
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            with signals_blocked():
                process.start()
                pool.append(_Worker(process, ours))
            theirs.close()
        for worker in pool:  # while all of them are starting
            _send(worker, (make, arguments))
        yield lambda items: _in_order(pool, items)
    finally:
        for worker in pool:
            worker.connection.close()
        for worker in pool:
            worker.process.kill()
            worker.process.join()


def _in_order(pool: list[_Worker], items: Iterable[Item]) -> Iterator[Any]:
    for worker in pool:
        while worker.owed:
            _result(worker)
    given: deque[_Worker] = deque()  # those whose results are to come, the next one first
    for number, item in enumerate(items):
        if len(given) == _AHEAD * len(pool):
            yield _result(given.popleft())
        given.append(pool[number % len(pool)])
        given[-1].owed += 1
        _send(given[-1], item)
    while given:
        yield _result(given.popleft())


def _send(worker: _Worker, item: object) -> None:
    """Send something to a worker. Raises the same as `_result` if it has ended."""
    try:
        worker.connection.send(item)
    except BrokenPipeError:
        while True:
            _result(worker)  # what it sent before it ended


def _result(worker: _Worker) -> Any:
    process = worker.process
    try:
        result = worker.connection.recv()
    except (EOFError, OSError):  # it has ended, perhaps while it was sending
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            raise UserError(
                f"a process of --jobs was killed ({name}), perhaps because memory was short; "
                "try again with fewer --jobs"
            ) from None
        raise RuntimeError("a process has failed; its error is above") from None
    worker.owed -= 1
    if isinstance(result, UserError):
        raise result
    return result


def _work(connection: Connection) -> None:
    """What a worker does: results for items, until its connection is closed."""
    let_through(signal.SIGTERM)
    try:
        make, arguments = connection.recv()
    except (EOFError, OSError):  # the process that started this one has ended
        return
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
    except (EOFError, OSError):
        items.put(None)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Signals that stop a command wait, so that they find no process half started.

    The processes that are started here inherit that, and never get the Ctrl-C of a terminal: it is
    for this process, which ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through(number: signal.Signals) -> None:
    """Let a signal stop this process that was started with `signals_blocked`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
