"""Directories written whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from npformer.errors import UserError
from npformer.files import keep_permissions, sync_directory
from npformer.locks import lock_or_raise


def check_not_a_file(path: str | os.PathLike[str], what: str) -> None:
    """Raise UserError if no directory can be at `path`: it is a file, or below one.

    what: what the directory is for.
    """
    absolute = Path(os.path.abspath(path))
    for place in (absolute, *absolute.parents):
        if place.is_dir():
            return
        if place.exists():
            raise UserError(f"{place} is a file; give a directory for {what}")


@contextmanager
def whole_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new directory to fill, which replaces `path` when the `with` block ends.

    It is filled under a hidden name beside `path` and then renamed into place, with the mode of the
    directory that it replaces. If the block raises, the old directory stays and nothing else does.
    A kill leaves the old one or the new one under the name, and perhaps the other as `.name.*.tmp`,
    which the next call removes; it knows by a lock that no process is filling it.

    Where the system cannot exchange two names at once (Linux can, on most file systems), the old
    directory is renamed out of the way first. Then a kill between the two renames leaves it as
    `.name.*.old`, from where it can be renamed back; see `set_aside`.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    with _new_directory_beside(target) as aside:
        try:
            yield aside
            sync_directory(aside)
            _rename_over(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # the old directory now, or what is not whole


def set_aside(path: str | os.PathLike[str]) -> Path | None:
    """The old directory that a kill between two renames has left, if there is none at `path`."""
    target = Path(os.path.realpath(path))
    found = [] if target.exists() else _beside(target, "old")
    return max(found, key=os.path.getmtime, default=None)


def how_to_restore(path: str | os.PathLike[str]) -> str:
    """How to restore a missing directory, for a message, after a semicolon; empty if lost."""
    old = set_aside(path)
    return "" if old is None else f"; an interrupted replacement left it: rename {old} to {path}"


def _beside(target: Path, suffix: str) -> list[Path]:
    """The directories that `whole_directory` has left beside `target`."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.{suffix}")
    if not target.parent.is_dir():
        return []
    return [
        path
        for path in target.parent.iterdir()
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]


@contextmanager
def _new_directory_beside(target: Path) -> Iterator[Path]:
    """A new hidden directory beside `target`, locked as long as the `with` block runs."""
    with ExitStack() as stack:
        while True:
            aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            aside.mkdir()
            if os.name != "posix":  # elsewhere a directory cannot be opened
                break
            opened = os.open(aside, os.O_RDONLY)
            stack.callback(os.close, opened)
            try:
                lock_or_raise(opened)
            except BlockingIOError:
                continue  # another process is removing it
            except OSError:
                break  # there are no locks here, and nobody removes it either
            if os.fstat(opened).st_nlink:  # it has not been removed before it was locked
                break
        yield aside


def _remove_leftovers(target: Path) -> None:
    """Remove the directories beside `target` that no process is filling any more."""
    if os.name != "posix":
        return
    for path in [*_beside(target, "tmp"), *(_beside(target, "old") if target.exists() else [])]:
        with suppress(OSError), ExitStack() as stack:
            opened = os.open(path, os.O_RDONLY)
            stack.callback(os.close, opened)
            lock_or_raise(opened)
            shutil.rmtree(path, ignore_errors=True)


def _rename_over(new: Path, target: Path) -> None:
    """Rename a directory to `target`. A directory that was there may get the name of `new`."""
    if os.name == "posix":
        handle = os.open(new, os.O_RDONLY)
        try:
            keep_permissions(target, handle)
        finally:
            os.close(handle)
    if not target.exists() or not any(target.iterdir()):
        os.rename(new, target)
        sync_directory(target.parent)
        return
    if not _exchange(new, target):
        old = new.with_suffix(".old")
        try:
            os.rename(target, old)
            os.rename(new, target)
        except BaseException:
            if not target.exists():
                os.rename(old, target)
            raise
        os.rename(old, new)
    sync_directory(target.parent)  # before the old one is gone


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two directories at once. Returns False if the system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):  # the file system, or the kernel, cannot
        return False
    raise OSError(number, os.strerror(number), str(other))


_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
