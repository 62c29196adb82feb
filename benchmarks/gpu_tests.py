"""Runs tests/gpu and writes the outcome of each test as JSON, updated after every test.

python -m benchmarks.gpu_tests --out FILE
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import machine
from benchmarks.report import gpu, result_file, versions


class Record:
    """A pytest plugin that writes the outcome of every test to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, str] = {}
        self.about = {"benchmark": "gpu_tests", "backend": "cupy"}
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
    options = parser.parse_args()
    gpu(needs_bfloat16=False)  # tests that need it are skipped with a reason
    # The tests compare with NumPy and the references: compiling for the CPU would take minutes.
    sys.modules["numba"] = None  # type: ignore[assignment]
    # Choices for the small matrices of tests are not saved for the user.
    with tempfile.TemporaryDirectory(prefix="npformer-choices-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        options_of_pytest = ["tests/gpu", "-q", "-p", "no:cacheprovider"]
        sys.exit(pytest.main(options_of_pytest, [Record(options.out)]))


if __name__ == "__main__":
    main()
