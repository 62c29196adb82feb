"""The real CuPy without a GPU: the tests of tests/gpu that are small enough to be emulated.

They run in separate processes, because the GPU must be replaced before CuPy is imported.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.without_gpu import cupy

ROOT = Path(__file__).parents[2]
# tests/autograd/test_cuda*.py compare kernels with their references; these test the rest.
PARTS = {
    "refusals of the stand-in": ["tests/without_gpu/cupy/checks.py"],
    "every reference": ["tests/gpu/test_operations.py"],
    "training": [
        "tests/gpu/test_kernels.py::test_embedding_agrees_with_its_reference",
        "tests/gpu/test_kernels.py::test_attention_may_use_more_than_the_default_shared_memory",
        "tests/gpu/test_training.py::test_twenty_steps_in_float32_match_numpys",
        "tests/gpu/test_training.py::test_parts_of_ones_own_train_in_bfloat16",
        "tests/gpu/test_training.py::test_gradients_of_the_whole_model_match_float64",
        "tests/gpu/test_training.py::test_results_gradients_and_moments_of_a_step_are_float32",
        "tests/gpu/test_training.py::test_a_resumed_run_computes_its_products_as_it_began_to",
        "tests/gpu/test_nccl.py::test_a_rank_that_is_alone_gets_its_own_numbers[bf16]",
        "tests/gpu/test_nccl.py::test_arrays_are_summed_and_copied_in_order",
    ],
    "recording": ["tests/gpu/test_recording.py", "tests/gpu/test_frozen.py"],
    "recorded searches": ["tests/gpu/test_recorded_search.py"],
    "translating": [
        "tests/gpu/test_memory.py",
        "tests/gpu/test_modules.py",
        "tests/gpu/test_translation.py::test_float32_gives_numpys_translations[1]",
    ],
}

REASON = cupy.reason_to_skip()
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.limit(600)]


class Part(NamedTuple):
    """Tests that run in one separate process."""

    process: subprocess.Popen[bytes]
    output: Path
    report: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Part]]:
    """All parts at once: most of the time each waits for a compiler, on one core."""
    folder = tmp_path_factory.mktemp("cupy")
    environment = {**os.environ, cupy.FOLDER: str(folder)}
    parts = {}
    for name, tests in PARTS.items():
        output, report = folder / f"{name}.txt", folder / f"{name}.xml"
        command = [sys.executable, "-m", "tests.without_gpu.cupy", *tests, f"--junit-xml={report}"]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*command, "-q", "-p", "no:cacheprovider"],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        parts[name] = Part(process, output, report)
    yield parts
    for part in parts.values():
        part.process.kill()


@pytest.mark.parametrize("name", PARTS)
def test_cupy_runs_without_a_gpu(running, name):
    part = running[name]
    status, printed = part.process.wait(), part.output.read_text()[-8000:]
    assert status == 0, printed
    (suite,) = ElementTree.parse(part.report).getroot()
    assert int(suite.attrib["tests"]) > 0
    assert int(suite.attrib["skipped"]) == 0, printed
