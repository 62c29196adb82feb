"""The references are enough for the examples' tests: no loops are compiled."""

from collections.abc import Iterator

import pytest

from autograd import references


@pytest.fixture(autouse=True)
def _references() -> Iterator[None]:
    with references():
        yield
