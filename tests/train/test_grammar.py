"""The generated corpus: neither memorizing nor a dictionary solves its held-out pairs."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256

import numpy as np
import pytest
import sacrebleu

from tests.train.trees import NOUNS
from train.grammar import Pair, Splits, generate, lexicon, splits
from train.grammar.syntax import Sentence
from train.grammar.writing import word_forms


@pytest.fixture(scope="module")
def corpus() -> Splits:
    return generate()


@pytest.fixture(scope="module")
def held_out(corpus: Splits) -> list[Pair]:
    return corpus.valid + corpus.test


def test_there_are_40_000_distinct_training_pairs(corpus: Splits) -> None:
    assert len(corpus.train) == 40_000 == len({pair.source for pair in corpus.train})
    assert (len(corpus.valid), len(corpus.test)) == (500, 500)


def test_a_seed_determines_the_corpus() -> None:
    assert generate(2_000, 50, seed=3) == generate(2_000, 50, seed=3)
    assert generate(2_000, 50, seed=3) != generate(2_000, 50, seed=4)


def test_the_demonstrations_test_set_never_changes(corpus: Splits) -> None:
    """So that scores of different versions can be compared."""
    lines = "".join(f"{pair.source}\n{pair.target}\n" for pair in corpus.test)
    assert sha256(lines.encode()).hexdigest() == (
        "04c2129655e014f551cb7db15e7ad9cbe48f8d7a8032804fa07e33969831ebce"
    )


def test_more_training_pairs_do_not_change_the_others() -> None:
    few, many = generate(2_000, 50, seed=3), generate(2_000, 50, seed=3, more_pairs=3_000)
    assert (many.valid, many.test) == (few.valid, few.test)
    assert many.train[:2_000] == few.train
    assert len({pair.source for pair in many.train}) == 5_000
    held_out = {text for pair in many.valid + many.test for text in pair}
    assert held_out.isdisjoint(text for pair in many.train for text in pair)


def test_sentences_have_a_readable_length(corpus: Splits) -> None:
    lengths = [text.count(" ") + 1 for pair in corpus.train for text in pair]
    assert min(lengths) >= 4
    assert max(lengths) <= 16
    assert 9 <= np.mean(lengths) <= 11


def test_sentences_are_capitalized_and_punctuated(corpus: Splits) -> None:
    for text in (text for pair in corpus.train for text in pair):
        assert text[0].isupper()
        assert text[-1] in ".?"
        assert not any(flaw in text for flaw in (" ,", ",,", ",.", ",?", "  "))


def test_held_out_sentences_are_new_in_both_languages(corpus: Splits, held_out: list[Pair]) -> None:
    for side in (0, 1):
        texts = [pair[side] for pair in corpus.train]
        new = [pair[side] for pair in held_out]
        assert not set(texts) & set(new)
        assert len(set(new)) == len(new)


def test_held_out_words_occur_in_training(corpus: Splits, held_out: list[Pair]) -> None:
    for side in (0, 1):
        known = {form for pair in corpus.train for form in word_forms(pair[side])}
        assert known.issuperset(form for pair in held_out for form in word_forms(pair[side]))


def test_held_out_sentences_have_combinations_that_training_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checked on the trees, not with the function that splits them."""
    trees: dict[Pair, Sentence] = {}
    translate = splits.translate

    def remember(tree: Sentence) -> Pair:
        pair = translate(tree)
        trees.setdefault(pair, tree)
        return pair

    monkeypatch.setattr(splits, "translate", remember)
    corpus = generate(8_000, 300, seed=2)
    trained = {c for pair in corpus.train for c in splits.combinations(trees[pair])}
    for part in (corpus.valid, corpus.test):
        for pair in part:
            assert not trained.issuperset(splits.combinations(trees[pair])), pair
        depths = Counter(splits.nesting(trees[pair]) for pair in part)
        assert depths[3] / len(part) == pytest.approx(0.1, abs=0.02)
    assert max(splits.nesting(trees[pair]) for pair in corpus.train) == 2


def test_many_sentences_have_two_nouns_that_could_be_exchanged(corpus: Splits) -> None:
    """Two people or animals in the same number: only word order tells their roles."""
    classes = {noun.english: (noun.kind == "thing", False) for noun in NOUNS.values()}
    classes |= {noun.english_plural: (noun.kind == "thing", True) for noun in NOUNS.values()}
    exchangeable = 0
    for pair in corpus.train:
        named = {word for word in word_forms(pair.source) if word in classes}
        exchangeable += len({classes[word] for word in named}) < len(named)
    assert exchangeable / len(corpus.train) > 0.25


# The best translation that a dictionary can give


def tokens(text: str) -> list[str]:
    """Words and punctuation; the first word in lower case unless it is a name."""
    first, _, rest = text.partition(" ")
    first = first if first in ("I", *lexicon.NAMES) else first.lower()
    return re.findall(r"[\w'-]+|[,.?]", f"{first} {rest}")


def lexical_model(pairs: list[Pair], iterations: int = 8) -> dict[str, list[str]]:
    """IBM model 1: for each source word its likeliest translations, best first."""
    sources, targets, cells = {}, {}, []
    for row, pair in enumerate(pairs):
        source = [sources.setdefault(word, len(sources)) for word in tokens(pair.source)]
        target = [targets.setdefault(word, len(targets)) for word in tokens(pair.target)]
        cells += [(row * 64 + j, f, e) for j, f in enumerate(target) for e in source]
    position, f, e = np.array(cells).T
    position = np.unique(position, return_inverse=True)[1]
    table = np.full((len(sources), len(targets)), 1 / len(targets))
    for _ in range(iterations):
        weight = table[e, f]
        weight /= np.bincount(position, weight)[position]
        counts = np.bincount(e * len(targets) + f, weight, minlength=table.size)
        table = counts.reshape(table.shape)
        table /= table.sum(1, keepdims=True)
    words = list(targets)
    return {s: [words[i] for i in np.argsort(-table[j])[:4]] for s, j in sources.items()}


def improvements(candidates: list[str]) -> Iterator[str]:
    """Other translations of a frequent word: none, another word, or a phrase of two."""
    yield ""
    yield from candidates[1:3]
    yield f", {candidates[0]}"
    yield f"{candidates[0]} {candidates[1]}"


def best_dictionary(
    pairs: list[Pair], score: Callable[[dict[str, str]], float], frequent: int
) -> dict[str, str]:
    """A dictionary whose frequent entries are chosen one by one to maximize the score."""
    candidates = lexical_model(pairs)
    dictionary = {source: words[0] for source, words in candidates.items()}
    counts = Counter(word for pair in pairs for word in tokens(pair.source))
    best = score(dictionary)
    for source, _ in counts.most_common(frequent):
        for entry in improvements(candidates[source]):
            attempt = {**dictionary, source: entry}
            if (bleu := score(attempt)) > best:
                best, dictionary = bleu, attempt
    return dictionary


def dictionary_bleu(dictionary: dict[str, str], pairs: list[Pair]) -> float:
    """BLEU of word-for-word translation."""
    lines = []
    for pair in pairs:
        words = [dictionary.get(word, word) for word in tokens(pair.source)]
        text = " ".join(word for word in words if word)
        lines.append(text[:1].upper() + text[1:])
    # Full stops stay separate words, as BLEU counts them; `force` silences its warning.
    return sacrebleu.corpus_bleu(lines, [[pair.target for pair in pairs]], force=True).score


def test_no_dictionary_translates_the_corpus(corpus: Splits, held_out: list[Pair]) -> None:
    """Even one that is fitted to the pairs that it is scored on stays below 40 BLEU."""
    tuned = held_out[::10]
    dictionary = best_dictionary(
        corpus.train[:6_000], lambda attempt: dictionary_bleu(attempt, tuned), frequent=25
    )
    assert 5 < dictionary_bleu(dictionary, held_out) < 40
