"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from npformer.errors import UserError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; the file appears under its name when it is complete.

    The bytes go to a file beside it, which is flushed to the disk and renamed into place when the
    `with` block ends. A reader finds the old file or the new one, after a crash too. If the block
    raises, the old file stays and nothing else does. Raises UserError where the file cannot be
    written (no such directory, no permission, a full disk).
    """
    path = Path(path)
    # Random, so that two processes that write the same file do not write into each other's.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(aside, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
            sync_directory(path.parent)
        finally:
            aside.unlink(missing_ok=True)  # already gone if it was renamed
    except OSError as error:
        # Writing to an open file gives errors without a name; any other name is the caller's own.
        if error.filename is None or str(error.filename) in map(str, (aside, path, path.parent)):
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        raise


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Flush the names in `directory` to the disk, so that a rename in it survives a power cut."""
    if os.name == "posix":  # elsewhere a directory cannot be opened
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
