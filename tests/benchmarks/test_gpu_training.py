"""Batches that do not come again: who takes which, and what their times are compared with."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu_training
from benchmarks.gpu_batches import training_batches
from benchmarks.gpu_training import BATCHES, Task, Turns, Work, compared, filled
from benchmarks.shapes import alike, by_tokens


@pytest.mark.parametrize("turns", [0, 3])
def test_a_side_takes_the_batches_in_the_order_in_which_ours_prepares_them(turns: int) -> None:
    task, taken = Task("base", 500, steps=16, turns=turns), []
    for k in range(2 * BATCHES):
        taken.append(k % BATCHES)
    turn = Turns(task, taken.append, lambda: None, lambda: 7)
    for _ in range(4):  # one more than there are fresh batches for
        assert turn() >= 0
    assert taken == [*itertools.islice(task.order(), len(taken))]
    assert turn.used()["peak_bytes"] == 7
    assert len(turn.used()["again_s"]) == 4
    fresh = [k for k in taken if k >= BATCHES]
    assert fresh == [*range(BATCHES, BATCHES + 16 * turns)]


def test_fresh_batches_are_others_in_every_turn_and_all_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = training_batches(BATCHES + 32, 300, pairs=5000)
    monkeypatch.setattr(gpu_training, "training_batches", lambda count, tokens: made[:count])
    task = Task("base", 300, steps=16, turns=2)
    batches = task.batches()
    assert len(batches) == BATCHES + 32
    work = Work.of(task)
    assert work.target == 2 * sum(b.target_tokens for b in batches[:BATCHES])
    counted = batches[BATCHES + 16 :]
    assert work.fresh_target == (sum(b.target_tokens for b in counted),)
    assert work.fresh_both == (sum(len(b.source.tokens) + b.target_tokens for b in counted),)


def test_ours_is_compared_with_each_peers_better_figure() -> None:
    """Times count as those of a mean fresh batch."""
    work = Work(steps=10, target=400, both=1000, fresh_target=(800, 1200), fresh_both=(1600, 2400))
    seconds = {"ours": [1.6, 2.4], "slow at new sizes": [8.0, 12.0], "steady": [3.2, 4.8]}
    again = {"ours": [0.1, 0.1], "slow at new sizes": [1.5, 1.5], "steady": [2.0, 2.0]}
    found = compared(seconds, work, again)
    assert found["ours"]["ms"] == found["ours"]["fresh_ms"] == 200.0  # 2,000 tokens take 2 s
    assert (found["ours"]["fresh"], found["ours"]["again_ms"]) == (True, 20.0)
    slow, steady = found["peers"]["slow at new sizes"], found["peers"]["steady"]
    assert (slow["ms"], slow["fresh"]) == (300.0, False)
    assert (slow["fresh_ms"], slow["again_ms"]) == (1000.0, 300.0)
    assert (steady["ms"], steady["fresh"], steady["again_ms"]) == (400.0, True, 400.0)
    assert found["speedup"] == {"slow at new sizes": 1.5, "steady": 2.0}
    assert found["ours"]["tokens_per_s"] == 500.0


def test_before_the_end_of_a_contest_only_fresh_batches_are_known() -> None:
    work = Work(steps=10, target=400, both=1000, fresh_target=(800, 1200), fresh_both=(1600, 2400))
    found = compared({"ours": [1.6], "peer": [3.2]}, work)
    assert (found["ours"]["ms"], found["peers"]["peer"]["ms"]) == (160.0, 320.0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(1, 8))
def test_the_division_into_runs_costs_least(sizes: list[int], most: int) -> None:
    def cost(group: object) -> float:
        return len(group) * max(group)  # type: ignore[call-overload, arg-type]

    runs = alike(sizes, cost, most)
    assert [i for run in runs for i in run] == [*range(len(sizes))]
    assert all(runs)
    assert len(runs) <= most
    n = len(sizes)
    least = min(
        sum(cost(sizes[i:j]) for i, j in itertools.pairwise([0, *cuts, n]))
        for count in range(min(most, n))
        for cuts in itertools.combinations(range(1, n), count)
    )
    assert sum(cost([sizes[i] for i in run]) for run in runs) == least


def test_few_shapes_leave_little_to_fill() -> None:
    batches = training_batches(60, 500, pairs=5000)
    groups = by_tokens(batches, 8)
    assert sorted(k for group in groups for k in group) == [*range(60)]
    assert len(groups) <= 8
    assert 0 == filled(batches, 60) < filled(batches, 8) < filled(batches, 2) < filled(batches, 1)
