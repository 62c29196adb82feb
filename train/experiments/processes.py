"""Parts of an experiment that are measured at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

from autograd.backend import BackendError
from autograd.cuda.opening import choose_gpu, gpu_count
from npformer.errors import UserError
from train.corpora.workers import let_through, signals_blocked
from train.experiments.measurements import Measurements, Tell
from train.processors import cores
from train.wording import duration

Task = Callable[[Tell], Any]
"""Measures a part, and tells how far it is. It is pickled, and so is what it returns."""

_THREADS = (
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


def usable_jobs(backend: str) -> int:
    """How many processes find a place: one for each processor, or for each GPU."""
    return gpu_count() if backend == "cupy" else cores()


def all_in_processes(
    found: Measurements,
    tasks: Mapping[str, Task],
    costs: Mapping[str, float],
    jobs: int,
    backend: str,
    clean_up: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """The parts of these names; those that `found` lacks are measured, `jobs` at a time.

    costs: of each part in relation to the others, for the time that is left
    clean_up: is called with the name of each part that is kept

    With one job all is done here. Raises UserError if a task does, or if a process is killed: then
    the parts that are done are kept, and those that were not are measured by the next run.
    """
    lacking = {name: task for name, task in tasks.items() if found.kept(name) is None}
    for name in tasks:
        if name not in lacking:
            clean_up(name)
    began, done = time.monotonic(), 0.0
    measure = _one_by_one if jobs == 1 else _at_once
    for name, value, seconds in measure(lacking, jobs, backend, found.tell):
        found.keep(name, value, seconds)
        clean_up(name)
        done += costs[name]
        rest = sum(costs[n] for n in lacking if found.kept(n) is None)
        if rest:
            left = duration((time.monotonic() - began) / done * rest)
            count = sum(found.kept(n) is not None for n in tasks)
            found.tell(f"{count} of {len(tasks)} done, about {left} left")
    return {name: found.of(name, lambda: None) for name in tasks}


_Done = Iterator[tuple[str, Any, float]]  # a name, its value, and its share of the time


def _one_by_one(tasks: Mapping[str, Task], jobs: int, backend: str, tell: Tell) -> _Done:
    for name, task in tasks.items():
        began = time.monotonic()
        value = task(tell)
        yield name, value, time.monotonic() - began


class _Running(NamedTuple):
    name: str
    process: SpawnProcess
    place: int
    began: float


def _at_once(tasks: Mapping[str, Task], jobs: int, backend: str, tell: Tell) -> _Done:
    waiting, places = deque(tasks.items()), deque(range(jobs))
    running: dict[Connection, _Running] = {}
    resource_tracker.ensure_running()  # a process that it is started with has signals blocked
    try:
        while waiting or running:
            while waiting and places:
                name, task = waiting.popleft()
                place = places.popleft()
                connection, process = _start(task, place, jobs, backend)
                running[connection] = _Running(name, process, place, time.monotonic())
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                name, process, place, began = running[ready]
                message = _received(ready, name, process)
                if isinstance(message, str):
                    tell(message)
                    continue
                del running[ready]
                places.append(place)
                process.join()
                yield name, message[0], (time.monotonic() - began) / jobs
    finally:
        for left in running.values():
            left.process.kill()
            left.process.join()


def _received(connection: Connection, name: str, process: SpawnProcess) -> Any:
    """What a process tells, or in a tuple what it has measured."""
    try:
        message = connection.recv()
    except (EOFError, OSError):  # it has ended, perhaps while it was sending
        process.join()
        if process.exitcode is not None and process.exitcode < 0:
            killed = signal.Signals(-process.exitcode).name
            raise UserError(
                f"the process of {name} was killed ({killed}), perhaps because memory was short; "
                "what is done is kept: run the command again, perhaps with fewer --jobs"
            ) from None
        raise RuntimeError(f"the process of {name} has failed; its error is above") from None
    if isinstance(message, Exception):
        raise message
    return message


def _start(task: Task, place: int, jobs: int, backend: str) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    gpu = place if backend == "cupy" else None
    process = context.Process(target=_work, args=(theirs, gpu, task), daemon=True)
    with signals_blocked(), _threads(max(1, cores() // jobs)):
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Processes that are started here compute with so many threads, unless the user has said."""
    told = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(told, str(number)))
    try:
        yield
    finally:
        for name in told:
            del os.environ[name]


def _work(connection: Connection, gpu: int | None, task: Task) -> None:
    """What a process does: one task."""
    let_through(signal.SIGTERM)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if gpu is not None:
            choose_gpu(gpu % gpu_count())
        message: Any = (task(connection.send),)
    except (UserError, BackendError, MemoryError, OSError) as error:
        message = error
    connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
