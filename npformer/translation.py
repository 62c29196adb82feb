"""The translation of a line, with its score and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from npformer.alignment import Alignment, word_count
from npformer.attention_maps import AttentionMaps


@dataclass(frozen=True)
class Translation:
    """The translation of a line.

    Attributes:
        text: the translation
        score: log P divided by the length penalty, plus the coverage penalty; that of a line in
            several parts is their sum
        alternatives: the next best translations with other texts, if more than one was asked for
        tokens: the pieces of the translation, with the end if it has ended
        token_log_p: the log-probability of each of them
        alignment: pairs of a source and a target word, counted from 0, if they were asked for
        note: what was done to a line that is too long for the model
        attention: the attention weights, if they were asked for; the other fields go with them, or
            with the alignment. A line that was translated in parts has none of these.
        source_pieces: the pieces of the source, with its end
        target_pieces: the pieces that the decoder reads
        predicted_pieces: the pieces that it predicts from each of these
    """

    text: str
    score: float
    alternatives: tuple[Translation, ...] = ()
    tokens: tuple[str, ...] = ()
    token_log_p: tuple[float, ...] = ()
    alignment: Alignment = ()
    note: str = ""
    attention: AttentionMaps | None = None
    source_pieces: tuple[str, ...] = ()
    target_pieces: tuple[str, ...] = ()
    predicted_pieces: tuple[str, ...] = ()

    @property
    def log_p(self) -> float:
        """log P of the translation, the sum of `token_log_p`."""
        return sum(self.token_log_p)

    @property
    def ranked(self) -> tuple[Translation, ...]:
        """This translation and its alternatives, best first."""
        return (self, *self.alternatives)


_text: Callable[[Translation], str] = attrgetter("text")
_Item = TypeVar("_Item")


def joined(
    parts: Sequence[Translation], glue: Sequence[str], has_copy: Sequence[bool] | None = None
) -> Translation:
    """The translation of a line from those of its parts.

    glue: what stands before each part but the first. has_copy: whether a part begins with a copy of
    the tag that the line begins with; by default none does. Scores are added. The n-th alternative
    is made of the n-th of each part, or of its last. There is no attention of several parts.
    """
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Translation("", 0.0)

    def of_rank(rank: int) -> Translation:
        chosen = [part.ranked[min(rank, len(part.alternatives))] for part in parts]
        text = chosen[0].text
        for part, before in zip(chosen[1:], glue[1:], strict=True):
            text += (before if text and part.text else "") + part.text
        return Translation(
            text,
            sum(part.score for part in chosen),
            tokens=tuple(chain.from_iterable(part.tokens for part in chosen)),
            token_log_p=tuple(chain.from_iterable(part.token_log_p for part in chosen)),
            alignment=_joined_alignment(chosen, glue, has_copy or [False] * len(parts)),
        )

    best, *others = map(of_rank, range(max(len(part.ranked) for part in parts)))
    return replace(best, alternatives=tuple(distinct([best, *others], _text)[1:]))


def _joined_alignment(
    parts: Sequence[Translation], glue: Sequence[str], has_copy: Sequence[bool]
) -> Alignment:
    """The alignment of parts as one; without a space between them, a word may span two parts.

    A copy of the line's tag is the first word of its part, and is the first word of the line.
    """
    found: list[tuple[int, int]] = []
    source = target = 0  # words before the part
    for part, before, copy in zip(parts, glue, has_copy, strict=True):
        if found and not before:
            source, target = source - 1, target - 1
        source -= copy
        found += [(0 if copy and s == 0 else s + source, t + target) for s, t in part.alignment]
        source += word_count(part.source_pieces[:-1])
        target += word_count(part.predicted_pieces[:-1])
    return tuple(found)


def distinct(items: Iterable[_Item], text: Callable[[_Item], str]) -> list[_Item]:
    """The first item of each text: several segmentations may have the same."""
    first: dict[str, _Item] = {}
    for item in items:
        first.setdefault(text(item), item)
    return list(first.values())
