"""The choices that were measured to be fastest, on disk, so that later runs repeat them.

Two ways to compute a product rarely give the same bits, and timings vary from run to run. So the
first process that measures decides for all later ones. A run keeps the choices that it was trained
with, so that it resumes with them whatever becomes of the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path

_VERSION = "npformer choice 2"  # the first line of a file; those of version 1 had no checksum


class Choices:
    """Choices by purpose, in a folder for all runs, and copied to one that a single run has.

    `about` says what the choices are valid for: the device and the versions of its libraries. A
    file that is damaged, foreign or of another version, or whose choice is not `is_name`, counts
    for nothing, and the next choice replaces it.
    """

    def __init__(
        self, folder: Path, about: str, is_name: Callable[[str], bool] = lambda name: True
    ) -> None:
        self._about, self._is_name = about, is_name
        self._folders: dict[str, _Folder] = {}
        self._for_all = self._folder(
            str(folder), "set XDG_CACHE_HOME to a folder that can be written"
        )

    def get(self, purpose: str, of_run: str | None = None) -> str | None:
        """The choice for this purpose, by any process, or None.

        of_run: the folder of a run, whose own choices come first.
        """
        if of_run is None:
            return self._for_all.get(purpose)
        own = self._own(of_run)
        found = own.get(purpose)
        if found is None and (found := self._for_all.get(purpose)) is not None:
            found = own.keep(purpose, found) or found
        return found

    def keep(self, purpose: str, chosen: str, of_run: str | None = None) -> str | None:
        """Choose, unless another process has. Returns the choice, or None if it cannot be kept."""
        decided = self._for_all.keep(purpose, chosen)
        if of_run is None:
            return decided
        return self._own(of_run).keep(purpose, decided or chosen) or decided

    def can_keep(self, of_run: str | None = None) -> bool:
        """Whether there is a folder that can be written, as far as is known."""
        return self._for_all.can_keep or (of_run is not None and self._own(of_run).can_keep)

    def _own(self, of_run: str) -> _Folder:
        return self._folder(of_run, "a resumed run may compute in another way")

    def _folder(self, path: str, advice: str) -> _Folder:
        if path not in self._folders:
            self._folders[path] = _Folder(Path(path), self._about, self._is_name, advice)
        return self._folders[path]


class _Folder:
    """Choices with a file for each, as several processes may choose at a time.

    If the folder cannot be written, nothing is kept: there is one warning, and `can_keep` is False
    from then on.
    """

    def __init__(
        self, folder: Path, about: str, is_name: Callable[[str], bool], advice: str
    ) -> None:
        self._folder, self._about, self._is_name = folder, about, is_name
        self._advice = advice
        self._known: dict[str, str] = {}
        self.can_keep = True

    def get(self, purpose: str) -> str | None:
        if purpose not in self._known:
            try:
                text = self._path(purpose).read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                return None
            lines = text.split("\n")
            chosen = lines[3] if len(lines) > 3 else ""  # all other lines follow from this one
            if text != self._text(purpose, chosen) or not self._is_name(chosen):
                return None
            self._known[purpose] = chosen
        return self._known[purpose]

    def keep(self, purpose: str, chosen: str) -> str | None:
        path = self._path(purpose)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(aside, "xb") as file:
                file.write(self._text(purpose, chosen).encode())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(aside, path)  # fails if there is a file by now
            except FileExistsError:
                if (decided := self.get(purpose)) is not None:
                    return decided
                os.replace(aside, path)  # the file is damaged
            finally:
                aside.unlink(missing_ok=True)
            self._sync()  # the steps to come depend on the choice, after a power cut too
        except OSError as error:
            self.can_keep = False
            warnings.warn(
                f"cannot keep what was found to be fast in {self._folder} ({error}); "
                f"{self._advice}",
                stacklevel=2,
            )
            return None
        self._known[purpose] = chosen
        return chosen

    def _text(self, purpose: str, chosen: str) -> str:
        """The file of a choice."""
        lines = "".join(f"{line}\n" for line in (_VERSION, self._about, purpose, chosen))
        return f"{lines}sha256 {hashlib.sha256(lines.encode()).hexdigest()}\n"

    def _sync(self) -> None:
        """Flush the names in the folder to the disk."""
        if os.name == "posix":  # elsewhere a directory cannot be opened
            handle = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _path(self, purpose: str) -> Path:
        name = hashlib.sha256(f"{self._about}\n{purpose}".encode()).hexdigest()[:24]
        return self._folder / name
