"""The scores of a parser, sentence by sentence, and whether two parsers' can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.parsing.evalb import ParseScore, score, total
from train.parsing.trees import Node, leaves

_SAMPLES = 1000


def judged(
    gold: Sequence[Node], predicted: Sequence[Node | None], whole: Sequence[bool]
) -> dict[str, Any]:
    """The scores of some sentences as JSON: of each, a string of numbers for a count, and in all.

    whole: whether each predicted tree was one as the parser gave it
    """
    own = [score(*both) for both in zip(gold, predicted, strict=True)]
    tags = [[leaf.tag for leaf in leaves(tree)] for tree in gold]
    with_tags = [score(*three) for three in zip(gold, predicted, tags, strict=True)]
    return {
        "own tags": _columns(own),
        "treebank's tags": total(with_tags)._asdict(),
        "whole": " ".join(map(str, map(int, whole))),
    }


def _columns(scores: Sequence[ParseScore]) -> dict[str, str]:
    columns = zip(*scores, strict=True)
    return {
        name: " ".join(map(str, column))
        for name, column in zip(ParseScore._fields, columns, strict=True)
    }


class Interval(NamedTuple):
    """A difference, and the interval that holds it with a probability of 95 %."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The scores of all sentences.

    Attributes:
        own: [sentences, counts], the counts of a ParseScore, with the parser's own tags
        with_tags: of all, with the treebank's, of which the only use is to say what is punctuation
        whole: [sentences], whether it was a tree as the parser gave it
    """

    own: NDArray[np.int64]
    with_tags: ParseScore
    whole: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[Mapping[str, Any]]) -> Scores:
        """What `judged` has found for parts of the sentences, in order."""
        own = [
            np.array([part["own tags"][field].split() for field in ParseScore._fields], np.int64)
            for part in parts
        ]
        with_tags = total(ParseScore(**part["treebank's tags"]) for part in parts)
        whole = [digit == "1" for part in parts for digit in part["whole"].split()]
        return cls(np.concatenate(own, axis=1).T, with_tags, np.array(whole))

    @property
    def total(self) -> ParseScore:
        """The score of all sentences."""
        return self.among(np.ones(len(self.own), bool))

    def among(self, chosen: NDArray[np.bool_]) -> ParseScore:
        """The score of some of the sentences."""
        return ParseScore(*self.own[chosen].sum(axis=0).tolist())

    def better_than(self, other: Scores) -> Interval:
        """By how many points of F1 this parser is better.

        The interval is of sentences drawn again from these, the same for both (paired bootstrap).
        """
        draws = np.random.default_rng(0).multinomial(
            len(self.own), np.full(len(self.own), 1 / len(self.own)), _SAMPLES
        )
        differences = _f1(draws @ self.own) - _f1(draws @ other.own)
        low, high = np.quantile(differences, [0.025, 0.975])
        return Interval(float(low), self.total.f1 - other.total.f1, float(high))


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[samples]: F1 of counts [samples, counts]."""
    return np.array([ParseScore(*row).f1 for row in counts.tolist()])
