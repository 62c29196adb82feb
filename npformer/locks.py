"""Locks between processes, on files and directories, which end with the process that holds them."""

from __future__ import annotations

import os

_BEYOND = 1 << 30  # Windows forbids others to read what is locked: a byte after the text


def lock_or_raise(descriptor: int) -> None:
    """Lock an open file or directory until it is closed.

    Raises BlockingIOError if another has locked it, and OSError if there are no locks here.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
