"""Where the user's caches are."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for the user's caches (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "npformer"
    except RuntimeError:  # a user without a home: keeping fails there, with a warning
        return Path(os.devnull) / "npformer"
