"""A test that hangs ends, wherever it hangs, and the others go on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIRST

ROOT = Path(__file__).parents[1]

BEFORE = """
import ctypes, time
import pytest

from tests.limits import *

@pytest.fixture
def slow():
    time.sleep(600)
"""

HANGS = {
    "in Python": "def test_it():\n    time.sleep(600)\n",
    "in a fixture": "def test_it(slow):\n    pass\n",
    "in compiled code": "def test_it():\n    ctypes.CDLL(None).sleep(600)\n",
    "with Python's lock": "def test_it():\n    ctypes.PyDLL(None).sleep(600)\n",
}


def pytest_on(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(BEFORE)
    (folder / "test_hang.py").write_text(f"import ctypes, pytest, time\n{text}")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="ctypes finds sleep in the C library of POSIX")
@pytest.mark.parametrize("text", HANGS.values(), ids=HANGS)
def test_a_test_that_hangs_is_ended(tmp_path, text):
    done = pytest_on(tmp_path, f"@pytest.mark.limit(0.5)\n{text}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Timeout (0:00:00.5" in done.stderr
    assert str(tmp_path) in done.stderr  # and where it was


def test_the_others_go_on_in_another_process(tmp_path):
    text = f"def test_one(): pass\n@pytest.mark.limit(0.5)\n{HANGS['in Python']}"
    done = pytest_on(tmp_path, f"{text}def test_two(): pass\n", "-n", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_hang.py::test_it" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


def test_a_test_in_time_is_not_ended(tmp_path):
    text = "@pytest.mark.limit(1)\ndef test_it(): pass\ndef test_two(): time.sleep(1.5)\n"
    done = pytest_on(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_begin_first_are_there():
    assert [name for name in FIRST if not (ROOT / "tests" / name).is_file()] == []
