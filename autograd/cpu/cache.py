"""Machine code on disk: a file for each function and each combination of kinds of arguments.

All files are in one folder, whose name is a digest of what the code depends on: the sources of this
package, the versions of what compiles them, and the processor. So nothing in it is ever stale. The
folder is in NUMBA_CACHE_DIR if that is set, else beside the sources, or among the user's caches.
Of folders that are not used any more only the latest are kept.

A file has a checksum, as machine code that is damaged must not run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import platform
import secrets
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autograd import int8
from autograd.cache_folder import cache_folder
from autograd.lock import locked
from autograd.ops.large.norm import EPSILON
from autograd.ops.large.packed_attention import EVERYWHERE, HEAD_COLUMNS

log = logging.getLogger("autograd")

_FORMAT = b"npformer loop 1\n"
_PREFIX = "npformer-loops-"
_LOCK = ".lock"
_KEPT = 8  # folders

# Constants from elsewhere in autograd that are compiled into loops.
NUMBERS = {
    "EVERYWHERE": EVERYWHERE,
    "HEAD_COLUMNS": HEAD_COLUMNS,
    "EPSILON": EPSILON,
    "LARGEST": int8.LARGEST,
    "LEAST": int8.LEAST,
    "TERMS": int8.TERMS,
    "PANEL": int8.PANEL,
    "COLUMNS": int8.PANEL,
}

# Settings of numba that do not change what it compiles.
_OTHER_SETTINGS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}


class Code(NamedTuple):
    """Machine code of a function: an object file.

    entry: the symbol of what is called; needs: those that it calls, and that are not in it.
    """

    entry: str
    needs: list[str]
    object: bytes


class Cache:
    """Machine code in the first of some folders that has it, and that can be written."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        for folder in folders:
            with suppress(OSError):
                os.utime(folder)  # it is used

    @property
    def is_filled(self) -> bool:
        """Whether something has been compiled here before."""
        return any(x.suffix != _LOCK for folder in self._folders for x in folder.glob("*"))

    def read(self, name: str, about: str) -> Code | None:
        """The code of this name, or None if there is none about the same, or it is damaged."""
        for folder in self._folders:
            with suppress(OSError):
                found = _parsed((folder / name).read_bytes(), about)
                if found is not None:
                    return found
                log.debug("%s is damaged, or of other loops", folder / name)
        return None

    def write(self, name: str, about: str, code: Code) -> None:
        """Keep code, if there is a folder for it."""
        head = json.dumps({"about": about, "entry": code.entry, "needs": code.needs})
        content = head.encode() + b"\n" + code.object
        content = _FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        for folder in self._folders:
            try:
                _make(folder)
                _put(folder / name, content)
            except OSError as error:  # such as a full disk: the code can be used anyway
                log.debug("cannot cache a compiled loop: %s", error)
            else:
                return

    def compiling(self, name: str) -> AbstractContextManager[None]:
        """Let one process at a time compile what has this name; the others wait."""
        for folder in self._folders:
            with suppress(OSError):
                _make(folder)
                if os.access(folder, os.W_OK):
                    return locked(folder / (name + _LOCK))
        return nullcontext()


def _parsed(content: bytes, about: str) -> Code | None:
    start = len(_FORMAT) + 64 + 1
    checksum, content = content[:start], content[start:]
    if checksum != _FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n":
        return None
    head, code = content.split(b"\n", 1)
    said = json.loads(head)
    return Code(said["entry"], said["needs"], code) if said["about"] == about else None


def _make(folder: Path) -> None:
    """Make a folder. If it is new, remove those that have not been used for longest."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    others = [x for x in folder.parent.glob(f"{_PREFIX}*") if x != folder]
    with suppress(OSError):
        others.sort(key=lambda x: x.stat().st_mtime)
        for old in others[: -(_KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)


def _put(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@cache
def opened() -> Cache:
    """The cache of this process."""
    own = os.environ.get("NUMBA_CACHE_DIR")
    parents = [Path(own)] if own else [Path(__file__).parent / "__pycache__", cache_folder()]
    return Cache([parent / (_PREFIX + _key()) for parent in parents])


def _key() -> str:
    """What all code depends on, as a digest."""
    import llvmlite
    from llvmlite import binding

    settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in _OTHER_SETTINGS
    }
    parts = (
        fingerprint(),
        numba_version(),
        llvmlite.__version__,
        np.__version__,
        sys.version,
        (object.__basicsize__, tuple.__basicsize__),
        (platform.system(), platform.machine()),
        binding.get_host_cpu_name(),
        sorted(binding.get_host_cpu_features().items()),
        sorted(settings.items()),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def fingerprint() -> str:
    """A digest of all source files of this package: a loop contains functions of several."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    parts = [source.read_bytes() for source in sources] + [repr(NUMBERS).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@cache
def numba_version() -> str:
    """The file that says which numba is installed, which is not imported for this."""
    found = importlib.util.find_spec("numba")
    for folder in (found and found.submodule_search_locations) or []:
        with suppress(OSError):
            return Path(folder, "_version.py").read_text()
    return ""
