"""The translation of a line, with its score and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from npformer.attention_maps import AttentionMaps


@dataclass(frozen=True)
class Translation:
    """The translation of a line.

    Attributes:
        text: the translation
        score: log P divided by the length penalty
        alternatives: the next best translations with other texts, if more than one was asked for
        tokens: the pieces of the translation, with the end if it has ended
        token_log_p: the log-probability of each of them
        note: what was done to a line that is too long for the model
        attention: the attention weights, if they were asked for; the other fields go with them
        source_pieces: the pieces of the source
        target_pieces: the pieces that the decoder reads
        predicted_pieces: the pieces that it predicts from each of these
    """

    text: str
    score: float
    alternatives: tuple[Translation, ...] = ()
    tokens: tuple[str, ...] = ()
    token_log_p: tuple[float, ...] = ()
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


def joined(parts: Sequence[Translation], glue: Sequence[str]) -> Translation:
    """The translation of a line from those of its parts.

    glue: what stands before each part but the first. Scores are added. The n-th alternative is made
    of the n-th of each part, or of its last. There is no attention of several parts.
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
        )

    best, *others = map(of_rank, range(max(len(part.ranked) for part in parts)))
    return replace(best, alternatives=distinct([best, *others])[1:])


def distinct(translations: Sequence[Translation]) -> tuple[Translation, ...]:
    """The first of each text: several segmentations may have the same."""
    first: dict[str, Translation] = {}
    for translation in translations:
        first.setdefault(translation.text, translation)
    return tuple(first.values())
