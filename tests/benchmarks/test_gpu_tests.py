"""benchmarks/gpu_tests.py records every outcome, in however many processes the tests run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_tests import MOST_PROCESSES, processes_that_make_sense

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os
from pathlib import Path

import pytest

@pytest.mark.parametrize("i", range(6))
def test_without_numba(i):
    with pytest.raises(ImportError):
        import numba
    Path(__file__).with_name(f"ran in {os.getpid()}").touch()

def test_it_fails():
    raise AssertionError

def test_it_is_skipped():
    pytest.skip("there is nothing to test")
"""
CRASH = """
def test_it_ends_its_process():
    os._exit(1)
"""
RUN = """
import sys
from pathlib import Path
from benchmarks.gpu_tests import run
sys.exit(run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.parametrize("processes", [1, 3])
def test_outcomes_are_recorded(tmp_path: Path, processes: int) -> None:
    if processes > 1:
        pytest.importorskip("xdist", reason="several processes need pytest-xdist")
    tests, out = tmp_path / "tests", tmp_path / "result.json"
    tests.mkdir()
    (tests / "test_some.py").write_text(TESTS + (CRASH if processes > 1 else ""))
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tests), str(processes), str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    result = json.loads(out.read_text())
    outcomes = {name.partition("::")[2]: what for name, what in result["not_passed"].items()}
    crashed = {"test_it_ends_its_process": "failed"} if processes > 1 else {}
    assert outcomes == {"test_it_fails": "failed", "test_it_is_skipped": "skipped", **crashed}
    assert result["counts"] == {"failed": 1 + len(crashed), "passed": 6, "skipped": 1}
    assert result["processes"] == processes
    ran_in = [path for path in tests.iterdir() if path.name.startswith("ran in ")]
    assert (len(ran_in) > 1) == (processes > 1)


def test_the_default_number_of_processes_is_bounded() -> None:
    assert 1 <= processes_that_make_sense() <= min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
