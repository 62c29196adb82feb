"""Shortlists that are learned from text, or from a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Packed, TokenizerPair, Transformer, TransformerConfig, UserError
from npformer.checkpoint import save_model
from npformer.shortlist import Shortlist
from tests.train.small_corpus import PAIRS, make_corpus, write
from train import shortlists
from train.corpora.corpus import Corpus
from train.corpora.sentences import ParallelTokens
from train.shortlists import coverage, evenly, learn_shortlist, pairs_of_corpus, pairs_of_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its text, and a model of its vocabulary."""
    folder = tmp_path_factory.mktemp("shortlists")
    corpus = make_corpus(folder)
    size = corpus.tokenizers.target.vocab_size
    config = TransformerConfig(vocab_size=size, layers=1, d_model=8, d_ff=8, heads=2)
    save_model(folder / "model", Transformer(config), corpus.tokenizers)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus.open(folder / "corpus")


def pieces_for(shortlist: Shortlist, tokenizers: TokenizerPair, text: str) -> set[str]:
    ids, allowed = shortlist.candidates(Packed.of([tokenizers.source.encode(text)]))
    return set(tokenizers.target.pieces(ids[allowed[0]]))


def test_a_sentence_may_be_translated_as_its_words_were(corpus: Corpus) -> None:
    learned = learn_shortlist(corpus.train, corpus.tokenizers, best=3, frequent=0)
    target = corpus.tokenizers.target
    for source, translation in PAIRS[:12]:
        found = pieces_for(learned, corpus.tokenizers, source)
        expected = target.pieces(target.encode(translation))
        assert np.mean([piece in found for piece in expected]) > 0.9
        assert len(found) < 200  # of 300, of which more than half are bytes
    others = pieces_for(learned, corpus.tokenizers, "A dog runs here.")
    assert "▁Mädchen" not in others


def test_more_candidates_cover_more(corpus: Corpus) -> None:
    found = [
        coverage(learn_shortlist(corpus.train, corpus.tokenizers, best=b, frequent=f), corpus.train)
        for b, f in [(0, 0), (1, 0), (5, 0), (5, 100), (300, 300)]
    ]
    assert [f.candidates for f in found] == sorted(f.candidates for f in found)
    assert [f.share for f in found] == sorted(f.share for f in found)
    assert found[0].share < found[1].share < found[3].share
    assert found[-1].share == 1


def test_what_is_copied_is_a_candidate(corpus: Corpus) -> None:
    learned = learn_shortlist(corpus.train, corpus.tokenizers, best=0, frequent=0)
    tokenizers = corpus.tokenizers
    found = pieces_for(learned, tokenizers, "Zebra 🦓 17")
    assert set(tokenizers.source.pieces(tokenizers.source.encode("Zebra 🦓 17"))) <= found
    assert {"</s>", "<unk>", "."} <= found
    assert "▁Hund" not in found


def test_with_two_vocabularies_the_same_text_is_copied() -> None:
    found = shortlists._copies(["▁a", "b", "▁", "x"], ["b", "a", "▁b", "▁", "y"])
    assert sorted(map(tuple, found.tolist())) == [(0, 1), (1, 0), (1, 2), (2, 3)]
    assert shortlists._copies(["x"], ["y"]).shape == (0, 2)


def test_text_gives_what_its_corpus_gives(folder: Path, corpus: Corpus) -> None:
    tokenizers = corpus.tokenizers
    of_corpus = pairs_of_corpus(folder / "corpus", folder / "model", 1000)
    of_text = pairs_of_text([folder / "train.0"], [folder / "train.1"], tokenizers, 1000)
    for one, other in ((of_corpus.sources, of_text.sources), (of_corpus.targets, of_text.targets)):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.offsets, other.offsets)
    learned = [learn_shortlist(pairs, tokenizers) for pairs in (of_corpus, of_text)]
    assert learned[0].of_source.tokens.tobytes() == learned[1].of_source.tokens.tobytes()


def test_of_many_pairs_every_nth_is_taken(folder: Path, corpus: Corpus) -> None:
    of_corpus = pairs_of_corpus(folder / "corpus", folder / "model", 10)
    of_text = pairs_of_text([folder / "train.0"], [folder / "train.1"], corpus.tokenizers, 10)
    assert len(of_corpus) == len(of_text) == 9  # every fourth of 36
    for i in range(9):
        np.testing.assert_array_equal(of_text.source(i), corpus.train.source(4 * i))
        np.testing.assert_array_equal(of_corpus.target(i), corpus.train.target(4 * i))
    assert len(evenly(corpus.train, 36)) == 36


def test_empty_and_very_long_lines_are_left_out(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlists, "_LINES", 2)
    source = write(tmp_path / "s", ["A dog runs.", "", "A dog", " ", "a " * 300, "Here."])
    target = write(tmp_path / "t", ["Ein Hund rennt.", "Nichts", "", " ", "ein", "Hier."])
    found = pairs_of_text([source], [target], corpus.tokenizers, 100)
    texts = [corpus.tokenizers.source.decode(found.source(i)) for i in range(len(found))]
    assert texts == ["A dog runs.", "Here."]


def test_without_pairs_nothing_is_learned(tmp_path: Path, corpus: Corpus) -> None:
    empty = write(tmp_path / "empty", ["", ""])
    found = pairs_of_text([empty], [empty], corpus.tokenizers, 100)
    with pytest.raises(UserError, match="no sentence pairs"):
        learn_shortlist(found, corpus.tokenizers)
    one = ParallelTokens.of([[3]], [[4]])
    assert learn_shortlist(one, corpus.tokenizers, best=1, frequent=1).of_source.lengths.sum() > 0


@pytest.mark.parametrize("wrong", [{"best": -1}, {"frequent": -5}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any], corpus: Corpus) -> None:
    with pytest.raises(UserError, match="must be at least 0"):
        learn_shortlist(corpus.train, corpus.tokenizers, **wrong)


def test_a_corpus_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path, vocab_size=290)
    with pytest.raises(UserError, match="another vocabulary"):
        pairs_of_corpus(tmp_path / "corpus", folder / "model", 100)
