"""What each rank computes of a step: shares that are a single process's step together."""

from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npformer.batch import Batch
from train.corpora.batches import Batches, Place
from train.corpora.sentences import ParallelTokens
from train.ranks.shares import Part, Step, steps

BEGIN, END, TOKENS = 1, 2, 20

lengths = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=40)
sizes = st.integers(1, 9)
accumulations = st.integers(1, 4)


def batches_of(pairs: list[tuple[int, int]], tokens: int = TOKENS) -> Batches:
    """Pairs of these lengths, each of a token id of its own."""
    ids = [pair + 3 for pair in range(len(pairs))]
    parallel = ParallelTokens.of(
        [[i] * source for i, (source, _) in zip(ids, pairs, strict=True)],
        [[i] * target for i, (_, target) in zip(ids, pairs, strict=True)],
    )
    return Batches(parallel, tokens=tokens, begin_id=BEGIN, end_id=END)


def first_steps(batches: Batches, accumulate: int, rank: int, size: int, count: int) -> list[Step]:
    return list(islice(steps(batches, Place(), accumulate, rank, size), count))


def rows_of(batch: Batch) -> tuple[int, int]:
    return len(batch.source.tokens), batch.target_tokens


def sentences(batches: list[Batch]) -> list[list[list[int]]]:
    return [
        [s.tolist() for s in sides]
        for batch in batches
        for sides in zip(batch.source, batch.target_input, batch.target_output, strict=True)
    ]


@given(lengths, sizes, accumulations)
def test_the_shares_of_a_step_are_its_sentences_in_their_order(
    pairs: list[tuple[int, int]], size: int, accumulate: int
) -> None:
    batches = batches_of(pairs)
    whole = first_steps(batches, accumulate, 0, 1, 3)
    shares = [first_steps(batches, accumulate, rank, size, 3) for rank in range(size)]
    for number, step in enumerate(whole):
        assert len(step.batches) == accumulate
        of_ranks = [share[number] for share in shares]
        assert [s for share in of_ranks for s in sentences(share.batches)] == sentences(
            step.batches
        )
        assert {share.place for share in of_ranks} == {step.place}
        assert all(len(batch) for share in of_ranks for batch in share.batches)


@given(lengths, sizes, accumulations)
def test_a_part_says_what_stands_before_each_batch_and_how_much_the_step_has(
    pairs: list[tuple[int, int]], size: int, accumulate: int
) -> None:
    batches = batches_of(pairs)
    (step,) = first_steps(batches, accumulate, 0, 1, 1)
    assert step.part == Part.whole(step.batches)
    before = np.zeros(2, int)
    for rank in range(size):
        ((own, part, _),) = first_steps(batches, accumulate, rank, size, 1)
        assert part.target_tokens == step.part.target_tokens
        assert len(part.rows) == len(own)
        for batch, rows in zip(own, part.rows, strict=True):
            assert rows == tuple(before)
            before += rows_of(batch)


@given(lengths, sizes, accumulations)
def test_shares_of_a_step_differ_by_little_more_than_a_sentence(
    pairs: list[tuple[int, int]], size: int, accumulate: int
) -> None:
    """Each is what the rank's piece of the batches holds, but for half a sentence at its ends."""
    batches = batches_of(pairs)
    (step,) = first_steps(batches, accumulate, 0, 1, 1)
    sums = [sum(rows_of(batch)) for batch in step.batches]
    longest = max(source + target + 2 for source, target in pairs)
    for rank in range(size):
        ((own, _, _),) = first_steps(batches, accumulate, rank, size, 1)
        begin, end = (r * accumulate / size for r in (rank, rank + 1))
        due = sum(max(0, min(end, k + 1) - max(begin, k)) * n for k, n in enumerate(sums))
        assert abs(sum(sum(rows_of(batch)) for batch in own) - due) <= longest + 1e-9
        # No more parts of batches than must be.
        assert len(own) <= -(-accumulate // size) + 1


@given(lengths, accumulations, st.integers(1, 4))
def test_with_as_many_ranks_as_batches_each_has_whole_batches(
    pairs: list[tuple[int, int]], size: int, times: int
) -> None:
    batches = batches_of(pairs)
    (step,) = first_steps(batches, size * times, 0, 1, 1)
    for rank in range(size):
        ((own, _, _),) = first_steps(batches, size * times, rank, size, 1)
        expected = step.batches[rank * times : (rank + 1) * times]
        assert [sentences([batch]) for batch in own] == [sentences([batch]) for batch in expected]


def test_ranks_without_a_sentence_have_an_empty_step() -> None:
    batches = batches_of([(2, 3)])
    found = [first_steps(batches, 1, rank, 4, 1)[0] for rank in range(4)]
    assert sorted(len(step.batches) for step in found) == [0, 0, 0, 1]
    assert {step.part.target_tokens for step in found} == {4}
    assert {step.place for step in found} == {Place(0, 0, 1)}


def test_a_batch_is_divided_by_its_tokens_not_by_its_sentences() -> None:
    """Of ten short sentences and one as long as all of them, each rank has half of the tokens."""
    batches = batches_of([(1, 1)] * 10 + [(19, 19)], tokens=40)
    found = [first_steps(batches, 1, rank, 2, 1)[0] for rank in range(2)]
    assert sorted(len(batch) for step in found for batch in step.batches) == [1, 10]


def test_steps_go_on_from_a_place_into_the_next_epoch() -> None:
    batches = batches_of([(3, 3)] * 12)
    whole = first_steps(batches, 3, 0, 1, 4)
    for rank in range(2):
        own = first_steps(batches, 3, rank, 2, 4)
        later = steps(batches, own[1].place, 3, rank, 2)
        assert [step.place for step in own] == [step.place for step in whole]
        for expected in own[2:]:
            found = next(later)
            assert sentences(found.batches) == sentences(expected.batches)
            assert found.part == expected.part
