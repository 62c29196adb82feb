"""The host's C++ compiler. Its results are cached between runs: see tests/kept.py."""

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

# The same for headers and for their includers, or GCC ignores a precompiled header. Thread-safe
# initialisation of static objects would need C++'s runtime library.
_ALWAYS = ("-std=c++17", "-fPIC", "-fno-threadsafe-statics")

# For a library of kernels. Python has loaded the C library already, and the search for others would
# take the linker longer than all its other work.
KERNELS = ("-shared", "-nostdlib", "kernels.cpp", "-lgcc")


class BuildError(Exception):
    """The compiler refuses a program; the message is the compiler's."""


def compiler() -> list[str] | None:
    """The host's C++ compiler, else that of the package ziglang; None if there is neither."""
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "c++"] if find_spec("ziglang") else None


@functools.cache
def identity() -> tuple[str, ...]:
    """What identifies this compiler and the system that it builds for."""
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
    """Build the file `name` from `texts`, source files by their paths; `options` name some of them.

    `uses` are further options, each with a path: that of an earlier result, or of a folder of a
    package, whose contents are identified by `about`, the package's version.
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

    # An earlier result is in a folder that is named by a checksum of its sources.
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
    """A header to include first, with its precompiled form beside it where the compiler is GCC.

    Clang's precompiled header contains the path of the folder where it was built, so it does not
    work in the cache.
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
