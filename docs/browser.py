"""A real browser, and a service for it to look at: Debian's chromium, driven by playwright.

Both must be on the machine; nothing is downloaded. See `docs/screenshots.py` and `tests/page`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from docs.source import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def missing() -> str | None:
    """What is not here of all that is needed; None if nothing is missing."""
    needed = ("playwright", "starlette", "uvicorn", "h11", "prometheus_client")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} is not installed (the extras browser and serve)"
    return None if _chromium() else "there is no chromium that starts on this machine"


@cache
def _chromium() -> str | None:
    """The first that starts: on some systems the name belongs to a script that only says no."""
    for path in filter(None, map(shutil.which, _NAMES)):
        said = subprocess.run([path, "--version"], capture_output=True, check=False)
        if said.returncode == 0:
            return path
    return None


@contextmanager
def browser() -> Iterator[Browser]:
    """The browser, without a window."""
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox refuses root, and containers often have no room in /dev/shm.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if as_root else [])]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=_chromium(), args=flags)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[str]:
    """The address of a service of a model directory, which ends with the block."""
    command = [sys.executable, "-m", "train", "serve", f"--model={model}", "--port=0", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield _address(process.stderr)
        finally:
            process.terminate()


def _address(lines: IO[str]) -> str:
    said = []
    for line in lines:
        if found := re.search(r"http://\S+", line):
            return found[0]
        said.append(line)
    raise RuntimeError("the service did not start:\n" + "".join(said))
