"""Long-range dependence: whether a German verb agrees with its subject, however far away it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from npformer.translator import Translator
from train.grammar import Splits, analyse
from train.grammar.relations import Analysis
from train.grammar.syntax import NounPhrase, Sentence, clauses, main_clauses


class MinimalPair(NamedTuple):
    """A German translation, and the same with one finite verb in the wrong number.

    distance: in words, between the verb and the head of its subject
    """

    source: str
    right: str
    wrong: str
    distance: int


def minimal_pairs(sources: Sequence[str], splits: Splits) -> list[MinimalPair]:
    """A pair for each verb whose subject is a noun, and whose form tells the number."""
    return [pair for source in sources for pair in _pairs(source, splits.trees[source])]


def _pairs(source: str, tree: Sentence) -> Iterator[MinimalPair]:
    right = analyse(tree, "german")
    for main in main_clauses(tree):
        for clause in clauses(main):
            subject = clause.subject
            if not isinstance(subject, NounPhrase):
                continue
            subject.plural = not subject.plural
            try:
                wrong = analyse(tree, "german")
            finally:
                subject.plural = not subject.plural
            yield from _changed_verb(source, right, wrong)


def _changed_verb(source: str, right: Analysis, other: Analysis) -> Iterator[MinimalPair]:
    """The pair of the verb that has another form where the number of its subject is another."""
    both = zip(_agreements(right), _agreements(other), strict=True)
    changed = [
        (verb, subject, other.words[other_verb])
        for (verb, subject), (other_verb, _) in both
        if right.words[verb] != other.words[other_verb]
    ]
    for verb, subject, form in changed:
        words = right.words
        words[verb] = form
        yield MinimalPair(source, right.text, " ".join(words), abs(verb - subject))


def _agreements(analysis: Analysis) -> list[tuple[int, int]]:
    """Each finite verb and its subject, in the order of the subjects."""
    return [(r.head, r.dependent) for r in analysis.relations if r.kind == "subject"]


def accuracy_by_distance(
    translator: Translator, pairs: Sequence[MinimalPair]
) -> list[tuple[int, int, float]]:
    """For each distance, how many pairs there are, and how often the right form is the likelier."""
    sources = [pair.source for pair in pairs]
    right, wrong = (
        np.array([t.log_p for t in translator.score(sources, targets)])
        for targets in ([pair.right for pair in pairs], [pair.wrong for pair in pairs])
    )
    distances = np.array([pair.distance for pair in pairs])
    return [
        (int(d), int((distances == d).sum()), float((right > wrong)[distances == d].mean()))
        for d in np.unique(distances)
    ]
