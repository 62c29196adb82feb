"""Keeps track of the files that a program has made in a directory, so that it removes only those.

A file in the directory, the mark, lists them. At every moment, even if the process is killed, each
file that was made is listed in the mark with its checksum, or is in the work directory that the
mark names:

    {"work": ".npformer-0123456789abcdef", "files": {"run/model.safetensors": SHA-256, ...}}
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from npformer.directories import check_not_a_file
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.locks import lock_or_raise
from npformer.reading import JSON_LIMIT, parse_json, read_plain

_WORK = re.compile(r"\.npformer-[0-9a-f]{16}")


@contextmanager
def replaced(directory: Path, mark: str, places: Sequence[str]) -> Iterator[OwnFiles]:
    """Make room for new files at `places` in `directory`, in place of those that its mark lists.

    The files that the block makes in `work` are put in place at the end, even if it raises.
    Raises UserError, and removes nothing, if the directory holds files but no mark, if a file at
    `places` is not listed or has been changed (it may be the user's work), and if another process
    is using the directory.
    """
    check_not_a_file(directory, "new files")
    directory.mkdir(parents=True, exist_ok=True)
    with only_one_in(directory):
        own = OwnFiles(directory, mark, places)
        if own.work.exists():
            shutil.rmtree(own.work)
        own.work.mkdir()
        try:
            yield own
        finally:
            own.put_in_place()
            shutil.rmtree(own.work)


class OwnFiles:
    """A program's files at `places` in `directory`, listed in the file that is called `mark`.

    They are made below `work`, under the same names, and then `put_in_place`.
    """

    def __init__(self, directory: Path, mark: str, places: Sequence[str]) -> None:
        self.directory, self.mark, self.places = directory, directory / mark, places
        if not os.path.lexists(self.mark):
            if any(directory.iterdir()):
                raise UserError(
                    f"{directory} is not empty and holds no demonstration; give another --out"
                )
            self.mark.touch()  # from now on the work directory is known, even after a kill
        for folder in {(directory / place).parent for place in places}:
            if os.path.lexists(folder) and not folder.is_dir():
                raise UserError(f"{folder} is not a directory; move it away, or give another --out")
        work, recorded = _recorded(self.mark)
        if work is not None and (directory / work).is_symlink():
            raise UserError(f"{directory / work} is a link, which npformer never made; delete it")
        self._remove(recorded)
        if work is None:
            work = f".npformer-{secrets.token_hex(8)}"
            self.mark.write_text(json.dumps({"work": work, "files": {}}))
        self.work = directory / work
        self._files: dict[str, str] = {}

    def put_in_place(self) -> None:
        """Move the files in `work` to their places.

        Raises UserError if something has been put there in the meantime.
        """
        for path in _files(self.work, self.places):
            self._files[path.relative_to(self.work).as_posix()] = _digest(path)
        self._record()  # first, because a file that is not listed counts as the user's
        for place in self.places:
            source, target = self.work / place, self.directory / place
            if not source.exists():
                continue
            if os.path.lexists(target):
                raise UserError(
                    f"{target} has appeared meanwhile; move it away, or take the new files out of "
                    f"{self.work}, which the next demonstration deletes"
                )
            target.parent.mkdir(exist_ok=True)
            source.rename(target)

    def _record(self) -> None:
        new = self.work / self.mark.name  # where files that a kill leaves will be removed
        with atomic_write(new) as file:
            said = {"work": self.work.name, "files": self._files}
            file.write(json.dumps(said, indent=1).encode() + b"\n")
        new.replace(self.mark)

    def _remove(self, recorded: dict[str, Any]) -> None:
        """Remove the files of an earlier run. Raises UserError if they may be the user's work."""
        files = list(_files(self.directory, self.places))
        for path in files:
            name = path.relative_to(self.directory).as_posix()
            if not _is_plain(path) or recorded.get(name) != _digest(path):
                raise UserError(
                    f"{path} was not written by npformer, or has changed since; move it away, or "
                    "give another directory"
                )
        for path in files:
            path.unlink()
        for place in self.places:
            for folder, _, _ in os.walk(self.directory / place, topdown=False):
                os.rmdir(folder)


def _recorded(mark: Path) -> tuple[str | None, dict[str, Any]]:
    """The name of the work directory and the checksums of the files in a mark."""
    try:
        content = read_plain(mark, JSON_LIMIT)
    except OSError as error:
        raise UserError(f"cannot read {mark}: {error.strerror}") from error
    if not content:
        return None, {}  # nothing has been made yet
    said = parse_json(content, mark)
    if isinstance(said, dict):
        work, files = said.get("work"), said.get("files")
        # What the mark names will be deleted, so it must be a name that this module makes.
        if isinstance(work, str) and _WORK.fullmatch(work) and isinstance(files, dict):
            return work, files
    raise UserError(
        f"{mark} holds no list of files that this npformer made; move what you want to keep out of "
        f"{mark.parent}, and delete it, or give another --out"
    )


@contextmanager
def only_one_in(directory: Path) -> Iterator[None]:
    """Refuse a second process in the same directory, if the system has file locks."""
    with ExitStack() as stack:
        try:
            opened = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, opened)
            lock_or_raise(opened)
        except BlockingIOError as error:
            raise UserError(
                f"another process is working in {directory}; wait for it, or give another directory"
            ) from error
        except OSError:  # no locks here, or a system that does not open directories
            pass
        yield


def _files(directory: Path, places: Sequence[str]) -> Iterator[Path]:
    """Everything but folders at these places and below. Raises OSError if one is unreadable."""

    def refused(error: OSError) -> None:
        raise error

    for place in places:
        top = directory / place
        if not os.path.lexists(top):
            continue
        if top.is_symlink() or not top.is_dir():
            yield top
            continue
        for folder, folders, names in os.walk(top, onerror=refused):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            yield from (Path(folder) / name for name in sorted([*names, *links]))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
