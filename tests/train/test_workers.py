"""Worker processes on a stream: results in order, bounded memory, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import copy
from itertools import count, islice
from pathlib import Path

import pytest

import train
from npformer.errors import UserError
from train.corpora.workers import workers


def make(number: int) -> Callable[[int], tuple[int, int]]:
    """A function for the tests, as a process makes it."""

    def work(item: int) -> tuple[int, int]:
        if item == -1:
            raise UserError("no such item")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == -3:
            raise ZeroDivisionError
        if item % 3 == 0:
            time.sleep(0.002)
        return item * number, os.getpid()

    return work


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_in_the_order_of_the_items(jobs: int) -> None:
    with workers(make, (7,), jobs) as work:
        for items in (50, 0, 1, 4):  # the same processes several times
            results = list(work(range(items)))
            assert [result for result, _ in results] == [7 * i for i in range(items)]
            if items == 50:
                assert len({pid for _, pid in results}) == jobs
                assert (os.getpid() in {pid for _, pid in results}) == (jobs == 1)


def test_items_and_results_may_be_larger_than_a_pipes_buffer() -> None:
    large = list(range(200_000))
    with workers(_repeat, (), 2) as work:
        for result in work([large] * 10):
            assert result == large


def _repeat() -> Callable[[list[int]], list[int]]:
    return lambda item: item


def test_items_are_read_as_they_are_needed() -> None:
    numbers = count()
    with workers(make, (1,), 2) as work:
        for given, _ in enumerate(islice(work(numbers), 30), start=1):
            taken = next(copy(numbers))
            assert taken <= given + 2 * 2


def test_what_an_unfinished_stream_has_left_is_dropped() -> None:
    with workers(make, (1,), 2) as work:
        unfinished = work(range(100, 200))
        assert next(unfinished)[0] == 100
        assert [result for result, _ in work(range(5))] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("item", "error", "word"),
    [
        (-1, UserError, "no such item"),
        (-2, UserError, r"killed \(SIGKILL\).*fewer --jobs"),
        (-3, RuntimeError, "its error is above"),
    ],
)
def test_an_error_in_a_worker_is_raised_in_the_caller(
    item: int, error: type[Exception], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with workers(make, (1,), 2) as work, pytest.raises(error, match=word):
        list(work([1, 2, item, 3, 4, 5, 6]))
    if item == -3:
        assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_cannot_be_made_is_an_error(jobs: int) -> None:
    error: type[Exception] = TypeError if jobs == 1 else RuntimeError
    with pytest.raises(error), workers(make, (), jobs) as work:
        list(work(range(100_000)))


def test_workers_end_if_their_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, signal
from tests.train.test_workers import make
from train.corpora.workers import workers
if __name__ == "__main__":
    with workers(make, (1,), 2) as work:
        with open({str(tmp_path / "pids")!r}, "w") as file:
            print(*{{pid for _, pid in work(range(8))}}, file=file)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "program.py").write_text(program)
    root = Path(train.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -signal.SIGKILL
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        deadline = time.monotonic() + 20
        while _is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
