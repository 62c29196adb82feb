"""Engines that translate nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from npformer import SearchSettings, Translation
from npformer.service.engine import Sentence


class Echo:
    """Says the token ids of each sentence, and remembers its batches.

    Attributes:
        gate: translates only while it is set
        entered: set whenever a batch has begun
        batches: those that have begun, as lists of token ids
    """

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.batches: list[list[list[int]]] = []
        self.settings: list[SearchSettings] = []

    def translate(
        self, sentences: Sequence[Sentence], settings: SearchSettings
    ) -> list[Translation | None]:
        self.batches.append([sentence.ids for sentence in sentences])
        self.settings.append(settings)
        self.entered.set()
        assert self.gate.wait(60)
        return [self.one(sentence) for sentence in sentences]

    def one(self, sentence: Sentence) -> Translation | None:
        return Translation(said(sentence.ids), 0.0)

    def close_gate(self) -> None:
        self.gate.clear()
        self.entered.clear()


class Moody(Echo):
    """Fails for a batch with the token 666, and has no translation of 13."""

    def one(self, sentence: Sentence) -> Translation | None:
        if 666 in sentence.ids:
            raise MemoryError("a batch is too large")
        return None if 13 in sentence.ids else super().one(sentence)


def said(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))
