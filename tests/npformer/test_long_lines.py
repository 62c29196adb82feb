"""Lines that are too long for a model: split at sentence ends and joined again, cut, or skipped."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Tokenizer, TokenizerPair, Translation, Translator, UserError
from npformer.alignment import word_count
from npformer.long_lines import DividedLines, divide
from npformer.translation import joined
from npformer.vocabulary import Vocabulary
from tests.npformer.test_translator import LINES, make_translator, tokenizer

BOTH = tokenizer()
LONGEST = 12
translator = make_translator(positions="learned", max_length=30)


def divided(lines: list[str], how: Any, longest: int = LONGEST) -> DividedLines:
    return divide(lines, range(1, len(lines) + 1), BOTH, longest, how)


words = st.sampled_from(["dog", "sings", "girls", "é", "日本", "a", "Mädchen"])
endings = st.sampled_from([" ", " ", "  ", ". ", "! ", ".» ", "? ", "。"])
texts = st.lists(st.tuples(words, endings).map("".join), max_size=40).map("".join)


@given(st.lists(texts, min_size=1, max_size=4), st.integers(4, 20))
@settings(max_examples=40)
def test_the_parts_of_a_line_are_short_and_make_it_up(lines: list[str], longest: int) -> None:
    found = divided(lines, "split", longest)
    assert all(0 < len(ids) <= longest for ids in found.sentences)
    for i, line in enumerate(lines):
        parts = [k for k, own in enumerate(found.line_of) if own == i]
        text = "".join(
            (found.glue[k] if k > parts[0] else "") + BOTH.decode(found.sentences[k]) for k in parts
        )
        assert text.replace(" ", "") == BOTH.decode(BOTH.encode(line)).replace(" ", "")
        is_long = len(BOTH.encode(line)) > longest
        assert (len(parts) > 1) == is_long == bool(found.notes[i])


def test_a_line_is_split_at_the_end_of_a_sentence_in_its_middle() -> None:
    for text, parts in [
        ("Yes. Two girls sing. A dog runs.", ["Yes. Two girls sing.", "A dog runs."]),
        (
            "A dog runs. Two girls sing in the garden",
            ["A dog runs.", "Two girls sing in the garden"],
        ),
        ("A dog, a garden, two girls", ["A dog, a", "garden, two girls"]),
    ]:
        longest = max(len(BOTH.encode(part)) for part in parts)
        assert longest < len(BOTH.encode(text))
        found = divided([text], "split", longest)
        assert [BOTH.decode(ids) for ids in found.sentences] == parts
        assert found.glue[1:] == [" "]


def test_a_line_of_any_length_is_split() -> None:
    for line in ("x" * (1 << 17), "word " * (1 << 15), "日本。" * (1 << 14)):
        found = divided([line, "A dog."], "split", 1000)
        assert max(map(len, found.sentences)) <= 1000
        assert set(found.line_of) == {0, 1}


@pytest.mark.parametrize(
    ("how", "note"), [("cut", "the rest is left out"), ("skip", "it is skipped")]
)
def test_a_line_may_be_cut_or_skipped(how: Any, note: str) -> None:
    long = "A dog runs in the garden. " * 4
    found = divided(["A dog.", long, "", "Yes."], how)
    ids = [BOTH.encode(line) for line in ("A dog.", long, "Yes.")]
    assert found.sentences == ([ids[0], ids[1][:LONGEST], ids[2]] if how == "cut" else ids[::2])
    assert found.line_of == ([0, 1, 3] if how == "cut" else [0, 3])
    assert note in found.notes[1]
    assert f"has {len(ids[1])} tokens, more than the 12 " in found.notes[1]
    assert [found.notes[i] for i in (0, 2, 3)] == ["", "", ""]


def test_an_unknown_treatment_is_refused() -> None:
    with pytest.raises(ValueError, match="long_lines must be one of split, cut, skip, refuse"):
        divided(["A dog."], "drop")


def test_the_translation_of_a_long_line_is_that_of_its_parts() -> None:
    line = "Two girls sing in the garden. A dog runs."
    both = translator.tokenizers.source
    assert len(both.encode(line)) > translator.longest_source
    lines = [LINES[0], line, LINES[3]]
    for options in ({}, {"alternatives": 3}):
        first, whole, last = translator.translate(lines, extra_length=4, **options)
        parts = translator.translate(
            ["Two girls sing in the garden.", "A dog runs."], extra_length=4, **options
        )
        assert whole.text == " ".join(part.text for part in parts)
        assert whole.score == pytest.approx(sum(part.score for part in parts))
        assert whole.tokens == (*parts[0].tokens, *parts[1].tokens)
        assert "it is translated in 2 parts" in whole.note
        assert first.note == last.note == ""
        assert len(whole.ranked) == max(len(part.ranked) for part in parts)
    assert translator.translate([line], long_lines="skip")[0].text == ""
    with pytest.raises(UserError, match=r"line 2 has \d+ tokens.*--long-lines"):
        translator.translate(lines, long_lines="refuse")


def test_each_part_of_a_line_has_its_tag() -> None:
    vocabulary = Vocabulary([*BOTH.pieces(range(300)), ">>de<<", ">>fr<<"], 1, 2, 0)
    tagged = Tokenizer(BOTH.model, vocabulary)
    made = make_translator(vocab_size=302, positions="learned", max_length=30)
    many = Translator(made.model, TokenizerPair(tagged, tagged))
    first, second = ">>de<< Two girls sing in the garden.", "A dog runs."
    for tail in (second, f">>fr<< {second}"):  # only a line begins with a tag
        found = many.divide([f"{first} {tail}"], [1], "split")
        assert [ids[0] for ids in found.sentences] == [300, 300]
        assert not any(301 in ids for ids in found.sentences)
        assert max(map(len, found.sentences)) <= many.longest_source
    options: dict[str, Any] = {"attention": True, "alignment": "mean", "extra_length": 4}
    [whole] = many.translate([f"{first} {second}"], **options)
    one, other = many.translate([first, f">>de<< {second}"], **options)
    assert (whole.text, whole.attention) == (f"{one.text} {other.text}".strip(), None)
    words = word_count(one.predicted_pieces[:-1])
    moved = [(s + 6 if s else 0, t + words) for s, t in other.alignment]
    assert whole.alignment == (*one.alignment, *moved)


def test_lines_are_as_long_as_those_of_training_or_as_asked() -> None:
    line = "Two girls sing in the garden."  # 13 tokens or so
    length = len(BOTH.encode(line))

    def parts(model: Translator, **options: Any) -> int:
        [found] = model.translate([line], extra_length=2, **options)
        return int(found.note.split()[-2]) if found.note else 1

    sinusoids = make_translator(longest=length - 1, max_length=4)
    assert (sinusoids.longest_source, translator.longest_source) == (length - 1, 29)
    assert parts(sinusoids) == 2
    assert parts(sinusoids, longest=length) == 1  # beyond training, as asked
    assert parts(translator, longest=length) == 1
    assert parts(translator, longest=length - 1) == 2
    [found] = sinusoids.translate_lines([line], longest=length, extra_length=2)
    assert not found.note
    for longest, message in ((0, "longest must be at least 1"), (30, "has learned 30 positions")):
        with pytest.raises(UserError, match=message):
            translator.translate([line], longest=longest)
    older = make_translator(max_length=7)  # nobody knows
    assert older.longest_source == 6
    assert make_translator(positions="learned", max_length=9, longest=20).longest_source == 8


def test_joined_alternatives_are_made_of_those_of_the_same_rank() -> None:
    def ranked(*texts: str) -> Translation:
        best, *others = (Translation(text, -float(i)) for i, text in enumerate(texts))
        return Translation(best.text, best.score, tuple(others))

    whole = joined([ranked("a", "b", "c"), ranked("", ""), ranked("d", "e")], ["", " ", ""])
    assert [t.text for t in whole.ranked] == ["ad", "be", "ce"]
    assert [t.score for t in whole.ranked] == [0, -3, -4]
    assert joined([], []) == Translation("", 0.0)


# Streams


def test_a_stream_gives_the_translations_of_a_list() -> None:
    lines = [*LINES, "", "Two girls sing in the garden. A dog runs."] * 2
    expected = translator.translate(lines, extra_length=4)
    for at_a_time in (1, 3, 1000):
        found = translator.translate_lines(iter(lines), lines_at_a_time=at_a_time, extra_length=4)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.text, ours.note) == (theirs.text, theirs.note)
            assert ours.score == pytest.approx(theirs.score, rel=1e-5)


def test_prefixes_go_with_the_lines_of_a_stream() -> None:
    prefixes = ["Yes.", "", "girls", "A dog"]
    expected = translator.translate(LINES, prefixes=prefixes, extra_length=2)
    assert all(t.text.startswith(prefix) for t, prefix in zip(expected, prefixes, strict=True))
    found = translator.translate_lines(
        LINES, prefixes=iter(prefixes), lines_at_a_time=3, extra_length=2
    )
    assert [t.text for t in found] == [t.text for t in expected]
    with pytest.raises(ValueError, match="4 lines and 3 prefixes"):
        translator.translate(LINES, prefixes=prefixes[:3])


def test_the_first_part_of_a_long_line_begins_with_its_prefix() -> None:
    [found] = translator.translate(
        ["Two girls sing in the garden. A dog runs."], prefixes=["Yes. No."], extra_length=3
    )
    assert found.text.startswith("Yes. No.")
    assert found.text.count("Yes. No.") == 1


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_an_endless_stream_is_read_as_far_as_needed(at_a_time: int) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for i in count():
            read = i + 1
            yield LINES[i % len(LINES)]

    stream = translator.translate_lines(endless(), lines_at_a_time=at_a_time, extra_length=2)
    assert read == 0
    for n in range(1, 10):
        assert len(list(islice(stream, 1))) == 1
        assert n <= read <= n + at_a_time - 1


def test_threads_may_translate_at_the_same_time() -> None:
    lines = [*LINES, "", "Two girls sing in the garden. A dog runs."]
    options: list[dict[str, Any]] = [
        {"beam": 1},
        {"alternatives": 2, "no_repeat_ngram": 2},
        {"sampling": True, "seed": 3},
        {"alignment": "mean"},
    ]

    def work(chosen: dict[str, Any]) -> list[Translation]:
        return list(translator.translate_lines(lines, extra_length=3, lines_at_a_time=2, **chosen))

    expected = [work(chosen) for chosen in options]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(work, options)) == expected


def test_a_line_that_is_refused_comes_after_those_before_it() -> None:
    lines = ["A dog.", "Yes.", "", "Yes. " * 60, "No."]
    found = []
    with pytest.raises(UserError, match="line 4 has"):
        found.extend(translator.translate_lines(lines, long_lines="refuse", extra_length=2))
    assert [t.text for t in found] == [
        t.text for t in translator.translate(lines[:3], extra_length=2)
    ]


def test_mistakes_are_told_before_any_line_is_read() -> None:
    with pytest.raises(TypeError, match="single string"):
        translator.translate_lines("A dog.")
    with pytest.raises(ValueError, match="beam must"):
        translator.translate_lines([], beam=0)
    with pytest.raises(ValueError, match="lines_at_a_time must be at least 1"):
        translator.translate_lines([], lines_at_a_time=0)


def test_a_batch_that_is_done_is_not_held_back() -> None:
    # Long sentences are translated first, each in a batch of its own.
    lines = ["Two girls sing in the garden.", "A dog.", "Yes."]
    parts = translator.divide(lines, [1, 2, 3], "split")
    done = []

    def found() -> Iterator[tuple[int, Translation]]:
        for i in (0, 2, 1):
            done.append(i)
            yield i, Translation(str(i), 0.0)

    seen = [([t.text for t in some], list(done)) for some in parts.translations(found())]
    assert seen == [(["0"], [0]), (["1", "2"], [0, 2, 1])]


def test_a_tokenizer_that_gives_nothing_for_a_line_gives_a_blank_one() -> None:
    assert isinstance(BOTH, Tokenizer)
    assert divided(["   ", "\t"], "split").sentences == []
