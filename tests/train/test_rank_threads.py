"""How many threads a rank has, of the processors that ranks share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import Namespace
from threadpoolctl import threadpool_info, threadpool_limits

from train.cli.jobs import jobs_of
from train.processors import cores
from train.ranks import threads
from train.ranks.ranks import ALONE, Ranks
from train.ranks.threads import share, share_processors

ALL = range(16)


@pytest.mark.parametrize(
    ("own", "others", "count"),
    [
        (ALL, [], 16),
        (ALL, [ALL] * 3, 4),
        (range(4), [range(4, 8), range(8, 12), range(12, 16)], 4),  # bound to processors
        (range(8), [range(8), range(8, 16), range(8, 16)], 4),  # to sockets
        (ALL, [ALL] * 2, 5),
        ([3], [[3]], 1),
        (ALL, [ALL] * 39, 1),
        (range(6), [range(6)] * 5, 1),
    ],
)
def test_a_rank_gets_its_part_of_the_processors_that_it_may_use(
    own: range, others: list[range], count: int
) -> None:
    assert share(own, [own, *others]) == count


@given(st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=6))
def test_ranks_have_no_more_threads_than_there_are_processors(masks: list[set[int]]) -> None:
    counts = [share(own, masks) for own in masks]
    assert min(counts) >= 1
    assert sum(count for count in counts if count > 1) <= len(set().union(*masks))


class Four(Ranks):
    """4 ranks that say the same, two of them on another host."""

    size = 4

    def all(self, value):
        host, processors = value
        return [(host, processors)] * 2 + [("another", processors)] * 2


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NUMBA", "OPENBLAS", "OMP", "MKL"):
        monkeypatch.setenv(f"{name}_NUM_THREADS", "")  # so that it is restored afterwards
        monkeypatch.delenv(f"{name}_NUM_THREADS")
    with threadpool_limits(8):
        yield


def threads_of_libraries() -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def test_only_the_ranks_of_this_host_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_processors", lambda: frozenset(range(8)))
    assert share_processors(Four(), "here") == 4
    assert os.environ["NUMBA_NUM_THREADS"] == "4"
    assert threads_of_libraries() == {4}


def test_a_rank_segments_text_in_its_part_of_the_processors() -> None:
    ranks = Four()
    ranks.processors = 3
    assert jobs_of(Namespace(jobs=None), ranks) == 3
    assert jobs_of(Namespace(jobs=2), ranks) == 2
    assert jobs_of(Namespace(jobs=None), ALONE) == cores()


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    before = threads_of_libraries()
    share_processors(Four(), "here")
    assert os.environ["NUMBA_NUM_THREADS"] == "7"
    assert threads_of_libraries() == before
