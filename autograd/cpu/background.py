"""Loops that nobody waits for at once, such as those of the gradients of weights.

    finish = begin(loop, count, *arguments)
    ...
    finish()

A thread takes their tasks when it would have nothing to do: while Python runs between two loops, or
while others have the last tasks of a loop. What they compute does not depend on that.

There is room for a few of them. Where none is left, and where there is but one thread, a loop runs
at once, as its arguments may still be in a cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from autograd.cpu import pool
from autograd.cpu.commands import Loop, running_record
from autograd.cpu.loops import compiled, out_of_memory, watch
from autograd.cpu.pool import COMMAND_FAILED, NOBODY, Slot


def begin(loop: Loop, count: int, *arguments: Any) -> Callable[[], None]:
    """Run a loop in the background, or at once. Returns what waits until all of it is done.

    Until then its arrays must not change. What waits raises MemoryError if a task lacked memory.
    """
    can_be_shared = 1 < count <= pool.MOST_TASKS and pool.threads() > 1
    address = pool.address(watch) if can_be_shared else 0
    if address and running_record() is None:
        with _claiming:
            slot = next((s for s in pool.background() if s.is_done), None)
            if slot is not None:
                return _Work(loop, count, arguments, slot, address).finish
    loop(count, *arguments)
    return _nothing


def _nothing() -> None:
    """There is nothing to wait for."""


class _Work:
    """A loop in a slot. It keeps the arrays until all tasks are done, whether anybody waits or not.

    The slot is claimed; what used it before is done.
    """

    def __init__(
        self, loop: Loop, count: int, arguments: tuple[Any, ...], slot: Slot, address: int
    ) -> None:
        self._loop, self._slot, self._pool = loop, slot, address
        self._arguments: tuple[Any, ...] | None = arguments
        self._has_failed = False
        if slot.work is not None:
            slot.work.close()  # which reads the command that is written next
        slot.work = self
        command = slot.command.ctypes.data
        loop.compiled(NOBODY, command, count, *arguments)  # type: ignore[attr-defined]
        _publish(slot.address, command)

    def finish(self) -> None:
        """Do what is left, and wait for tasks that others have."""
        if self._arguments is not None:
            _finish(self._pool, self._slot.address)
            with _claiming:
                self.close()
        if self._has_failed:
            raise out_of_memory(self._loop)

    def close(self) -> None:
        """Give up the arrays. All tasks are done; nobody else claims the slot meanwhile."""
        if self._arguments is not None:
            self._has_failed = bool(self._slot.command[COMMAND_FAILED])
            self._arguments = None


@compiled
def _publish(slot, command):
    pool.publish(slot, command)


@compiled
def _finish(address, slot):
    pool.finish(address, slot)


_claiming = threading.Lock()


def _forget_the_lock() -> None:
    """In a child process, no other thread has it."""
    global _claiming
    _claiming = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_lock)
