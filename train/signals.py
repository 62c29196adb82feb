"""Signals that stop a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """A signal has stopped a command. Its text is a sentence for the user.

    status: the exit status, 128 and the number of the signal, as shells have it.
    agreed: whether all ranks raise it at the same place
    """

    def __init__(self, number: int, sentence: str = "", agreed: bool = False) -> None:
        super().__init__(sentence or f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number
        self.agreed = agreed


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """A handler that raises Stopped, so that nothing unfinished is left."""
    raise Stopped(number)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler that ends the process, while nothing is begun that could be left unfinished.

    What it would raise while modules are imported, some would take for their own failure, and
    Python drops what is raised in a callback.
    """
    stopped = Stopped(number)
    say_at_once(str(stopped))
    os._exit(stopped.status)


def say_at_once(line: str) -> None:
    """Print a line on standard error from a signal handler, which may interrupt another print."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


def handle_by(handler: Handler) -> dict[signal.Signals, Any]:
    """Handle the signals that stop a command from now on. Returns what has handled them before.

    Signals that whoever started the program has chosen to ignore stay ignored. Only the main thread
    can handle signals; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number in STOPPING
        if signal.getsignal(number) != signal.SIG_IGN
    }


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Handle the signals that stop a command in the `with` block, as `handle_by` does."""
    before = handle_by(handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
