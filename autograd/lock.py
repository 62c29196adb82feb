"""One process at a time, for what is made once and kept on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process, and one thread of it, into the `with` at a time; the others wait.

    That is as far as the system has such locks, and the file `path` can be made to lock.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield
