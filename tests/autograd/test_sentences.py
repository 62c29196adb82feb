"""Where sentences begin and end, and what is kept about them."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import Sentences
from autograd.backend import backend

some_lengths = st.lists(st.integers(0, 5), max_size=6)


@given(some_lengths)
def test_sentences_follow_from_their_lengths(lengths):
    sentences = Sentences(lengths)
    assert len(sentences) == len(lengths)
    assert sentences.lengths.tolist() == lengths
    assert sentences.offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert sentences.rows == sum(lengths)
    assert sentences.longest == max(lengths, default=0)
    expected = [i for n in lengths for i in range(n)]
    position_ids = sentences.position_ids(backend("numpy"))
    assert position_ids.tolist() == expected
    assert position_ids.dtype == np.int32
    again = Sentences.between(np.array(sentences.offsets))
    assert again.lengths.tolist() == lengths


def test_what_is_found_out_is_kept_and_does_not_travel():
    sentences, calls = Sentences([2, 1]), []
    for _ in range(2):
        assert sentences.kept("key", lambda: calls.append(1) or len(calls)) == 1
    assert sentences.kept("other", lambda: 7) == 7
    for travelled in (copy.deepcopy(sentences), pickle.loads(pickle.dumps(sentences))):
        assert travelled.lengths.tolist() == [2, 1]
        assert travelled.kept("key", lambda: 8) == 8


def test_they_die_by_reference_counts_alone():
    sentences = Sentences([2, 1])
    ref = weakref.ref(sentences)
    sentences.kept("about themselves", lambda: 1, beside=sentences)
    sentences.kept("about others", lambda: 1, beside=Sentences([1, 1]))
    gc.disable()
    try:
        del sentences
        assert ref() is None
    finally:
        gc.enable()


def test_nobody_changes_them():
    given_lengths = np.array([2, 1])
    sentences = Sentences(given_lengths)
    given_lengths[0] = 5
    assert sentences.lengths.tolist() == [2, 1]
    for array in (sentences.lengths, sentences.offsets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([1, -2], ValueError, "a sentence cannot have -2 tokens"),
        ([1.5], ValueError, "lengths must be whole numbers"),
        ([[1, 2]], ValueError, "lengths must be whole numbers"),
        (np.array(3), ValueError, "lengths must be whole numbers"),
        ([2**63 - 1, 2**63 - 1, 6], ValueError, "more rows than any array has"),
        ([2**62] * 4 + [4], ValueError, "more rows than any array has"),
        ([2**63], ValueError, "more rows than any array has"),
        (3, TypeError, "on the host, and not int"),
        (backend("strict").asarray([1]), TypeError, "on the host, and not StrictArray"),
    ],
)
def test_what_cannot_be_lengths_is_refused(lengths, kind, message):
    with pytest.raises(kind, match=message):
        Sentences(lengths)
