"""How parsers are scored: labelled brackets, by the rules of EVALB with COLLINS.prm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from train.parsing.trees import TOP, Leaf, Node, Tree

PUNCTUATION = frozenset({",", ":", "``", "''", "."})
"""Tags whose words are left out before spans are counted."""

_LEFT_OUT = PUNCTUATION | {TOP, "-NONE-"}
_SAME = {"PRT": "ADVP"}
_FUNCTIONS = re.compile("[-=].*")

Bracket = tuple[str, int, int]


@dataclass(frozen=True)
class Brackets:
    """What counts in a tree: its words without punctuation, and its constituents.

    brackets: how often each occurs: its label, and from which to before which of the words
    """

    words: list[str]
    brackets: Counter[Bracket]

    @classmethod
    def of(cls, tree: Tree, tags: Sequence[str] | None = None) -> Brackets:
        """The brackets of a tree. tags: of its words, in place of its own.

        Words whose tags are punctuation's, or -NONE-, are left out, and constituents that have no
        other words. Labels lose what begins with "-" or "="; the top is no bracket; PRT is the same
        as ADVP.
        """
        words: list[str] = []
        brackets: Counter[Bracket] = Counter()
        given = None if tags is None else iter(tags)
        waiting: list[tuple[Tree, int | None]] = [(tree, None)]
        while waiting:
            of, begin = waiting.pop()
            if isinstance(of, Leaf):
                if (next(given) if given else of.tag) not in _LEFT_OUT:
                    words.append(of.word)
            elif begin is None:
                waiting.append((of, len(words)))
                waiting += [(child, None) for child in reversed(of.children)]
            else:
                label = _FUNCTIONS.sub("", of.label)
                if begin < len(words) and label not in _LEFT_OUT:
                    brackets[_SAME.get(label, label), begin, len(words)] += 1
        return cls(words, brackets)


class ParseScore(NamedTuple):
    """How well a parser's trees agree with those of a treebank.

    Attributes:
        sentences: of the treebank; each counts
        matched: brackets that are in both trees of a sentence, as often as they are in both
        gold: brackets of the treebank
        predicted: brackets of the parser
        exact: sentences all of whose brackets are the treebank's
        errors: sentences whose words differ once punctuation is left out, because of other tags.
            There no bracket of the parser's counts, and all of the treebank's do; EVALB leaves such
            sentences out.
    """

    sentences: int
    matched: int
    gold: int
    predicted: int
    exact: int
    errors: int

    @property
    def precision(self) -> float:
        """Matched brackets among the parser's, in percent."""
        return 100 * self.matched / max(1, self.predicted)

    @property
    def recall(self) -> float:
        """Matched brackets among the treebank's, in percent."""
        return 100 * self.matched / max(1, self.gold)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, in percent."""
        return 200 * self.matched / max(1, self.gold + self.predicted)


def score(gold: Node, predicted: Node | None, tags: Sequence[str] | None = None) -> ParseScore:
    """The score of one tree; None is a sentence without a parse.

    tags: of the predicted tree's words, in place of its own
    """
    wanted = Brackets.of(gold)
    found = Brackets([], Counter()) if predicted is None else Brackets.of(predicted, tags)
    if wanted.words != found.words:
        return ParseScore(1, 0, wanted.brackets.total(), 0, 0, 1)
    return ParseScore(
        sentences=1,
        matched=(wanted.brackets & found.brackets).total(),
        gold=wanted.brackets.total(),
        predicted=found.brackets.total(),
        exact=int(predicted is not None and wanted.brackets == found.brackets),
        errors=0,
    )


def total(scores: Iterable[ParseScore]) -> ParseScore:
    """The score of all sentences, from those of each."""
    return ParseScore(*map(sum, zip(*scores, strict=True)))
