"""The wheel and the source distribution, built, looked into, installed and used.

    python -m tests.packages  # or: make packages

Each is installed into a fresh environment of each Python that the project is for and that is found
on this machine (on the path, or in ~/.pyenv/versions); at least one must be. Everywhere the same
model, the demonstration's if there is one, must translate to the same lines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
DEMO = ROOT / "runs/demo/model"

PACKAGES = ("autograd", "npformer", "train")
CONTENT = (".py", ".cu", ".cuh", ".yaml", ".html", ".css", ".js", ".svg")
# What else a wheel is made of.
SOURCES = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg"}

TEXT = "the old dog sees a small house .\nthe children sleep .\n"


class PackageError(Exception):
    """What is wrong with a package, in a line or a few."""


def main() -> None:
    pythons = find_pythons()
    with tempfile.TemporaryDirectory(prefix="npformer-packages-") as name:
        folder = Path(name)
        wheel, source = build(folder)
        check_files(wheel, source)
        files = [(python, file) for python in pythons.values() for file in (wheel, source)]
        homes = [folder / f"environment-{i}" for i in range(len(files))]
        with ThreadPoolExecutor(2) as two_at_a_time:
            list(two_at_a_time.map(lambda home, found: install(home, *found), homes, files))
        model = DEMO
        if not model.exists():
            model = train_a_little(homes[0], folder)
        outcomes = {translate(home, model, folder) for home in homes}
    if len(outcomes) != 1 or "" in outcomes:
        raise PackageError(f"translations differ from environment to environment: {outcomes}")
    print(f"{wheel.name} and {source.name} translate on Python {', '.join(pythons)}")


def find_pythons() -> dict[str, str]:
    """The interpreters to try, by their versions; a line says which are missing."""
    found = {}
    for version in PYTHONS:
        homes = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*"))
        names = [shutil.which(f"python{version}"), *(str(h / "bin/python") for h in homes)]
        for name in filter(None, names):
            if version_of(name) == version:
                found[version] = name
                break
    if missing := [version for version in PYTHONS if version not in found]:
        print(f"not tried, since they are not on this machine: Python {', '.join(missing)}")
    if not found:
        raise PackageError(f"none of Python {', '.join(PYTHONS)} is on this machine")
    return found


def version_of(python: str) -> str:
    """3.12, say; empty where it does not start, as what pyenv puts on the path may not."""
    code = "import sys, venv; print(*sys.version_info[:2], sep='.')"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel, which is built of the source distribution's files alone, and the latter."""
    out = folder / "dist"
    run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], folder)
    [wheel], [source] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def check_files(wheel: Path, source: Path) -> None:
    """All files of the packages are in both, and nothing but them and what describes them."""
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in CONTENT
    }
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(source) as archive:
        in_source = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    about = {
        name for name in in_source if name == "PKG-INFO" or name.startswith("npformer.egg-info/")
    }
    for file, found, wanted in (
        (wheel, in_wheel, expected),
        (source, in_source - about, expected | SOURCES),
    ):
        if missing := sorted(wanted - found):
            raise PackageError(f"{file.name} has no {', '.join(missing)}")
        if more := sorted(found - wanted):
            raise PackageError(f"{file.name} has {', '.join(more)}, which nobody needs there")


def install(home: Path, python: str, file: Path) -> None:
    """A fresh environment with the package and what it requires."""
    run([python, "-m", "venv", "--without-pip", str(home)], home.parent)
    pip = [sys.executable, "-m", "pip", "--python", program(home, "python")]
    run([*pip, "install", "--quiet", "--no-compile", str(file)], home.parent)


def program(home: Path, name: str) -> str:
    return str(home / ("Scripts" if os.name == "nt" else "bin") / name)


def train_a_little(home: Path, folder: Path) -> Path:
    """A model that has learned hardly anything, made by what is installed."""
    (folder / "text").write_text(TEXT * 20, encoding="utf-8")
    npformer = program(home, "npformer")
    text = [f"--{part}-{side}=text" for part in ("train", "valid") for side in ("source", "target")]
    run([npformer, "prepare", *text, "--vocab-size=280", "--out=corpus"], folder)
    size = [f"--model.{name}={n}" for name, n in (("layers", 1), ("d_model", 32), ("heads", 2))]
    length = [
        "--max-steps=300",
        "--batch-tokens=400",
        "--schedule=inverse_sqrt",
        "--warmup=30",
        "--peak-rate=0.01",
    ]
    run([npformer, "train", "--data=corpus", "--out=run", *size, *length], folder)
    return folder / "run"


def translate(home: Path, model: Path, folder: Path) -> str:
    """What the installed program makes of TEXT."""
    lines = run([program(home, "npformer"), "translate", "--model", str(model)], folder, TEXT)
    if len(lines.splitlines()) != len(TEXT.splitlines()):
        raise PackageError(f"{home.name} translates {TEXT!r} to {lines!r}")
    return lines


def run(command: Sequence[str], folder: Path, text: str = "") -> str:
    """What a program prints; it runs outside the tree, so that it finds what is installed alone."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise PackageError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except PackageError as error:
        sys.exit(f"packages: {error}")
