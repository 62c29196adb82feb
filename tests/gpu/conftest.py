"""Tests on a real GPU, through CuPy; without one they are skipped, with the reason."""

from pathlib import Path

import pytest

from autograd import BackendError
from autograd.backend import backend

HERE = Path(__file__).parent


def reason_to_skip() -> str:
    try:
        backend("cupy")
    except BackendError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := reason_to_skip():
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason=reason))
