"""Packed sentences: nothing is lost and nothing is padded."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer.packed import Packed, pack, unpack

sentences_of_ids = st.lists(st.lists(st.integers(0, 50_000), max_size=6), max_size=6)
trailing_shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)


class Foreign:
    """An array of another library, which can be indexed but not converted to NumPy."""

    def __init__(self, hidden: np.ndarray) -> None:
        self.hidden = hidden
        self.shape = hidden.shape

    def __getitem__(self, key: Any) -> "Foreign":
        return Foreign(self.hidden[key])

    def __setitem__(self, key: Any, value: float) -> None:
        self.hidden[key] = value

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array")


def packed_values(lengths: list[int], trailing: tuple[int, ...]) -> Packed:
    shape = (sum(lengths), *trailing)
    return Packed(np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape), lengths)


@given(sentences_of_ids)
def test_packed_sentences_can_be_read_one_by_one(sentences: list[list[int]]) -> None:
    packed = Packed.of(sentences)
    assert [s.tolist() for s in packed] == sentences
    assert len(packed) == len(sentences)
    assert packed.tokens.dtype == np.int32
    assert packed.lengths.dtype == np.int64
    assert packed.offsets.tolist()[-1] == packed.tokens.shape[0]


@given(st.lists(st.integers(0, 5), max_size=6), trailing_shapes)
def test_pack_reverses_unpack(lengths: list[int], trailing: tuple[int, ...]) -> None:
    packed = packed_values(lengths, trailing)
    padded, given_lengths = unpack(packed)
    again = pack(padded, given_lengths)
    np.testing.assert_array_equal(again.tokens, packed.tokens)
    np.testing.assert_array_equal(again.lengths, lengths)
    assert padded.dtype == again.tokens.dtype == packed.tokens.dtype


@given(st.lists(st.integers(0, 5), max_size=6), trailing_shapes, st.integers(-9, 0))
def test_unpack_puts_padding_after_the_tokens(
    lengths: list[int], trailing: tuple[int, ...], pad_id: int
) -> None:
    packed = packed_values(lengths, trailing)
    padded, _ = unpack(packed, pad_id)
    assert padded.shape == (len(lengths), max(lengths, default=0), *trailing)
    for row, sentence in zip(padded, packed, strict=True):
        np.testing.assert_array_equal(row[: len(sentence)], sentence)
        assert (row[len(sentence) :] == pad_id).all()


@given(st.lists(st.integers(0, 5), max_size=6), trailing_shapes)
def test_unpack_returns_a_copy(lengths: list[int], trailing: tuple[int, ...]) -> None:
    packed = packed_values(lengths, trailing)
    before = packed.tokens.copy()
    unpack(packed)[0][...] = -1
    np.testing.assert_array_equal(packed.tokens, before)


@given(st.lists(st.integers(0, 5), max_size=6), trailing_shapes)
def test_arrays_of_another_library_stay_in_it(
    lengths: list[int], trailing: tuple[int, ...]
) -> None:
    ours = packed_values(lengths, trailing)
    packed = Packed(Foreign(ours.tokens), lengths)
    padded, _ = unpack(packed)
    assert isinstance(padded, Foreign)
    np.testing.assert_array_equal(padded.hidden, unpack(ours)[0])
    np.testing.assert_array_equal(pack(padded, lengths).tokens.hidden, ours.tokens)
    for theirs, mine in zip(packed, ours, strict=True):
        np.testing.assert_array_equal(theirs.hidden, mine)


@pytest.mark.parametrize("lengths", [[2], [4], [-1, 4], [1.5, 1.5], [[3]], 3])
def test_lengths_that_do_not_fit_are_refused(lengths: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"lengths|tokens"):
        Packed(np.zeros(3, np.int32), lengths)


def test_lengths_are_copied_and_read_only() -> None:
    lengths = np.array([1, 2])
    packed = Packed(np.zeros(3), lengths)
    lengths[0] = 7
    assert packed.lengths.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        packed.lengths[0] = 7


@pytest.mark.parametrize("lengths", [[3, 1], [1], [1, 1, 1]])
def test_pack_refuses_lengths_of_another_batch(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        pack(np.zeros((2, 2)), lengths)


@pytest.mark.parametrize("sentence", [[1.0, 2.0], [[1]], ["a"]])
def test_token_ids_must_be_whole_numbers(sentence: Any) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        Packed.of([sentence])


@pytest.mark.parametrize("too_large", [2**31, 2**32 + 3, -(2**32)])
def test_token_ids_are_not_cut_to_32_bits(too_large: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        Packed.of([[1, 2], [3, too_large]])


@pytest.mark.parametrize("index", [-1, -2, 3])
def test_a_sentence_that_is_not_there_cannot_be_taken(index: int) -> None:
    packed = Packed.of([[1, 2], [3], [4, 5, 6]])
    with pytest.raises(IndexError, match=f"holds {index}, but there are 3"):
        packed.take(np.array([0, index]))
    with pytest.raises(TypeError, match="whole numbers"):
        packed.take(np.array([True, False, True]))


def test_sentences_are_taken_by_indices_of_any_integer_dtype() -> None:
    packed = Packed.of([[i] for i in range(256)])
    assert packed.take(np.array([255, 0], np.uint8)).tokens.tolist() == [255, 0]
