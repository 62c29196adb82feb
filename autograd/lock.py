"""A lock between processes, for what is made once and kept on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one thread of one process at a time into the `with`; the others wait.

    Without effect where the system has no such locks, or the file `path` cannot be created.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield
