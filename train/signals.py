"""Signals that stop a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Handle the signals that stop a command in the `with` block.

    Signals that whoever started the program has chosen to ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    before = {
        number: signal.signal(number, handler)
        for number in STOPPING
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
