"""A trial: commands that read some files, in a separate process, and the endings accepted."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10
BYTES = 1_000_000_000
_CEILING = 8 * BYTES  # of address space, so that no trial can exhaust the machine


@dataclass(frozen=True)
class Ending:
    """How a trial ended: status (None if killed or too slow), output, time and memory."""

    status: int | None
    output: bytes
    errors: str
    seconds: float
    peak_bytes: int

    @property
    def last_line(self) -> str:
        """The last line on standard error."""
        return self.errors.rstrip("\n").split("\n")[-1]

    def _refused_in_a_line(self) -> bool:
        """Whether the last line is an error of npformer, and the only one."""
        lines = self.errors.split("\n")
        return [t for t in lines if t.startswith("npformer: error: ")] == [self.last_line]

    def fault(self) -> str | None:
        """Why this ending is not accepted, whatever the files held; None if it is."""
        if self.seconds >= SECONDS:
            return f"took {self.seconds:.1f} s"
        if self.peak_bytes > BYTES:
            return f"took {self.peak_bytes / 1e9:.2f} GB"
        if self.status is None:
            return "was killed by a signal"
        if "Traceback" in self.errors:
            return "ended in a traceback"
        if self.status not in (0, 2) or (self.status == 2 and not self._refused_in_a_line()):
            return f"ended with status {self.status} and not with one line"
        return None


def run(commands: Callable[[], int], folder: Path) -> Ending:
    """Run `commands` in a child process, whose output goes to files in `folder`.

    The child is forked, so that nothing is imported again; the parent must have no threads.
    """
    out, err = folder / "out", folder / "err"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_child(commands, out, err)
    status, peak = _awaited(child, started)
    return Ending(
        status,
        out.read_bytes(),
        err.read_text(errors="replace"),
        time.monotonic() - started,
        peak,
    )


def _be_child(commands: Callable[[], int], out: Path, err: Path) -> None:
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_CEILING, _CEILING))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for path, stream in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), stream)
        status = commands()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # without the parent's exit handlers and buffers


def _awaited(child: int, started: float) -> tuple[int | None, int]:
    """The child's status (None if a signal ended it) and its peak memory."""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return (code if code >= 0 else None), usage.ru_maxrss * 1024
        if time.monotonic() - started > SECONDS:
            os.kill(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_maxrss * 1024
        time.sleep(0.005)


def in_turn(main: Callable[[Sequence[str]], int], commands: Sequence[Sequence[str]]) -> int:
    """Run commands one after the other until one fails; returns the status of the last."""
    for words in commands:
        if status := main(words):
            return status
    return 0
