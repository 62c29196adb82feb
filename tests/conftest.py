"""What all tests share: one deterministic hypothesis profile, a time limit, and the stand-in array
library."""

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.limits import pytest_configure, pytest_runtest_protocol, pytest_unconfigure
from tests.without_gpu import strict_arrays

__all__ = ["pytest_configure", "pytest_runtest_protocol", "pytest_unconfigure"]

settings.register_profile(
    "npformer",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("npformer")

strict_arrays.register()

# Files that take long, in the order in which they begin, so that two processes end together
# and do not wait for each other to compile the same loops.
FIRST = (
    "system/test_learning.py",
    "without_gpu/test_cupy.py",
    "autograd/test_cuda_compiles.py",
    "autograd/test_cpu.py",
    "autograd/test_cuda.py",
    "autograd/test_loops.py",
    "integration/test_processes.py",
    "integration/test_command_line.py",
    "npformer/test_emulated_training.py",
    "train/test_resuming.py",
    "train/test_watching.py",
    "train/test_ranks_alike.py",
    "train/test_trainer.py",
    "train/test_grammar.py",
    "parity/test_torch_packed.py",
    "page/test_attention.py",
    "page/test_translating.py",
    "page/test_readers.py",
    "autograd/test_cpu_products.py",  # after test_cpu.py, which compiles its loops
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    turns = {folder / name: turn for turn, name in enumerate(FIRST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


def pytest_collection_finish() -> None:
    """What was imported stays: a test that collects garbage need not look through it each time."""
    gc.collect()
    gc.freeze()
