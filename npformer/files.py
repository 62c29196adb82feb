"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from npformer.errors import UnwritableError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; the file appears under its name when it is complete.

    The bytes go to a file beside it, which is flushed to the disk and renamed into place when the
    `with` block ends. A reader finds the old file or the new one, after a crash too. If the block
    raises, the old file stays and nothing else does. A file that is replaced keeps its mode, and
    its owner where that is allowed; a symbolic link stays, and the file that it leads to is
    replaced.

    A device, a named pipe, or a file that this process has open (/dev/stdout, /dev/fd/3) cannot be
    replaced, and is written to directly. Raises UnwritableError if `path` cannot be written (no
    such directory, a directory in its place, no permission, a full disk).
    """
    path = Path(path)
    own = {str(path)}  # errors that name other files are the caller's
    try:
        if (stream := _opened_stream(path)) is not None:
            with stream:
                yield stream
            return
        target = Path(os.path.realpath(path))
        # Random, so that two processes that write the same file do not share a temporary file.
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        own |= {str(target), str(target.parent), str(aside)}
        try:
            with open(aside, "xb") as file:
                keep_permissions(target, file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
            sync_directory(target.parent)
        finally:
            aside.unlink(missing_ok=True)  # already gone if it was renamed
    except OSError as error:
        # Errors from writing to an open file have no name.
        if error.filename is None or str(error.filename) in own:
            raise UnwritableError(f"cannot write {path}: {error.strerror}") from error
        raise


def unfinished(directory: Path, is_ours: Callable[[str], object]) -> list[Path]:
    """Files of `atomic_write` in `directory` that killed processes left unfinished.

    is_ours: whether a file of this name is meant. To remove what is left, make sure that no
    process is writing there.
    """
    return [
        path
        for path in directory.glob(".*.tmp")
        if (found := _ASIDE.fullmatch(path.name)) and is_ours(found[1]) and path.is_file()
    ]


_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


def _opened_stream(path: Path) -> BinaryIO | None:
    """`path` open for writing, if it cannot be replaced; None if it can."""
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        # A duplicate shares the position of the original. A file opened by name would be
        # overwritten from its beginning.
        return open(os.dup(descriptor), "wb")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISFIFO(mode):
        # Without a reader, an error at once instead of waiting forever.
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(pipe, True)
        return open(pipe, "wb")
    return open(path, "wb")  # raises where it is a directory


def _own_descriptor(path: Path) -> int | None:
    """The file descriptor that `path` names, as /dev/stdout names 1; None if it names none."""
    for _ in range(40):  # as many links as Linux follows
        if not path.is_symlink():
            return None
        folder = os.path.realpath(path.parent)
        if folder == os.path.realpath("/dev/fd") and path.name.isdecimal():
            return int(path.name)
        path = Path(folder, os.readlink(path))
    return None


def keep_permissions(target: Path, descriptor: int) -> None:
    """Give an open file or directory that will replace `target` its mode, and its owner if allowed.

    If the group cannot be kept, the new group gets no permissions.
    """
    try:
        old = target.stat()
    except FileNotFoundError:
        return  # a new file has the default permissions
    if os.name == "posix":
        for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
            with suppress(PermissionError):
                os.fchown(descriptor, owner, group)
        same_group = os.fstat(descriptor).st_gid == old.st_gid
        mode = stat.S_IMODE(old.st_mode) & (0o777 if same_group else 0o707)
        os.fchmod(descriptor, mode)


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Flush the names in `directory` to the disk, so that a rename in it survives a power cut.

    File systems that cannot (some of those in a network) keep names in their own way.
    """
    if os.name == "posix":  # elsewhere a directory cannot be opened
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def sync_file(path: str | os.PathLike[str]) -> None:
    """Flush a file that was appended to, if it is there, and its name to the disk.

    Raises UnwritableError on a full one.
    """
    try:
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
        sync_directory(Path(path).parent)  # the file may be new
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror}") from error
