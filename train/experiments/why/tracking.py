"""Interpretability: heads that track a syntactic relation, whose right answer is known."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np

from npformer.alignment import word_begins
from npformer.translation import Translation
from train.experiments.page import Table
from train.experiments.why.finding import Finding, Verdict
from train.grammar import Splits, analyse
from train.grammar.relations import RelationKind

KINDS: tuple[str, ...] = get_args(RelationKind)
DIRECTIONS = ("to the head", "to the dependent")
OFFSETS = range(-8, 9)  # tokens


class Question(NamedTuple):
    """Which tokens belong to this one? Places are among the pieces of the source."""

    sentence: int
    query: int
    answers: tuple[int, ...]


@dataclass(frozen=True)
class Tracked:
    """How often the best head, and the best single offset, find the answer.

    Both were chosen on every other sentence, and counted on those between.
    """

    kind: str
    direction: str
    questions: int
    head: tuple[int, int]  # layer and number
    accuracy: float
    offset: int
    accuracy_of_offset: float


def questions(
    sources: Sequence[str], translations: Sequence[Translation], splits: Splits
) -> dict[tuple[str, str], list[Question]]:
    """The questions of each kind and direction, where a word is one piece or its first is taken."""
    found: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for number, (source, translation) in enumerate(zip(sources, translations, strict=True)):
        analysis = analyse(splits.trees[source], "english")
        places = word_begins(translation.source_pieces)
        if len(places) != len(analysis.words):
            continue
        belonging: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        for relation, head, dependent in analysis.relations:
            belonging[relation, DIRECTIONS[0], places[dependent]].append(places[head])
            belonging[relation, DIRECTIONS[1], places[head]].append(places[dependent])
        for (kind, direction, query), answers in belonging.items():
            found[kind, direction].append(Question(number, query, tuple(answers)))
    return found


def tracked(
    asked: dict[tuple[str, str], list[Question]], translations: Sequence[Translation]
) -> list[Tracked]:
    """The best head of the encoder and the best offset, for each kind and direction."""
    return [
        _tracked(kind, direction, asked[kind, direction], translations)
        for kind in KINDS
        for direction in DIRECTIONS
        if {q.sentence % 2 for q in asked[kind, direction]} == {0, 1}
    ]


def _tracked(
    kind: str, direction: str, asked: Sequence[Question], translations: Sequence[Translation]
) -> Tracked:
    right = np.stack([_heads_right(q, translations[q.sentence]) for q in asked])
    by_offset = np.array([[q.query + offset in q.answers for offset in OFFSETS] for q in asked])
    counted = np.array([q.sentence % 2 == 1 for q in asked])
    chosen = ~counted
    head = np.unravel_index(right[chosen].mean(0).argmax(), right.shape[1:])
    offset = int(by_offset[chosen].mean(0).argmax())
    return Tracked(
        kind,
        direction,
        int(counted.sum()),
        (int(head[0]), int(head[1])),
        float(right[counted][:, head[0], head[1]].mean()),
        OFFSETS[offset],
        float(by_offset[counted][:, offset].mean()),
    )


def _heads_right(question: Question, translation: Translation) -> np.ndarray:
    """Whether each head, apart from the word itself, attends most to an answer: [layers, heads]."""
    assert translation.attention is not None
    weights = translation.attention.encoder[:, :, question.query].copy()
    weights[..., question.query] = -1
    right: np.ndarray = np.isin(weights.argmax(-1), question.answers)
    return right


def finding(found: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether heads track more than an offset could. found: `Tracked`, as dictionaries."""
    rows = []
    ahead: list[str] = []
    behind: list[str] = []
    for of in found:
        name = f"{of['kind']} {of['direction']}"
        margin = _margin(of["questions"])
        difference = of["accuracy"] - of["accuracy_of_offset"]
        (ahead if difference > margin else behind if difference < -margin else []).append(name)
        layer, number = of["head"]
        rows.append(
            [
                of["kind"],
                of["direction"],
                f"{of['questions']:,}",
                f"encoder {layer + 1}.{number + 1}",
                f"{of['accuracy']:.0%}",
                f"{of['offset']:+}",
                f"{of['accuracy_of_offset']:.0%}",
            ]
        )
    if ahead:
        best = max(found, key=lambda of: of["accuracy"] - of["accuracy_of_offset"])
        widest = (
            f"the widest lead is that of {best['kind']} {best['direction']}, "
            f"{best['accuracy']:.0%} against {best['accuracy_of_offset']:.0%}"
        )
    else:
        widest = "no lead is more than two standard errors"
    verdict: Verdict = "yes" if len(ahead) > len(behind) else "in part" if ahead else "no"
    return Finding(
        "Interpretability",
        "heads learn tasks that one can name: some follow the syntax of the sentence.",
        f"the best head beats the best single offset in {len(ahead)} of {len(found)} tasks and "
        f"loses in {len(behind)}; {widest}",
        verdict if found else "not measured",
        [
            "Which token does this one belong to? The grammar knows. A head answers with the token "
            "that it attends to most, apart from the one that asks. Head and offset were chosen on "
            "every other sentence and are counted on those between. Lead and loss are more than "
            "two standard errors.",
            Table(
                ["relation", "from a word", "asked", "head", "right", "offset", "right"],
                rows,
            ),
        ],
    )


def _margin(questions: int) -> float:
    """Two standard errors of a difference of two shares, at most."""
    return 2 * math.sqrt(0.5 / questions)
