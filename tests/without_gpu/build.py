"""The host's C++ compiler, which builds each thing once: see tests/kept.py."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.kept import home, kept

# Of headers and of what includes them, or GCC would not take its own form of a header. Locks around
# the making of static objects would need C++'s library.
_ALWAYS = ("-std=c++17", "-fPIC", "-fno-threadsafe-statics")

# Makes a library of kernels. Python has the C library: to look for others, C++'s among them, takes
# the linker longer than all that it does besides.
KERNELS = ("-shared", "-nostdlib", "kernels.cpp", "-lgcc")


class BuildError(Exception):
    """What the compiler says of a program that it does not take."""


def compiler() -> list[str] | None:
    """The host's C++ compiler, else the one that the package ziglang carries; None without."""
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "c++"] if find_spec("ziglang") else None


@functools.cache
def identity() -> tuple[str, ...]:
    """What tells this compiler, and the system it builds for, from others."""
    found = compiler()
    assert found, "no C++ compiler"
    said = subprocess.run([*found, "--version"], capture_output=True, text=True, check=True)
    return (Path(found[-1]).name, said.stdout, platform.machine(), *platform.libc_ver())


def built(
    name: str,
    texts: Mapping[str, str],
    options: Sequence[str],
    uses: Sequence[tuple[str, Path]] = (),
    about: str = "",
) -> Path:
    """The file `name`, built by options that name some of `texts`, the files the compiler finds.

    `uses` are further options with a path each, of what was built here before, or of a folder for
    whose content `about` stands: the version of the package that brings it.
    """

    def build(folder: Path) -> None:
        _write(folder, texts)
        found = compiler()
        assert found
        paths = [part for option, path in uses for part in (option, str(path)) if part]
        done = subprocess.run(
            [*found, *_ALWAYS, *options, *paths, "-o", name],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(f"{name} could not be built:\n{done.stderr[-4000:]}")

    # What was built before lies in a folder that is named by its own ingredients.
    known = [
        (option, str(path.relative_to(home())) if path.is_relative_to(home()) else path.name)
        for option, path in uses
    ]
    form = (*_ALWAYS, *options)
    ingredients = (name, identity(), sorted(texts.items()), form, known, about)
    return kept(ingredients, build) / name


def precompiled(
    header: str,
    texts: Mapping[str, str],
    options: Sequence[str],
    uses: Sequence[tuple[str, Path]] = (),
    about: str = "",
) -> Path:
    """A header to include first, and beside it the compiler's own form of it, for GCC.

    Clang's names the folder that it was made in, which is another one then.
    """
    if "clang" in identity()[1]:
        ingredients = (header, sorted(texts.items()))
        return kept(ingredients, lambda folder: _write(folder, texts)) / header
    form = [*options, "-x", "c++-header", header]
    return built(f"{header}.gch", texts, form, uses, about).with_suffix("")


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
