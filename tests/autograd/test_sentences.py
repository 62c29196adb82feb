"""Lengths, offsets and positions of sentences, and values cached with them."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import Sentences, ops, references
from autograd.backend import backend
from autograd.cuda import attention
from autograd.ops.large import packed_attention

some_lengths = st.lists(st.integers(0, 5), max_size=6)


@given(some_lengths)
def test_offsets_and_positions_follow_from_the_lengths(lengths):
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


def test_cached_values_are_computed_once_and_not_copied():
    sentences, calls = Sentences([2, 1]), []
    for _ in range(2):
        assert sentences.cached("key", lambda: calls.append(1) or len(calls)) == 1
    assert sentences.cached("other", lambda: 7) == 7
    for copied in (copy.deepcopy(sentences), pickle.loads(pickle.dumps(sentences))):
        assert copied.lengths.tolist() == [2, 1]
        assert copied.cached("key", lambda: 8) == 8


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_attention_groups_sentences_once_for_all_layers(name, monkeypatch):
    made = []
    grouped = packed_attention._grouped
    monkeypatch.setattr(
        packed_attention, "_grouped", lambda *given: made.append(given) or grouped(*given)
    )
    xp = backend(name).xp
    sentences, others = Sentences([2, 1, 2]), Sentences([3, 0, 1])
    q, kv = xp.ones((5, 6)), xp.ones((4, 4))
    with references():
        for _ in range(3):
            ops.attention(q, heads=1, d_k=2, sentences=sentences)
            ops.attention(q[:, :2], kv, heads=1, d_k=2, sentences=sentences, key_sentences=others)
    assert [given[:3] for given in made] == [(xp, sentences, sentences), (xp, sentences, others)]


def test_sentences_are_freed_by_reference_counting():
    sentences = Sentences([2, 1])
    ref = weakref.ref(sentences)
    sentences.cached("about themselves", lambda: 1, beside=sentences)
    sentences.cached("about others", lambda: 1, beside=Sentences([1, 1]))
    gc.disable()
    try:
        del sentences
        assert ref() is None
    finally:
        gc.enable()


def test_sentences_are_immutable():
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
        ([1.5], ValueError, "lengths must be integers"),
        ([[1, 2]], ValueError, "lengths must be integers"),
        (np.array(3), ValueError, "lengths must be integers"),
        ([2**63 - 1, 2**63 - 1, 6], ValueError, "more rows than any array has"),
        ([2**62] * 4 + [4], ValueError, "more rows than any array has"),
        ([2**63], ValueError, "more rows than any array has"),
        (3, TypeError, "on the host, got int"),
        (backend("strict").asarray([1]), TypeError, "on the host, got StrictArray"),
    ],
)
def test_invalid_lengths_are_refused(lengths, kind, message):
    with pytest.raises(kind, match=message):
        Sentences(lengths)


def test_every_batch_of_a_step_keeps_its_plan_of_attention(monkeypatch):
    """However many there are: `accumulate` may be large."""
    made, plan_of = [], attention._plan
    monkeypatch.setattr(attention, "_plan", lambda *of: made.append(of) or plan_of(*of))
    batches = [(Sentences([3, i]), Sentences([i, 2])) for i in range(100)]
    for _ in range(2):  # before the step, and in it
        for source, target in batches:
            for queries, keys in ((source, source), (target, target), (target, source)):
                attention.plan(backend("numpy"), queries, keys)
    assert len(made) == 3 * len(batches)
