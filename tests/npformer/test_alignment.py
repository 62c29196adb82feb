"""Words of a translation are aligned with those of its source by attention."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer.alignment import align, pharaoh, word_begins, word_count, word_numbers
from npformer.translation import Translation, joined
from tests.npformer.test_translator import LINES, make_translator

translator = make_translator()
LONG = "Two girls sing in the garden. A dog runs."
pieces = st.lists(st.sampled_from(["\u2581", "\u2581a", "b", "\u2581cd", "<0x0A>"]), max_size=8)


@given(pieces)
def test_words_are_what_spaces_separate(pieces: list[str]) -> None:
    words = "".join(pieces).split("\u2581")
    assert word_count(pieces) == len([word for word in words if word])
    numbers = word_numbers(pieces)
    assert len(numbers) == len(pieces)
    for number, word in enumerate(word for word in words if word):
        own = [p for p, n in zip(pieces, numbers, strict=True) if n == number]
        assert "".join(own).replace("\u2581", "") == word
    begins = word_begins(pieces)
    assert [numbers[i] for i in begins] == sorted(set(numbers))
    assert all(i == 0 or numbers[i - 1] < numbers[i] for i in begins)


def test_a_word_is_aligned_with_the_one_that_it_attends_to_most() -> None:
    source = ["\u2581the", "\u2581do", "g", "\u2581barks"]
    target = ["\u2581der", "\u2581Hu", "nd", "\u2581bellt"]
    weights = np.array(
        [
            [0.6, 0.1, 0.1, 0.1, 0.1],
            [0.4, 0.3, 0.3, 0.0, 0.0],  # more to both pieces of "dog" than to "the"
            [0.4, 0.2, 0.3, 0.1, 0.0],
            [0.1, 0.0, 0.0, 0.2, 0.7],  # the end is no word
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    found = align(weights, source, target)
    assert found == ((0, 0), (1, 1), (2, 2))
    assert pharaoh(found) == "0-0 1-1 2-2"
    assert align(weights, source, []) == align(weights, [], target) == ()
    assert pharaoh(()) == ""


@pytest.mark.parametrize("layer", ["auto", "mean", 1, 2])
def test_each_word_of_a_translation_has_its_source_word(layer: Any) -> None:
    chosen: dict[str, Any] = {"extra_length": 4, "beam": 3, "alternatives": 3}
    found = translator.translate([*LINES, ""], alignment=layer, attention=True, **chosen)
    plain = translator.translate([*LINES, ""], **chosen)
    for line, translation, expected in zip(LINES, found, plain, strict=False):
        assert [t.text for t in translation.ranked] == [t.text for t in expected.ranked]
        assert expected.alignment == ()
        for t in translation.ranked:
            assert [target for _, target in t.alignment] == list(range(len(t.text.split())))
            assert all(source < len(line.split()) for source, _ in t.alignment)
        cross = translation.attention.cross.mean(axis=1)
        weights = {"auto": cross[0], "mean": cross.mean(axis=0)}.get(layer)
        weights = cross[layer - 1] if weights is None else weights
        pieces = translation.source_pieces[:-1], translation.predicted_pieces[:-1]
        assert translation.alignment == align(weights, *pieces)
    assert found[-1].alignment == ()


def test_an_alignment_without_attention_keeps_no_weights() -> None:
    [found] = translator.translate(LINES[:1], alignment="auto", extra_length=4)
    assert found.alignment
    assert found.attention is None


def test_parts_of_a_long_line_are_aligned_with_their_words() -> None:
    short = make_translator(positions="learned", max_length=30)
    [whole] = short.translate([LONG], alignment="mean", extra_length=4)
    parts = short.translate(
        ["Two girls sing in the garden.", "A dog runs."], alignment="mean", extra_length=4
    )
    words = len(parts[0].text.split())
    moved = tuple((s + 6, t + words) for s, t in parts[1].alignment)
    assert whole.alignment == parts[0].alignment + moved
    assert all(b == a + 1 for a, b in pairwise(t for _, t in whole.alignment))


def test_a_word_that_two_parts_share_is_one_word() -> None:
    first = Translation("ab c", 0, alignment=((0, 0), (1, 1)))
    first = replace(first, source_pieces=("▁a", "▁b", "</s>"), predicted_pieces=("▁ab", "▁c", ""))
    for glue, second in [(" ", (2, 2)), ("", (1, 1))]:
        assert joined([first, replace(first, alignment=((0, 0),))], ["", glue]).alignment == (
            (0, 0),
            (1, 1),
            second,
        )


@pytest.mark.parametrize("layer", [0, 3, -1, "best", 1.5])
def test_a_layer_that_is_not_there_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match="must be 1 to 2, auto or mean"):
        translator.translate(LINES, alignment=layer)
    with pytest.raises(ValueError, match="must be 1 to 2, auto or mean"):
        translator.score(LINES, LINES, alignment=layer)


def test_layers_of_an_alignment_are_those_of_the_decoder() -> None:
    deep, shallow = make_translator(decoder_layers=3), make_translator(decoder_layers=1)
    [found] = deep.translate(LINES[:1], alignment=3, extra_length=4)
    assert found.alignment
    with pytest.raises(ValueError, match="must be 1 to 1, auto or mean, got 2"):
        shallow.translate(LINES[:1], alignment=2)
