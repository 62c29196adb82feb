"""A lock on a run's directory, so that a single process trains in it.

The system releases it when the process ends, in whatever way, so that no old lock can be left.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

from npformer.errors import UserError
from npformer.locks import lock_or_raise

_TRIES, _PAUSE = 5, 0.02  # to lock; seconds between two


class RunLock:
    """The lock in the file `path`, which says who holds it: process id and host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, unless this object has it. Raises UserError if another process has it.

        Where the file system has no locks, there is a warning, and nothing is locked.
        """
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            _lock_patiently(descriptor)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise self._taken(holder) from error
        except OSError as error:
            warnings.warn(
                f"{self.path} cannot be locked ({error.strerror}): see to it that no other process "
                "trains in the same directory",
                stacklevel=2,
            )
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk: others are refused all the same
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())

    def check_free(self) -> None:
        """Raise UserError if another process has the lock, as far as that can be known."""
        if self._descriptor is not None:
            return
        with suppress(OSError):
            if holder := training_process(self.path):
                raise self._taken(holder)

    def _taken(self, holder: str) -> UserError:
        return UserError(
            f"{holder} is training in {self.path.parent.parent}; wait for its end, or stop it, or "
            "give another --out"
        )

    def check_place(self) -> None:
        """Raise UserError if the run that was locked is no longer at its path.

        It was moved or removed, and another run may have come there, whose files are not ours.
        """
        if self._descriptor is None:
            return
        try:
            is_there = os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            is_there = self.path.parent.is_dir()  # somebody has deleted the lock alone
        if not is_there:
            run = self.path.parent.parent
            raise UserError(
                f"{run} was moved, removed or replaced while the run was going on, and is no "
                "longer written to; the run goes on with --resume and its new --out"
            )

    def release(self) -> None:
        """Release the lock, if this object has it. The file stays: others may be opening it."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.truncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _lock_patiently(descriptor: int) -> None:
    """Lock a file, also if `training_process` tries its lock at this very moment."""
    for _ in range(_TRIES - 1):
        try:
            lock_or_raise(descriptor)
            return
        except BlockingIOError:
            time.sleep(_PAUSE)
    lock_or_raise(descriptor)


def training_process(path: Path) -> str | None:
    """Who holds the lock in the file `path`, as "process 12 on host"; None if nobody does.

    The lock itself is tried only where its file names a process, for whoever tries it has it for a
    moment, in which another process could not begin. Raises OSError if it cannot be known: the file
    cannot be read, or the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:  # nobody has trained here yet
        return None
    try:
        if not os.fstat(descriptor).st_size:
            return None
        lock_or_raise(descriptor)
    except BlockingIOError:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    """Who holds the lock, as the file says."""
    text = os.read(descriptor, 300).decode(errors="replace")
    process, _, host = text.rstrip("\n").partition(" ")
    if not (process.isdecimal() and host.isprintable()):
        return "another process"
    return f"process {process} on {host}"
