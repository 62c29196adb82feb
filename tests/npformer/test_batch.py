"""Batches: what the model reads, what it must predict, and grouping by length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer.batch import Batch, batches_of_similar_length, ended
from npformer.packed import Packed

BEGIN, END = 1, 2

sentences_of_ids = st.lists(st.lists(st.integers(3, 50), max_size=9), max_size=9)


def lists(packed: Packed) -> list[list[int]]:
    return [sentence.tolist() for sentence in packed]


@given(sentences_of_ids)
def test_a_batch_adds_begin_and_end_tokens_to_its_pairs(targets: list[list[int]]) -> None:
    sources = [target[::-1] for target in targets]
    batch = Batch.of(sources, targets, begin_id=BEGIN, end_id=END)
    assert lists(batch.source) == [[*source, END] for source in sources]
    assert lists(batch.target_input) == [[BEGIN, *target] for target in targets]
    assert lists(batch.target_output) == [[*target, END] for target in targets]
    assert len(batch) == len(targets)


@given(sentences_of_ids)
def test_target_tokens_counts_the_tokens_to_predict(targets: list[list[int]]) -> None:
    batch = Batch.of([[7]] * len(targets), targets, begin_id=BEGIN, end_id=END)
    assert batch.target_tokens == sum(len(target) + 1 for target in targets)
    assert batch.target_tokens == len(batch.target_output.tokens)


@given(sentences_of_ids)
def test_ended_appends_the_end_token_to_a_copy(sentences: list[list[int]]) -> None:
    packed = Packed.of(sentences)
    longer = ended(packed, END)
    assert lists(longer) == [[*sentence, END] for sentence in sentences]
    assert longer.tokens.dtype == np.int32
    assert lists(packed) == sentences


def test_a_source_without_its_target_is_refused() -> None:
    with pytest.raises(ValueError, match="2 sources, but 1 targets"):
        Batch.of([[3], [4]], [[5]], begin_id=BEGIN, end_id=END)


@given(sentences_of_ids, st.integers(1, 40))
def test_every_sentence_except_empty_ones_is_in_one_batch(
    sentences: list[list[int]], tokens: int
) -> None:
    chosen = [i for batch in batches_of_similar_length(sentences, tokens) for i in batch]
    assert sorted(chosen) == [i for i, sentence in enumerate(sentences) if sentence]


@given(sentences_of_ids, st.integers(1, 40))
def test_the_token_budget_includes_padding_and_end_tokens_except_for_single_sentences(
    sentences: list[list[int]], tokens: int
) -> None:
    for batch in batches_of_similar_length(sentences, tokens):
        longest = max(len(sentences[i]) + 1 for i in batch)
        assert len(batch) * longest <= tokens or len(batch) == 1


@given(sentences_of_ids, st.integers(1, 40))
def test_the_longest_sentences_come_first_and_batches_are_full(
    sentences: list[list[int]], tokens: int
) -> None:
    batches = list(batches_of_similar_length(sentences, tokens))
    sizes = [len(sentences[i]) for batch in batches for i in batch]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * (len(sentences[batch[0]]) + 1) > tokens


def test_sentences_of_equal_length_keep_their_order() -> None:
    assert list(batches_of_similar_length([[3], [4, 5], [6], [7, 8]], 6)) == [[1, 3], [0, 2]]


def test_no_sentences_give_no_batches() -> None:
    assert list(batches_of_similar_length([], 100)) == []
    assert list(batches_of_similar_length([[], []], 100)) == []
