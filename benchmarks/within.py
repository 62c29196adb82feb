"""Runs a command that is to end by a given time.

    python -m benchmarks.within DEADLINE COMMAND ...

DEADLINE: seconds since 1970, as `date +%s` prints them; 0 is none. When it has come the command is
interrupted, as by Ctrl-C, and after a few seconds killed with all processes that it has started.
Benchmarks save their results as they come, so what was measured until then is there. Says what was
not measured, or not to its end; the exit status is then 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

_GRACE = 10.0  # seconds between the two signals


def run(deadline: float, command: Sequence[str]) -> int:
    """The exit status of the command, or 1 if it had no time to end by itself."""
    left = deadline - time.time()
    what = " ".join(command)
    if deadline and left <= 0:
        print(f"not measured, for the time is over: {what}", file=sys.stderr)
        return 1
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(left if deadline else None)
    except subprocess.TimeoutExpired:
        print(f"not measured to its end, for the time is over: {what}", file=sys.stderr)
        return 1
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
