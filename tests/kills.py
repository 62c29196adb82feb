"""Programs that are killed between any two changes of files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime")


def kills_itself_at(number: int, work: Callable[[], object]) -> bool:
    """Whether a child is killed right before it changes a file for the `number`-th time."""
    child = os.fork()
    if child == 0:
        left = number

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal left
            if event in CHANGES or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(watch)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL
