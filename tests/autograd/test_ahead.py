"""Copying ahead, on simulated streams that know which work precedes which."""

import sys
from collections.abc import Iterator

import pytest

from autograd.backend import backend
from autograd.cuda.ahead import ahead
from tests.without_gpu.streams import cupy_with_streams


@pytest.fixture
def cuda(monkeypatch):
    cupy = cupy_with_streams()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy.cuda


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_copy_precedes_its_use_and_follows_the_step_before_the_last(cuda, count):
    compute = cuda.current
    before_copy: dict[int, set[str]] = {}
    waiting: list[int] = []

    def prepare(item: int) -> str:
        assert cuda.current is not compute
        before_copy[item] = cuda.current.record()
        cuda.current.work.append(f"copy {item}")
        waiting.append(item)
        return f"item {item}"

    taken = []
    for i, item in enumerate(ahead(prepare, iter(range(count)))):
        assert cuda.current is compute
        assert item == f"item {i}"
        assert f"copy {i}" in compute.needs
        assert f"copy {i + 1}" not in compute.needs  # the next copy may still be running
        assert waiting == list(range(min(i + 2, count)))  # at most one item ahead
        compute.work.append(f"step {i}")
        taken.append(item)
    assert len(taken) == count
    for i in range(count):  # only these steps can still read memory freed by then
        assert {f"step {k}" for k in range(i - 1)} <= before_copy[i]


def test_numpy_prepares_each_item_on_request():
    made = []
    items = backend("numpy").ahead(lambda x: made.append(x) or x, range(3))
    assert next(items) == 0
    assert made == [0]


@pytest.mark.parametrize("where", ["source", "prepare"])
@pytest.mark.usefixtures("cuda")
def test_items_prepared_before_an_error_are_returned_first(where):
    def source() -> Iterator[int]:
        yield from range(3)
        if where == "source":
            raise OSError("no more")
        yield 3

    def prepare(item: int) -> int:
        if item == 3:
            raise OSError("no more")
        return item

    given, items = [], ahead(prepare, source())
    with pytest.raises(OSError, match="no more"):
        given.extend(items)
    assert given == [0, 1, 2]
