"""Runs tests/gpu and writes the outcome of each test as JSON, updated after every test.

    python -m benchmarks.gpu_tests --out FILE

Most of the time goes to the host, so several processes share the GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import gpu, positive, result_file
from train.machine import machine, versions

MOST_PROCESSES = 10  # each takes a part of the GPU's memory for itself


class Record:
    """A pytest plugin that writes the outcome of every test to a file.

    It gets the outcomes of all processes: they report to the first, and only that one has it.
    """

    def __init__(self, path: Path, processes: int) -> None:
        self.path = path
        self.outcomes: dict[str, str] = {}
        self.about = {"benchmark": "gpu_tests", "backend": "cupy", "processes": processes}
        self.about_machine: dict[str, Any] = {"machine": machine(), "versions": versions()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
            self.write()

    def write(self) -> None:
        names = sorted({*self.outcomes.values()})
        counts = {name: list(self.outcomes.values()).count(name) for name in names}
        not_passed = {k: v for k, v in self.outcomes.items() if v != "passed"}
        result = {**self.about, "counts": counts, "not_passed": not_passed, **self.about_machine}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=result_file, required=True, help="a file for the result")
    parser.add_argument(
        "--processes",
        type=positive,
        default=processes_that_make_sense(),
        help="that share the tests; %(default)s by default",
    )
    options = parser.parse_args()
    gpu(needs_bfloat16=False)  # tests that need it are skipped with a reason
    sys.exit(run("tests/gpu", options.processes, options.out))


def processes_that_make_sense() -> int:
    """As many as there are cores, but not too many; one without pytest-xdist."""
    if importlib.util.find_spec("xdist") is None:
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def run(tests: str, processes: int, out: Path) -> int:
    """Run the tests of a folder in this number of processes; returns pytest's exit status."""
    arguments = [tests, "-q", "-p", "no:cacheprovider"]
    # The tests compare with NumPy and the references: compiling for the CPU would take minutes.
    arguments += ["-p", "benchmarks.without_numba"]
    if processes > 1:
        arguments += ["-n", str(processes)]
    # Choices for the small matrices of tests are not saved for the user.
    with tempfile.TemporaryDirectory(prefix="npformer-choices-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        return pytest.main(arguments, [Record(out, processes)])


if __name__ == "__main__":
    main()
