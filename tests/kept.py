"""A cache on disk for slow builds that depend only on their inputs.

    folder = kept(("a library", compiler, flags, source), make)  # make(folder) fills it, once

The folders are in the user's cache, named by a hash of the inputs, so clones and processes share
them. If several processes ask for the same one at once, one makes it and the others wait.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from autograd.cache_folder import cache_folder
from autograd.lock import locked

LIMIT = 512 * 2**20  # bytes; the least recently used go first
IN_USE = 3600  # seconds: what was asked for since then may be about to be opened


def kept(ingredients: Sequence[object], make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills for these ingredients, now or in an earlier run.

    Ingredients are compared by their `repr`, which must determine the content. If `make` raises,
    nothing is kept.
    """
    root = home()
    key = hashlib.sha256(repr(tuple(ingredients)).encode()).hexdigest()[:32]
    folder = root / key
    with locked(root / f"{key[:2]}.lock"):
        if not folder.exists():
            aside = Path(tempfile.mkdtemp(prefix="making-", dir=root))
            try:
                make(aside)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            forget(root)
        os.utime(folder)
    return folder


@functools.cache
def home() -> Path:
    """The cache's folder; one of this process alone if the user's cache cannot be written."""
    wanted = cache_folder() / "tests"
    with contextlib.suppress(OSError):
        wanted.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=wanted).close()
        return wanted
    made = tempfile.mkdtemp(prefix="npformer-tests-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def forget(root: Path, limit: int = LIMIT) -> None:
    """Remove the least recently used folders, and those that a killed process left unfinished."""
    oldest = time.time() - IN_USE
    used: list[tuple[float, int, Path]] = []
    for folder in root.iterdir():
        with contextlib.suppress(OSError):  # another process has just removed it
            if folder.is_dir():
                size = sum(file.stat().st_size for file in folder.rglob("*"))
                used.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in used)
    for when, size, folder in sorted(used):
        if when < oldest and (total > limit or folder.name.startswith("making-")):
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
