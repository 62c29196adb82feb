"""Sentence pairs as token ids, taken in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Packed
from train.corpora.sentences import ParallelTokens

sentences_of_ids = st.lists(st.lists(st.integers(0, 60_000), max_size=5), max_size=8)


@given(sentences_of_ids, st.data())
@settings(deadline=None)
def test_sentences_can_be_taken_in_any_order(lists: list[list[int]], data: st.DataObject) -> None:
    sentences = Packed.of(lists)
    assert [sentences[i].tolist() for i in range(len(sentences))] == lists
    order = data.draw(st.lists(st.integers(0, len(lists) - 1)) if lists else st.just([]))
    taken = sentences.take(np.array(order, dtype=np.int64))
    assert [s.tolist() for s in taken] == [lists[i] for i in order]
    for outside in (-1, len(lists)):
        with pytest.raises(IndexError):
            sentences[outside]


def test_pairs_need_both_sides() -> None:
    with pytest.raises(ValueError, match="2 sources, but 1 targets"):
        ParallelTokens.of([[1], [2]], [[1]])
