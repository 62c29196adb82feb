"""Which files of a directory a program has made itself, so that it removes no others."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.reading import JSON_LIMIT, parse_json, read_plain


def record_own(directory: Path, mark: Path, places: Sequence[str]) -> None:
    """Write into the file `mark` what lies at `places` in `directory`: each file's SHA-256."""
    found = {
        _name(directory, path): _digest(path)
        for path in _files(directory, places)
        if _is_plain(path)
    }
    with atomic_write(mark) as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")


def remove_own(directory: Path, mark: Path, places: Sequence[str]) -> None:
    """Empty `places` in `directory` of the files that `record_own` has recorded.

    Raises UserError, and removes nothing, where a file there is not recorded, or is not what it
    was: it is somebody's work.
    """
    recorded = _recorded(mark)
    files = list(_files(directory, places))
    for path in files:
        if not _is_plain(path) or recorded.get(_name(directory, path)) != _digest(path):
            raise UserError(
                f"{path} is no file that npformer left there, or has changed since; move it away, "
                "or give another directory"
            )
    for path in files:
        path.unlink()
    for place in places:
        for folder, _, _ in os.walk(directory / place, topdown=False):
            os.rmdir(folder)


def _recorded(mark: Path) -> dict[str, str]:
    content = read_plain(mark, JSON_LIMIT)
    recorded = parse_json(content, mark) if content else {}  # empty: nothing was made yet
    if not isinstance(recorded, dict):
        raise UserError(f"{mark} holds no list of files; delete its directory, or give another")
    return recorded


def _files(directory: Path, places: Sequence[str]) -> Iterator[Path]:
    """All that is no folder at these places and below."""
    for place in places:
        top = directory / place
        if top.is_symlink() or top.is_file():
            yield top
        for folder, folders, names in os.walk(top):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            yield from (Path(folder) / name for name in sorted([*names, *links]))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _name(directory: Path, path: Path) -> str:
    return path.relative_to(directory).as_posix()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
