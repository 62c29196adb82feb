"""The package index has another package called autograd; whoever got that one is told so."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def error_of_importing_npformer(first: Path) -> str:
    """What Python says where a folder stands before npformer's own on the path."""
    done = subprocess.run(
        [sys.executable, "-c", "import npformer"],
        cwd=first,
        env={**os.environ, "PYTHONPATH": f"{first}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.rstrip("\n").split("\n")[-1]


def test_another_autograd_is_named_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "autograd"
    folder.mkdir()
    (folder / "__init__.py").write_text("def grad(f): ...\n")
    message = error_of_importing_npformer(tmp_path)
    assert message.startswith("ImportError: npformer brings a package autograd of its own")
    assert str(folder) in message
    assert "new environment" in message


def test_so_is_a_module_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "autograd.py").write_text("def grad(f): ...\n")
    message = error_of_importing_npformer(tmp_path)
    assert message.startswith("ImportError: npformer brings a package autograd of its own")
    assert str(tmp_path) in message
