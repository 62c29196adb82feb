"""A search with a shortlist is one of a model that knows only these tokens, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Sentences, using
from npformer import Ensemble, Packed, SearchSettings, Transformer, Translator, UserError, search
from npformer.checkpoint import SHORTLIST, WEIGHTS, load_arrays, save_arrays
from npformer.shortlist import Shortlist
from npformer.shortlist_file import has_shortlist, load_shortlist, save_shortlist
from tests.npformer.test_search import assert_same, ended, random_model
from tests.npformer.test_translator import LINES, make_translator, save

VOCABULARY, BEGIN, END = 40, 1, 2
SOURCES = [[3, 4], [], [5, 5, 3, 6], [4], [6, 3, 4]]


def shortlist_of(always: list[int], *candidates: list[int], size: int = VOCABULARY) -> Shortlist:
    """candidates: for the first source tokens; the others have none."""
    of_source = Packed.of([*candidates, *[[]] * (size - len(candidates))])
    return Shortlist(np.array(always, np.int32), of_source, size)


EVERYTHING = shortlist_of(list(range(VOCABULARY)))
SOME = shortlist_of([0, END, 9], [], [], [], [10, 11, 12], [13, 14, 9], [10, 20, 21], [22])


def model_of(seed: int, **changes: Any) -> Transformer:
    return random_model(seed, vocab_size=VOCABULARY, **changes)


def allowed_of(shortlist: Shortlist, source: list[int]) -> set[int]:
    ids, allowed = shortlist.candidates(ended([source]))
    return set(ids[allowed[0]].tolist())


# Candidates


def test_a_sentence_has_the_candidates_of_its_tokens_and_those_of_all() -> None:
    found = SOME.candidates(Packed.of([[3, 4, 3], [], [6]]))
    assert [set(found.ids[row].tolist()) for row in found.allowed] == [
        {0, END, 9, 10, 11, 12, 13, 14},
        {0, END, 9},
        {0, END, 9, 22},
    ]
    assert (np.diff(found.ids) > 0).all()


def test_what_a_translation_begins_with_is_a_candidate() -> None:
    found = SOME.candidates(Packed.of([[3], [4]]), prefixes=[[], [30, 31]])
    assert [set(found.ids[row].tolist()) & {30, 31} for row in found.allowed] == [set(), {30, 31}]


@given(st.integers(1, 200), st.integers(0, 120), st.integers(1, 60))
def test_the_numbers_of_tokens_recur_and_no_id_is_there_twice(
    size: int, always: int, least: int
) -> None:
    always = min(always, size)
    ids, allowed = shortlist_of(list(range(always)), size=size).candidates(
        Packed.of([[0]]), least=least
    )
    assert len(set(ids.tolist())) == len(ids) >= min(size, max(always, least))
    assert len(ids) in {size, *range(16, 256, 16)}
    assert allowed.sum() == always


# The search


@pytest.mark.parametrize(
    "more",
    [
        {"beam": 1},
        {"alternatives": 3},
        {"beam": 6, "groups": 2, "alternatives": 4},
        {"min_length": 3, "no_repeat_ngram": 2},
        {"sampling": True, "alternatives": 2, "seed": 3},
        {"sampling": True, "alternatives": 2, "top_k": 3},
        {"coverage_penalty": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "changes", [{}, {"output_bias": True, "suppressed_ids": (0, 7)}], ids=["plain", "biased"]
)
def test_with_the_whole_vocabulary_it_is_the_search_without(
    more: dict[str, Any], changes: dict[str, Any]
) -> None:
    chosen = SearchSettings(extra_length=5, **more)
    model, source = model_of(1, **changes), ended(SOURCES)
    for prefixes in (None, [[], [8, 9], [], [10], []]):
        given = {"prefixes": prefixes}
        expected = search(model, source, chosen, BEGIN, END, **given)
        found = search(model, source, chosen, BEGIN, END, shortlist=EVERYTHING, **given)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs)


@given(st.integers(0, 2**31), st.sampled_from([1, 3]), st.sampled_from(["rules", "drawn", "none"]))
@settings(max_examples=20, deadline=None)
def test_each_line_is_translated_as_by_a_model_without_the_other_tokens(
    seed: int, beam: int, kind: str
) -> None:
    more: dict[str, Any] = {
        "rules": {"min_ratio": 0.5, "no_repeat_ngram": 2},
        "drawn": {"sampling": True},
        "none": {},
    }[kind]
    chosen = SearchSettings(beam, extra_length=4, **more)
    model = model_of(seed)
    together = search(model, ended(SOURCES), chosen, BEGIN, END, shortlist=SOME)
    for i, (source, found) in enumerate(zip(SOURCES, together, strict=True)):
        allowed = allowed_of(SOME, source)
        never = tuple(set(range(VOCABULARY)) - allowed)
        alone = model_of(seed, suppressed_ids=never)
        expected = search(alone, ended([source]), chosen, BEGIN, END, streams=[i])
        assert_same(found, expected[0])
        assert all(set(h.ids) <= allowed for h in found)


def test_a_beam_may_be_wider_than_a_list() -> None:
    chosen = SearchSettings(beam=12, extra_length=2, alternatives=12)
    few = shortlist_of([END, 5])
    [found] = search(model_of(3), ended([[3]]), chosen, BEGIN, END, shortlist=few)
    assert {token for h in found for token in h.ids} == {5}
    assert len(found) == len({tuple(h.ids) for h in found}) == 3  # as long as limits allow


def test_a_vocabulary_of_one_token_has_a_shortlist() -> None:
    one = shortlist_of([0], size=1)
    assert one.candidates(Packed.of([[0, 0], []])).ids.tolist() == [0]
    model = random_model(0, vocab_size=1)
    chosen = SearchSettings(extra_length=1)
    found = search(model, Packed.of([[0]]), chosen, 0, 0, shortlist=one)
    assert_same(found[0], search(model, Packed.of([[0]]), chosen, 0, 0)[0])


def test_models_together_have_one_shortlist() -> None:
    models = [model_of(4), model_of(5, d_model=4, heads=1)]
    chosen, source = SearchSettings(3, extra_length=4), ended(SOURCES)
    expected = search(Ensemble(models), source, chosen, BEGIN, END)
    found = search(Ensemble(models), source, chosen, BEGIN, END, shortlist=EVERYTHING)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    restricted = search(Ensemble(models), source, chosen, BEGIN, END, shortlist=SOME)
    for own, hypotheses in zip(SOURCES, restricted, strict=True):
        assert all(set(h.ids) <= allowed_of(SOME, own) for h in hypotheses)


@pytest.mark.parametrize("more", [{}, {"sampling": True}, {"min_length": 4}], ids=str)
def test_another_array_library_gives_the_same(more: dict[str, Any]) -> None:
    chosen, source = SearchSettings(2, extra_length=4, **more), ended(SOURCES)
    expected = search(model_of(4), source, chosen, BEGIN, END, shortlist=SOME)
    with using("strict"):
        model = model_of(4).to("strict")
        found = search(model, source, chosen, BEGIN, END, shortlist=SOME)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_the_fast_loops_give_the_same() -> None:
    chosen, source = SearchSettings(4, extra_length=8), ended(SOURCES)
    expected = search(model_of(6), source, chosen, BEGIN, END, shortlist=SOME)
    found = search(model_of(6, dtype=np.float32), source, chosen, BEGIN, END, shortlist=SOME)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.ids for h in ours] == [h.ids for h in theirs]
        assert ours[0].score == pytest.approx(theirs[0].score, rel=1e-4)


def test_one_of_another_vocabulary_is_refused() -> None:
    for other in (
        shortlist_of([END], size=VOCABULARY + 1),
        Shortlist(SOME.always, SOME.of_source, 9),
    ):
        with pytest.raises(ValueError, match="the shortlist is of"):
            search(model_of(0), ended([[3]]), shortlist=other)


# The file


translator = make_translator()
SIZE = translator.tokenizers.target.vocab_size


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model", translator.model, translator.tokenizers)


def some_shortlist(seed: int = 0) -> Shortlist:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 5, SIZE)
    of_source = Packed(rng.integers(0, SIZE, lengths.sum()).astype(np.int32), Sentences(lengths))
    return Shortlist(np.array([0, 2, 7, 50], np.int32), of_source, SIZE)


def test_it_is_read_as_it_was_written(model: Path) -> None:
    assert not has_shortlist(model)
    written = some_shortlist()
    save_shortlist(model, written, translator.tokenizers, {"pairs": 3})
    assert has_shortlist(model)
    read = load_shortlist(model, translator.tokenizers)
    np.testing.assert_array_equal(read.always, written.always)
    np.testing.assert_array_equal(read.of_source.tokens, written.of_source.tokens)
    np.testing.assert_array_equal(read.of_source.offsets, written.of_source.offsets)
    assert read.vocab_size == SIZE


def test_a_translator_uses_it_on_request(model: Path) -> None:
    save_shortlist(model, some_shortlist(), translator.tokenizers, {})
    loaded, chosen = Translator.load(model), {"extra_length": 5, "beam": 2}
    lines = [*LINES, "", "日本語", "🐕"]
    found = loaded.translate(lines, shortlist=True, **chosen)
    assert [t.text for t in found] != [t.text for t in loaded.translate(lines, **chosen)]
    streamed = loaded.translate_lines(iter(lines), lines_at_a_time=1, shortlist=True, **chosen)
    assert [t.text for t in streamed] == [t.text for t in found]
    for line, translation in zip(lines, found, strict=True):
        ids = loaded.tokenizers.source.encode(line)
        own, allowed = loaded.shortlist.candidates(Packed.of([[*ids, 2]]))
        pieces = loaded.tokenizers.target.pieces(own[allowed[0]])
        assert set(translation.tokens) <= set(pieces)
    together = Translator.ensemble([model, model]).translate(lines, shortlist=True, **chosen)
    assert [t.text for t in together] == [t.text for t in found]


def refusal(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        Translator.load(model).translate(["A dog."], shortlist=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_one_it_is_said_how_to_make_one(model: Path) -> None:
    assert refusal(model).endswith(f"make one with npformer shortlist --model {model}")
    with pytest.raises(UserError, match="no directory"):
        translator.translate(["A dog."], shortlist=True)


def test_one_of_another_vocabulary_is_told_apart(model: Path) -> None:
    save_arrays(model / SHORTLIST, _arrays(), {"tokenizers": {"tokenizer.spm": "0" * 64}})
    assert "belongs to a model of another vocabulary" in refusal(model)


def _arrays() -> dict[str, np.ndarray]:
    written = some_shortlist()
    return {
        "always": written.always,
        "candidates": written.of_source.tokens,
        "lengths": written.of_source.lengths,
    }


def test_a_damaged_file_is_refused(model: Path) -> None:
    save_shortlist(model, some_shortlist(), translator.tokenizers, {})
    path = model / SHORTLIST
    content = path.read_bytes()
    for damaged in (content[:-3], content[:40], b"", content[:-1] + b"\x00" * 7):
        path.write_bytes(damaged)
        assert str(path) in refusal(model)
    changed = bytearray(content)
    changed[-20] ^= 1
    path.write_bytes(changed)
    assert "has been altered" in refusal(model)
    path.unlink()
    path.mkdir()
    assert "cannot read" in refusal(model)


@pytest.mark.parametrize(
    "change",
    [
        {"always": np.array([SIZE], np.int32)},
        {"candidates": _arrays()["candidates"] - np.int32(SIZE)},
        {"lengths": _arrays()["lengths"][:-1]},
        {"lengths": _arrays()["lengths"] * 2},
        {"lengths": -_arrays()["lengths"]},
        {"lengths": _arrays()["lengths"].astype(np.int32)},
        {"always": np.zeros((2, 2), np.int32)},
        {"other": np.zeros(2)},
    ],
    ids=["id", "negative", "short", "long", "below 0", "dtype", "shape", "another array"],
)
def test_what_is_no_shortlist_is_refused(model: Path, change: dict[str, np.ndarray]) -> None:
    save_arrays(
        model / SHORTLIST,
        {**_arrays(), **change},
        {"tokenizers": translator.tokenizers.sha256},
    )
    assert "is not a shortlist" in refusal(model)


def test_other_files_of_the_model_are_no_shortlist(model: Path) -> None:
    (model / SHORTLIST).write_bytes((model / WEIGHTS).read_bytes())
    assert "is not a shortlist" in refusal(model)
    (model / SHORTLIST).write_bytes((model / "config.json").read_bytes())
    assert "cannot be read as safetensors" in refusal(model)


def test_how_it_was_made_is_kept_with_it(model: Path) -> None:
    save_shortlist(model, some_shortlist(), translator.tokenizers, {"pairs": 3})
    _, about = load_arrays(model / SHORTLIST)
    assert about == {"pairs": 3, "tokenizers": translator.tokenizers.sha256}
