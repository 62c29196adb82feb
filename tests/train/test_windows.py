"""The order of a large corpus is planned window by window, and can begin at any batch."""

import re
import sys
import tracemalloc
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train.corpora.sentences
from autograd import Sentences
from npformer import Packed
from tests.train.test_batches import BEGIN, END, as_lists, batches_from, captions
from train.corpora.batches import WINDOW, Batches
from train.corpora.sentences import ParallelTokens

seeds = st.integers(0, 2**32)


def windowed(
    pairs: int, block: int = 4, window: int = 16, tokens: int = 200, **more: Any
) -> Batches:
    return Batches(
        captions(pairs),
        tokens=tokens,
        begin_id=BEGIN,
        end_id=END,
        block=block,
        window=window,
        **more,
    )


@given(st.integers(1, 150), st.integers(1, 9), st.integers(1, 40), seeds, st.integers(0, 3))
@settings(deadline=None)
def test_an_epoch_has_every_pair_exactly_once(
    pairs: int, block: int, window: int, seed: int, epoch: int
) -> None:
    made = windowed(pairs, block, window, seed=seed)
    plans = [made.plan_window(epoch, w) for w in range(made.windows)]
    assert sorted(i for plan in plans for b in plan for i in b.tolist()) == list(range(pairs))
    assert all(plan for plan in plans)
    assert max(sum(map(len, plan)) for plan in plans) <= max(window, block)
    joined = [indices.tolist() for indices in made.plan(epoch)]
    assert joined == [indices.tolist() for plan in plans for indices in plan]


def test_a_corpus_of_one_window_is_ordered_as_without_windows() -> None:
    """Windows do not matter for a corpus that fits into one."""
    whole = Batches(captions(150), tokens=200, begin_id=BEGIN, end_id=END, seed=3)
    assert whole.windows == 1
    for block, window in ((4, 152), (10, 150), (1024, 10)):
        made = windowed(150, block, window, seed=3)
        assert made.windows == 1
        for one, other in zip(made.plan(2), whole.plan(2), strict=True):
            np.testing.assert_array_equal(one, other)


def test_half_a_million_pairs_are_one_window() -> None:
    lengths = np.full(WINDOW + 1, 1, np.uint8)
    for pairs, windows in ((WINDOW, 1), (WINDOW + 1, 2)):
        side = Packed(np.zeros(pairs, np.uint16), lengths[:pairs])
        made = Batches(ParallelTokens(side, side), begin_id=BEGIN, end_id=END)
        assert made.windows == windows


@given(st.data())
@settings(deadline=None)
def test_batches_can_begin_at_any_position(data: st.DataObject) -> None:
    every = list(islice(batches_from(windowed(90), 1), 60))
    k = data.draw(st.integers(0, 40))
    _, place = every[k]
    later = batches_from(windowed(90), place.epoch, place.window, place.batch)
    for (batch, at), (expected, expected_at) in zip(
        islice(later, 15), every[k + 1 :], strict=False
    ):
        assert as_lists(batch) == as_lists(expected)
        assert at == expected_at


def test_batches_are_in_the_order_of_the_plan() -> None:
    made = windowed(90)
    placed = batches_from(made, 1)
    of_epoch = list(takewhile(lambda found: found[1].epoch == 1, placed))
    expected = [as_lists(batch) for batch in made.epoch(1)]
    assert [as_lists(batch) for batch, _ in of_epoch] == expected
    assert as_lists(next(batches_from(made, 2))[0]) == as_lists(made.epoch(2)[0])


@pytest.mark.parametrize("batch", [0, 1, 2, 5, 10])
def test_a_batch_may_be_counted_from_the_start_of_the_epoch(batch: int) -> None:
    """So the position of a run need not contain a window."""
    made = windowed(90)
    assert len(made.plan_window(1, 0)) < 5 < 10 < len(made.epoch(1))
    found, _ = next(batches_from(made, 1, 0, batch))
    assert as_lists(found) == as_lists(made.epoch(1)[batch])


def test_only_needed_windows_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    made = windowed(150)
    planned = []
    make_window = made._window

    def noted(epoch: int, window: int, sampled: Any) -> Any:
        planned.append((epoch, window))
        return make_window(epoch, window, sampled)

    monkeypatch.setattr(made, "_window", noted)
    next(batches_from(made, 5, 7, 1))
    assert planned == [(5, 7)]


def test_another_budget_keeps_the_finished_share_of_a_window() -> None:
    made, wider = windowed(150, window=80), windowed(150, window=80, tokens=400)
    for batch, place in islice(batches_from(made, 0), 20):
        assert len(batch) > 0
        pairs = sum(map(len, made.plan_window(place.epoch, place.window)[: place.batch]))
        assert made.batch_after(place.epoch, place.window, pairs) == place.batch
        plan = wider.plan_window(place.epoch, place.window)
        begun = wider.batch_after(place.epoch, place.window, pairs)
        before = sum(map(len, plan[:begun]))
        assert before - len(plan[begun - 1]) < pairs <= before


def test_windows_epochs_and_seeds_differ() -> None:
    plans = [
        windowed(200, seed=seed).plan_window(epoch, window)
        for seed, epoch, window in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    found = {frozenset(i for batch in plan for i in batch.tolist()) for plan in plans}
    assert len(found) == len(plans)


def test_the_order_of_windows_is_the_same_on_every_machine_and_version() -> None:
    side = Packed(np.arange(3, 27, dtype=np.uint16), [1] * 24)
    made = Batches(
        ParallelTokens(side, side), tokens=8, begin_id=BEGIN, end_id=END, seed=7, block=2, window=8
    )
    plan = [indices.tolist() for indices in made.plan(3)]
    assert plan == [
        [5, 16, 4, 17],
        [23, 22, 12, 13],
        [11, 10, 3, 1],
        [21, 2, 0, 20],
        [9, 18, 8, 14],
        [19, 6, 15, 7],
    ]


def peak_bytes(pairs: int) -> int:
    """The peak memory of opening a corpus with this number of pairs and reaching its middle."""
    side = Packed(np.zeros(pairs, np.uint16), Sentences.between(np.arange(pairs + 1)))
    tracemalloc.start()
    try:
        made = Batches(
            ParallelTokens(side, side), begin_id=BEGIN, end_id=END, block=64, window=1 << 12
        )
        next(batches_from(made, 0, made.windows // 2, 5))
        assert "lengths" not in vars(side.sentences)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.corpora.sentences, "_AT_A_TIME", 1 << 12)
    assert peak_bytes(1 << 17) < 1.2 * peak_bytes(1 << 14)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_what_a_window_has_read_of_the_disk_does_not_stay_in_memory(tmp_path: Path) -> None:
    pairs, length = 1 << 12, 1 << 11
    with open(tmp_path / "tokens", "wb") as file:
        file.truncate(2 * pairs * length)
    tokens = np.asarray(np.memmap(tmp_path / "tokens", np.uint16, "r"))
    side = Packed(tokens, [length] * pairs)
    parallel = ParallelTokens(side, side)
    before = mapped_bytes()
    assert not tokens.any()
    assert mapped_bytes() - before > len(tokens)
    made = Batches(
        parallel, tokens=4 * length + 4, begin_id=BEGIN, end_id=END, block=64, window=256
    )
    for _ in islice(batches_from(made, 0), 2 * pairs // 4):
        assert mapped_bytes() - before < len(tokens) // 2


def mapped_bytes() -> int:
    """The memory of this process that is files'."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
