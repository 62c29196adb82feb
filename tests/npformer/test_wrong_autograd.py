"""Another package called autograd, imported in the place of npformer's, gives a clear error."""

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import sys\nfrom train.__main__ import main\nsys.exit(main())\n"


def with_first(first: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a folder before npformer's on the path."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=first,
        env={**os.environ, "PYTHONPATH": f"{first}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def put(folder: Path, kind: str) -> Path:
    """Write another autograd, which cannot be run."""
    path = folder / ("autograd.py" if kind == "module" else "autograd/__init__.py")
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise RuntimeError('this is not to be run')\n")
    if kind == "compiled":
        compiled = py_compile.compile(str(path), str(path.with_suffix(".pyc")))
        path.unlink()
        return Path(compiled)
    if kind == "no text":
        path.write_bytes(b"\xff\xfe\x00")
    return path


@pytest.mark.parametrize("kind", ["package", "module", "compiled", "no text"])
@pytest.mark.parametrize("name", ["npformer", "npformer.beam_search", "train", "train.adam"])
def test_every_import_names_the_path_of_the_other_package(
    tmp_path: Path, kind: str, name: str
) -> None:
    other = put(tmp_path, kind)
    done = with_first(tmp_path, "-c", f"import {name}")
    assert done.returncode == 1
    last = done.stderr.rstrip("\n").split("\n")[-1]
    assert last.startswith("ImportError: npformer needs its own package autograd")
    assert str(other) in last
    assert "new environment" in last


@pytest.mark.parametrize("entry", ["-m", "npformer"])
def test_commands_report_it_in_one_line(tmp_path: Path, entry: str) -> None:
    other = put(tmp_path, "package")
    script = tmp_path / "npformer"
    script.write_text(SCRIPT)
    done = with_first(tmp_path, *(["-m", "train"] if entry == "-m" else [str(script)]), "--help")
    assert done.returncode == 2
    assert done.stderr.startswith("npformer: error: npformer needs its own package autograd")
    assert str(other) in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_distribution_of_the_other_package_is_named(tmp_path: Path) -> None:
    put(tmp_path, "package")
    dist_info = tmp_path / "other_grad-1.0.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-grad\nVersion: 1.0\n")
    (dist_info / "RECORD").write_text("autograd/__init__.py,,\nother_grad-1.0.dist-info/RECORD,,\n")
    done = with_first(tmp_path, "-m", "train")
    assert "of the distribution other-grad" in done.stderr
    assert "new environment without other-grad" in done.stderr
