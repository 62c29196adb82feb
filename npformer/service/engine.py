"""What translates the sentences of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from autograd.ops.large.beam import Trace
from npformer.hypotheses import likeliest
from npformer.long_lines import DividedLines
from npformer.search_settings import SearchSettings
from npformer.translation import Translation
from npformer.translator import Translator

_PARTIAL_SECONDS = 0.05  # between two looks at what a search has so far, at least
_PARTIAL_SHARE = 0.1  # of the time that looking may take


class Sentence(NamedTuple):
    """A sentence to be translated.

    Attributes:
        ids: its token ids, without the end
        prefix: the token ids that its translation begins with
        stream: of the random numbers that are drawn for it
        is_wanted: asked now and then; once it is false, the sentence may be given up
        tell: called now and then with the translation so far, if anybody wants to know
    """

    ids: list[int]
    prefix: list[int]
    stream: int
    is_wanted: Callable[[], bool]
    tell: Callable[[str], None] | None = None


class Engine(Protocol):
    """Translates batches. It is called by one thread."""

    def translate(
        self, sentences: Sequence[Sentence], settings: SearchSettings
    ) -> list[Translation | None]:
        """The translation of each sentence, in order; None for one that has none."""
        ...


class TranslatorEngine:
    """The engine of a Translator."""

    def __init__(self, translator: Translator) -> None:
        self._translator = translator

    def translate(
        self, sentences: Sequence[Sentence], settings: SearchSettings
    ) -> list[Translation | None]:
        divided = DividedLines(
            sentences=[sentence.ids for sentence in sentences],
            prefixes=[sentence.prefix for sentence in sentences],
            streams=[sentence.stream for sentence in sentences],
        )
        watch = _Watch(sentences, settings, self._translator)
        found = self._translator.search(divided, range(len(sentences)), settings, watch=watch)
        return [self._translator.best(of_one, settings) if of_one else None for of_one in found]


class _Watch:
    """Gives up sentences that nobody wants any more, and tells of those that somebody watches."""

    def __init__(
        self, sentences: Sequence[Sentence], settings: SearchSettings, translator: Translator
    ) -> None:
        self._sentences, self._settings = sentences, settings
        self._tokenizer = translator.tokenizers.target
        self._next = time.monotonic() + _PARTIAL_SECONDS

    def __call__(self, running: np.ndarray, trace: Trace) -> np.ndarray:
        given_up = np.zeros(len(running), bool)
        begun = time.monotonic()
        if begun < self._next:
            return given_up
        for i, which in enumerate(running.tolist()):
            sentence = self._sentences[which]
            given_up[i] = not sentence.is_wanted()
            if sentence.tell and not given_up[i]:
                ids = likeliest(trace, which, self._tokenizer.end_id, self._settings)
                if ids is not None:
                    sentence.tell(self._tokenizer.decode(ids))
        now = time.monotonic()
        self._next = now + max(_PARTIAL_SECONDS, (now - begun) / _PARTIAL_SHARE)
        return given_up
