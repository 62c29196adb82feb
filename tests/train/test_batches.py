"""Batches: every pair once per epoch, within the budget, with pairs of similar length."""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Packed
from npformer.batch import Batch
from npformer.errors import UserError
from train.corpora.batches import Batches, Place
from train.corpora.sentences import ParallelTokens

BEGIN, END = 1, 2

pairs_of_ids = st.lists(
    st.tuples(st.lists(st.integers(3, 99), max_size=8), st.lists(st.integers(3, 99), max_size=8)),
    max_size=40,
)
seeds = st.integers(0, 2**32)


def batches(pairs: list[tuple[list[int], list[int]]], tokens: int = 20, seed: int = 0) -> Batches:
    parallel = ParallelTokens.of([s for s, _ in pairs], [t for _, t in pairs])
    return Batches(parallel, tokens=tokens, begin_id=BEGIN, end_id=END, seed=seed)


def captions(pairs: int, seed: int = 0) -> ParallelTokens:
    """Pairs with the lengths of image captions: about 14 token ids, the target about as long."""
    rng = np.random.default_rng(seed)
    source = np.clip(rng.normal(14, 4.6, pairs).astype(np.int64), 3, 60)
    target = np.clip(source + rng.normal(0.4, 3, pairs).astype(np.int64), 3, 60)
    return ParallelTokens(
        *(
            Packed(rng.integers(3, 9999, lengths.sum()).astype(np.uint16), lengths)
            for lengths in (source, target)
        )
    )


@given(pairs_of_ids, st.integers(9, 40), seeds, st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_has_every_pair_exactly_once(
    pairs: list[tuple[list[int], list[int]]], tokens: int, seed: int, epoch: int
) -> None:
    plan = batches(pairs, tokens, seed).plan(epoch)
    assert sorted(i for indices in plan for i in indices.tolist()) == list(range(len(pairs)))
    assert all(len(indices) for indices in plan)


@given(pairs_of_ids, st.integers(9, 40), seeds)
@settings(deadline=None)
def test_no_batch_exceeds_the_budget_on_either_side(
    pairs: list[tuple[list[int], list[int]]], tokens: int, seed: int
) -> None:
    for batch in batches(pairs, tokens, seed).epoch(0):
        for side in (batch.source, batch.target_input, batch.target_output):
            assert len(side.tokens) <= tokens
            assert side.tokens.dtype == np.int32


@given(pairs_of_ids, seeds)
@settings(deadline=None)
def test_a_batch_adds_begin_and_end_tokens_to_its_pairs(
    pairs: list[tuple[list[int], list[int]]], seed: int
) -> None:
    made = batches(pairs, seed=seed)
    for indices, batch in zip(made.plan(0), made.epoch(0), strict=True):
        assert len(batch) == len(indices)
        sides = (batch.source, batch.target_input, batch.target_output)
        for i, sentences in zip(indices, zip(*(side for side in sides), strict=True), strict=True):
            source, target = pairs[i]
            assert [s.tolist() for s in sentences] == [
                [*source, END],
                [BEGIN, *target],
                [*target, END],
            ]
        np.testing.assert_array_equal(batch.target_input.lengths, batch.target_output.lengths)


def as_lists(batch: Batch) -> list[list[int]]:
    return [
        array.tolist()
        for side in (batch.source, batch.target_input, batch.target_output)
        for array in (side.tokens, side.lengths)
    ]


def batches_from(
    made: Batches, epoch: int, window: int = 0, batch: int = 0
) -> Iterator[tuple[Batch, Place]]:
    """Batches from a place on, each with the place after it."""
    for parallel, indices, place in made.planned_from(Place(epoch, window, batch)):
        yield made.build(parallel, indices), place


@given(pairs_of_ids, seeds, st.integers(0, 5))
@settings(deadline=None)
def test_an_epoch_depends_only_on_the_seed_and_its_number(
    pairs: list[tuple[list[int], list[int]]], seed: int, epoch: int
) -> None:
    other = batches(pairs, seed=seed)
    other.plan(epoch + 1)
    expected = [as_lists(batch) for batch in batches(pairs, seed=seed).epoch(epoch)]
    assert [as_lists(batch) for batch in other.epoch(epoch)] == expected


@given(pairs_of_ids, st.data())
@settings(deadline=None)
def test_an_epoch_can_be_indexed_and_sliced(
    pairs: list[tuple[list[int], list[int]]], data: st.DataObject
) -> None:
    epoch = batches(pairs).epoch(0)
    every = [as_lists(batch) for batch in epoch]
    assert len(epoch) == len(every)
    k = data.draw(st.integers(0, len(every)))
    assert [as_lists(batch) for batch in epoch[k:]] == every[k:]
    assert [as_lists(epoch[i]) for i in range(k)] == every[:k]
    assert [as_lists(batch) for batch in epoch[1::2]] == every[1::2]


def test_resuming_does_not_build_earlier_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = batches([([5], [5])] * 100)
    built: list[int] = []
    batch = made.batch
    monkeypatch.setattr(made, "batch", lambda indices: built.append(1) or batch(indices))
    epoch = made.epoch(0)
    next(iter(epoch[len(epoch) - 1 :]))
    assert len(built) == 1


def test_a_plan_is_the_same_on_every_machine_and_version() -> None:
    pairs = [(list(range(3, 3 + i % 7)), list(range(3, 3 + i % 5))) for i in range(12)]
    plan = [indices.tolist() for indices in batches(pairs, 20, seed=7).plan(3)]
    assert plan == [[6, 4, 3, 9], [0, 1, 10, 11, 5], [2, 8, 7]]


def test_other_epochs_and_seeds_group_the_pairs_differently() -> None:
    parallel = captions(2000)
    plans = [
        Batches(parallel, tokens=1000, begin_id=BEGIN, end_id=END, seed=seed).plan(epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    groups = [{frozenset(indices.tolist()) for indices in plan} for plan in plans]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]


def test_batches_are_not_ordered_by_length() -> None:
    parallel = captions(5000)
    plan = Batches(parallel, tokens=1000, begin_id=BEGIN, end_id=END).plan(0)
    means = [parallel.target_lengths[indices].mean() for indices in plan]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("tokens", [1000, 4096])
def test_a_batch_has_similar_lengths_on_both_sides(tokens: int) -> None:
    parallel = captions(29_000)
    plan = Batches(parallel, tokens=tokens, begin_id=BEGIN, end_id=END).plan(0)
    for lengths in (parallel.source_lengths, parallel.target_lengths):
        within = np.mean([lengths[indices].std() for indices in plan])
        assert within < lengths.std() / 3


def test_batches_are_nearly_full() -> None:
    parallel = captions(29_000)
    plan = Batches(parallel, tokens=4096, begin_id=BEGIN, end_id=END).plan(0)
    fewest = (np.maximum(parallel.source_lengths, parallel.target_lengths) + 1).sum() / 4096
    assert len(plan) <= 1.05 * fewest + 1


def test_a_plan_for_29_000_pairs_takes_less_than_a_tenth_of_a_second() -> None:
    made = Batches(captions(29_000), tokens=4096, begin_id=BEGIN, end_id=END)
    best = min(_seconds(made, epoch) for epoch in range(5))
    assert best < 0.1


def _seconds(made: Batches, epoch: int) -> float:
    start = time.perf_counter()
    made.plan(epoch)
    return time.perf_counter() - start


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_pair_beyond_the_budget_is_named_with_a_setting_that_works(side: str) -> None:
    pair = ([3] * 10, [3]) if side == "source" else ([3], [3] * 10)
    pairs = [([3], [3]), pair]
    with pytest.raises(UserError, match=f"pair 2 .* 11 {side} tokens") as caught:
        batches(pairs, tokens=10)
    assert "max_length of 9 or less" in str(caught.value)
    batches(pairs, tokens=11)


def test_a_batch_needs_both_sides() -> None:
    with pytest.raises(ValueError, match="1 sources, but 2 targets"):
        Batch.of([[3]], [[3], [4]], begin_id=BEGIN, end_id=END)


# The plan, computed pair by pair from its description.


def brute_force_cut(
    order: list[int], sizes: tuple[list[int], list[int]], tokens: int
) -> list[list[int]]:
    """Pairs in order, a new batch wherever the next pair would exceed a budget."""
    plan: list[list[int]] = []
    sums = [0, 0]
    for pair in order:
        wanted = [side[pair] for side in sizes]
        if not plan or any(s + w > tokens for s, w in zip(sums, wanted, strict=True)):
            plan.append([])
            sums = [0, 0]
        plan[-1].append(pair)
        sums = [s + w for s, w in zip(sums, wanted, strict=True)]
    return plan


def brute_force_plan(parallel: ParallelTokens, tokens: int, seed: int, epoch: int) -> Any:
    random = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    sides = (parallel.source_lengths + 1).tolist(), (parallel.target_lengths + 1).tolist()

    def blurred(sizes: list[int]) -> list[float]:
        uniform = [(int(word) >> 11) / 2**53 for word in random.random_raw(len(sizes))]
        return [size + u * (1 + size / 10) for size, u in zip(sizes, uniform, strict=True)]

    pairs = range(len(parallel))
    wider = [max(both) for both in zip(*sides, strict=True)]
    strips = max(1, round(math.sqrt(sum(wider) / tokens)))
    by_target, by_source = blurred(sides[1]), blurred(sides[0])
    strip, before = {}, 0
    for pair in sorted(pairs, key=by_target.__getitem__):
        before += wider[pair]
        strip[pair] = (before - 1) * strips // sum(wider)
    order = sorted(pairs, key=lambda p: (strip[p], by_source[p] * (-1) ** strip[p]))
    plan = brute_force_cut(order, sides, tokens)
    words = random.random_raw(len(plan)).tolist()
    return [plan[k] for k in sorted(range(len(plan)), key=words.__getitem__)]


@pytest.mark.parametrize("tokens", [61, 62, 100, 333, 1000, 4096])
@pytest.mark.parametrize("pairs", [1, 2, 7, 60, 500, 3000])
def test_a_plan_matches_brute_force(pairs: int, tokens: int) -> None:
    parallel = captions(pairs, seed=pairs)
    made = Batches(parallel, tokens=tokens, begin_id=BEGIN, end_id=END, seed=5)
    for epoch in (0, 3):
        plan = [indices.tolist() for indices in made.plan(epoch)]
        assert plan == brute_force_plan(parallel, tokens, 5, epoch)


@pytest.mark.parametrize("longer", ["source", "target"])
@pytest.mark.parametrize("fitting", [1, 2, 3, 10])
def test_batches_use_their_whole_budget(longer: str, fitting: int) -> None:
    sides = ([7] * 4, [7]) if longer == "source" else ([7], [7] * 4)
    count = 3 * fitting + 1
    for spare, batch in ((0, fitting), (4, fitting), (5, fitting + 1), (-1, fitting - 1)):
        if batch:
            plan = batches([sides] * count, 5 * fitting + spare).plan(0)
            sizes = sorted(map(len, plan), reverse=True)
            assert sizes == [*[batch] * (count // batch), *[count % batch] * (count % batch > 0)]


def test_the_defaults_are_4096_tokens_and_seed_0() -> None:
    made = Batches(captions(3), begin_id=BEGIN, end_id=END)
    assert (made.tokens, made.seed) == (4096, 0)
