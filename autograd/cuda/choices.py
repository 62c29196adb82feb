"""What was found to be fastest, kept from run to run, so that a run repeats what the first one did.

Two ways to compute a product seldom give the same bits, and which one is faster is decided by a
clock. So whoever measures first decides for all who come after.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Where a user's caches belong (the XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "npformer"
    except RuntimeError:  # a user without a home: nothing can be kept there, and that is said
        return Path(os.devnull) / "npformer"


class Choices:
    """Names of choices, by what they are for; a file each, for processes may choose side by side.

    `about` says what choices hold for: the device, the versions of its libraries. What is not
    `is_name`, in a file that was damaged, was never chosen. A folder that cannot be written keeps
    nothing: one warning says so, and `can_keep` is False from then on.
    """

    def __init__(
        self, folder: Path, about: str, is_name: Callable[[str], bool] = lambda name: True
    ) -> None:
        self._folder, self._about, self._is_name = folder, about, is_name
        self._known: dict[str, str] = {}
        self.can_keep = True

    def get(self, purpose: str) -> str | None:
        """What was chosen for this purpose, by anyone."""
        if purpose not in self._known:
            try:
                text = self._path(purpose).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                return None
            lines = text.splitlines()
            is_ours = len(lines) == 3 and lines[:2] == [self._about, purpose]
            if not is_ours or not self._is_name(lines[2]):
                return None
            self._known[purpose] = lines[2]
        return self._known[purpose]

    def keep(self, purpose: str, chosen: str) -> str | None:
        """Decide, unless someone has; returns what holds, None where nothing can be kept."""
        path = self._path(purpose)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            aside.write_text(f"{self._about}\n{purpose}\n{chosen}\n", encoding="utf-8")
            try:
                os.link(aside, path)  # fails where there is one by now
            except FileExistsError:
                if (decided := self.get(purpose)) is not None:
                    return decided
                os.replace(aside, path)  # what is there cannot be read
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            self.can_keep = False
            warnings.warn(
                f"cannot keep what was found to be fast in {self._folder} ({error}); set "
                "XDG_CACHE_HOME to a folder that can be written",
                stacklevel=2,
            )
            return None
        self._known[purpose] = chosen
        return chosen

    def _path(self, purpose: str) -> Path:
        name = hashlib.sha256(f"{self._about}\n{purpose}".encode()).hexdigest()[:24]
        return self._folder / name
