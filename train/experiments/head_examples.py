"""Which sentences, words and heads the paper's Figures 3 to 5 are drawn of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from npformer.alignment import word_begins
from npformer.translation import Translation
from train.grammar import Splits, analyse

FAR = 3  # tokens between a word and what it needs, at least


@dataclass(frozen=True)
class Example:
    """A word of a sentence that attends to another, which is known to belong to it or far away.

    Attributes:
        translation: of the sentence, with its attention
        word, other: their places among the source's pieces
        layer: the encoder's layer whose heads see it best
        relation: what the two words are to each other, if that is known
    """

    translation: Translation
    word: int
    other: int
    layer: int
    relation: str

    @property
    def weights(self) -> np.ndarray:
        """The weights of the encoder's layer, [heads, n, n]."""
        assert self.translation.attention is not None
        of_layer: np.ndarray = self.translation.attention.encoder[self.layer]
        return of_layer

    def heads_that_see(self) -> list[int]:
        """The heads whose largest weight, apart from the word itself, is on the other word."""
        elsewhere = self.weights[:, self.word].copy()
        elsewhere[:, self.word] = 0
        return [int(h) for h in np.flatnonzero(elsewhere.argmax(-1) == self.other)]


def far_example(
    translations: Sequence[Translation], sources: Sequence[str], splits: Splits | None, longest: int
) -> Example | None:
    """A word that attends to a distant part of its verb or, without a grammar, to any far word."""
    return _best(_examples(translations, sources, splits, ("verb",), FAR), longest)


def reference_example(
    translations: Sequence[Translation], sources: Sequence[str], splits: Splits | None, longest: int
) -> Example | None:
    """A pronoun that attends to what it stands for; without a grammar, as `far_example`."""
    return _best(_examples(translations, sources, splits, ("antecedent",), 1), longest)


def different_heads(weights: np.ndarray) -> tuple[int, int, float]:
    """The two heads that differ most, and the mean total variation distance of their rows.

    weights: [heads, n, n], of all heads that are compared
    """
    heads = len(weights)
    apart = abs(weights[:, None] - weights[None]).sum(-1).mean(-1) / 2  # [heads, heads]
    first, second = divmod(int(apart.argmax()), heads)
    return first, second, float(apart[first, second])


def _best(examples: Iterator[Example], longest: int) -> Example | None:
    """The example whose word gives the other the most weight in one head, in a short sentence."""
    short = [e for e in examples if len(e.translation.source_pieces) <= longest]
    return max(short, key=lambda e: e.weights[:, e.word, e.other].max(), default=None)


def _examples(
    translations: Sequence[Translation],
    sources: Sequence[str],
    splits: Splits | None,
    kinds: Sequence[str],
    least: int,
) -> Iterator[Example]:
    """An example for each pair of words of these kinds of relation, at least so far apart."""
    for translation, source in zip(translations, sources, strict=True):
        if splits is None:
            yield from _farthest(translation)
            continue
        analysis = analyse(splits.trees[source], "english")
        place = word_begins(translation.source_pieces)
        if len(place) != len(analysis.words):
            continue  # a word of several pieces may begin without the mark
        for kind, head, dependent in analysis.relations:
            if kind in kinds and abs(place[head] - place[dependent]) >= least:
                yield _example(translation, place[dependent], place[head], kind)


def _example(translation: Translation, word: int, other: int, relation: str) -> Example:
    assert translation.attention is not None
    layer = int(translation.attention.encoder[:, :, word, other].max(-1).argmax())
    return Example(translation, word, other, layer, relation)


def _farthest(translation: Translation) -> Iterator[Example]:
    """The word that gives another one far away the largest weight."""
    assert translation.attention is not None
    weights = translation.attention.encoder.max((0, 1))[:-1, :-1]  # without the end
    queries, keys = np.indices(weights.shape)
    far = np.where(abs(queries - keys) >= FAR, weights, 0)
    if far.size and far.max() > 0:
        word, other = np.unravel_index(far.argmax(), far.shape)
        yield _example(translation, int(word), int(other), "")
