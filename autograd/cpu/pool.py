"""The threads that run the loops: one for each processor, including the calling thread.

A step has hundreds of short loops, and waking threads for each would cost more than it gains (some
200 µs on a virtual machine). So an idle thread spins for about a millisecond, waiting for the next
loop, before it sleeps. For the same reason there is only this one pool: matrix products run on it
too (autograd.cpu.products), not on a library's threads.

A thread that has nothing to do meanwhile, between loops or because the last tasks of a loop are
with others, takes tasks of loops *in the background*, for which nobody waits (background.py).

A loop is a function of the number of a task. All threads take tasks until none is left, so that
uneven tasks or a busy processor do not hold up the others: the calling thread the first ones, the
others the last, so that loop after loop has the same rows in a thread's cache. How many are left,
and how many were taken from the end, share one machine word, the *ticket*, so that none is taken
twice.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from autograd.cpu.pieces import instructions

# The words of a loop's *slot*, 128 bytes apart: processors fetch cache lines in pairs.
_LINE = 16
TICKET, TASK, ARGUMENTS, SIZE, FINISHED = (i * _LINE for i in range(5))
SLOT_WORDS = 5 * _LINE

# The first slot has the loop that a thread waits for, the others loops in the background.
SLOTS = 1 + 2
BUSY = SLOTS * SLOT_WORDS  # the word that says whether the first slot is taken
_WORDS = BUSY + _LINE

# A loop with its arguments is a *command*. Its words are the address of the task, the number of
# tasks, its own size in bytes, whether a task has failed, how many commands its *chain* has, itself
# included, and the packed arguments. The commands of a chain have the same tasks: `play` runs them
# all for one task, then for another, and threads wait for each other only at its end (chains.py).
COMMAND_TASK, COMMAND_COUNT, COMMAND_BYTES, COMMAND_FAILED = range(4)
COMMAND_CHAIN, COMMAND_ARGUMENTS = 4, 5
MOST_BYTES = 4096  # of a command
MOST_TASKS = (1 << 32) - 1  # in half of a ticket; one thread runs loops that have more
NOBODY = -1  # in place of a pool's address: a command is written down, and not run

run_tasks, play, publish = instructions("pool", "run_tasks", "play", "publish")
serve, finish = instructions("slots", "serve", "finish")


class Slot:
    """Where the threads find a loop in the background; background.py says who may use it.

    Attributes:
        address: of its words
        command: memory for the command
        work: what has used it last
    """

    def __init__(self, words: np.ndarray) -> None:
        """words: SLOT_WORDS of the pool's memory."""
        self._words = words
        self.address = words.ctypes.data
        self.command = np.zeros(MOST_BYTES // 8, np.int64)
        self.work: Any = None

    @property
    def is_done(self) -> bool:
        """Whether all tasks of its loop have ended."""
        return bool(self._words[FINISHED] == self._words[SIZE])


class Pool:
    """The threads besides the calling one, and the memory that they share with it.

    `watch` is the compiled `serve`: a thread calls it with the pool's address, and sleeps when it
    returns. If the system cannot start `threads` threads, there are fewer.
    """

    def __init__(self, threads: int, watch: Callable[[int], None]) -> None:
        memory = np.zeros(_WORDS + _LINE, np.int64)
        first = -memory.ctypes.data % (8 * _LINE) // 8
        self._words = memory[first : first + _WORDS]
        self.address = self._words.ctypes.data
        starts = range(SLOT_WORDS, BUSY, SLOT_WORDS)
        self.background = [Slot(self._words[i : i + SLOT_WORDS]) for i in starts]
        self._watch = watch
        self._closing = False
        self._helpers: dict[threading.Thread, threading.Lock] = {}
        self.asleep: list[threading.Lock] = []  # of threads that sleep or are about to
        for _ in range(1, threads):
            alarm = threading.Lock()
            alarm.acquire()
            helper = threading.Thread(target=self._help, args=(alarm,), name="loops", daemon=True)
            try:
                helper.start()
            except RuntimeError:
                break
            self._helpers[helper] = alarm
        atexit.register(self.close)

    def _help(self, alarm: threading.Lock) -> None:
        while not self._closing:
            self._watch(self.address)
            self.asleep.append(alarm)
            # Look once more, so as not to miss a loop that began before the alarm was listed.
            self._watch(self.address)
            alarm.acquire()

    def wake(self) -> None:
        """Make sleeping threads look for tasks again.

        A thread is removed from the list only after its alarm, so that none is forgotten if a
        signal or another thread interferes. A superfluous alarm does no harm.
        """
        while self.asleep:
            with suppress(IndexError, ValueError):
                alarm = self.asleep[-1]
                _ring(alarm)
                self.asleep.remove(alarm)

    def close(self) -> None:
        """End the threads: the interpreter must not exit while they run compiled code."""
        self._closing = True
        for helper, alarm in self._helpers.items():
            _ring(alarm)
            helper.join()


def _ring(alarm: threading.Lock) -> None:
    with suppress(RuntimeError):  # it rings already
        alarm.release()


_pool: Pool | None = None
_creation = threading.Lock()


def _forget_the_pool() -> None:
    """A child process does not inherit threads, so it must create a new pool."""
    global _pool, _creation
    if _pool is not None:
        atexit.unregister(_pool.close)
    _pool, _creation = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_pool)


@cache
def threads() -> int:
    """How many threads share a loop: NUMBA_NUM_THREADS, by default one for each processor."""
    chosen = os.environ.get("NUMBA_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def address(watch: Callable[[int], None]) -> int:
    """The address of the process's pool, awake. The first call creates it, with `watch`."""
    global _pool
    if _pool is None:
        with _creation:
            if _pool is None:
                _pool = Pool(threads(), watch)
    _pool.wake()
    return _pool.address


def background() -> list[Slot]:
    """Where the process's pool, if there is one, finds loops in the background."""
    return [] if _pool is None else _pool.background
