"""What is done for a request: sentences to translate, or anything else that needs the model."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from npformer.long_lines import DividedLines
from npformer.search_settings import SearchSettings
from npformer.service.engine import Engine, Sentence
from npformer.service.errors import RefusedError
from npformer.translation import Translation

logger = logging.getLogger("npformer")


class Job:
    """Some work for one request.

    Attributes:
        result: what is waited for
        has_begun: whether anything has been done of it
    """

    def __init__(self) -> None:
        self.result: Future[Any] = Future()
        self.result.set_running_or_notify_cancel()  # whoever leaves drops the job
        self.has_begun = False
        self._arrived = time.monotonic()
        self._is_wanted = True

    def begin(self) -> float:
        """Something is done of it now, for the first time. Returns the seconds that it waited."""
        self.has_begun = True
        return time.monotonic() - self._arrived

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self._is_wanted = False

    def is_wanted(self) -> bool:
        return self._is_wanted

    def fail(self, error: Exception) -> None:
        """End it, if it has not ended."""
        self.drop()
        if not self.result.done():
            self.result.set_exception(error)


class Call(Job):
    """A function that is called by the thread that owns the model. It takes a turn of its own."""

    size = 1
    sentences = tokens = 0

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self._function = function

    @property
    def jobs(self) -> Collection[Job]:
        return (self,)

    def run(self, engine: Engine) -> None:
        """Call the function."""
        try:
            self.result.set_result(self._function())
        except RefusedError as error:
            self.fail(error)


class Division(Job):
    """Texts that are divided into sentences."""

    def __init__(self, divide: Callable[[], DividedLines]) -> None:
        super().__init__()
        self._divide = divide

    def run(self) -> None:
        """Divide them, if anybody still waits for it."""
        if self.is_wanted():
            self.begin()
            try:
                self.result.set_result(self._divide())
            except Exception as error:  # of any kind: whoever waits is told
                logger.exception("texts could not be divided")
                self.fail(error)


class Texts(Job):
    """Texts to be translated, as sentences.

    The result is a list of a Translation for each text, or UntranslatableTextError.

    Attributes:
        waiting: the indices of sentences that wait, longest first: those of similar length go
            together
    """

    def __init__(
        self,
        divided: DividedLines,
        settings: SearchSettings,
        tell: Callable[[], None] | None = None,
    ) -> None:
        """tell: called when the translation so far of a single text changes, by another thread."""
        super().__init__()
        self.settings = settings
        self._divided, self._tell = divided, tell
        lengths = [len(ids) for ids in divided.sentences]
        self.waiting = deque(sorted(range(len(lengths)), key=lambda i: -lengths[i]))
        self._found: dict[int, Translation] = {}
        self._so_far = [""] * len(lengths)
        if not lengths:
            self._finish()

    @property
    def size(self) -> int:
        """The sentences that wait."""
        return len(self.waiting)

    def length(self, i: int) -> int:
        """The tokens of a sentence."""
        return len(self._divided.sentences[i])

    def sentence(self, i: int) -> Sentence:
        """What an engine needs of a sentence."""
        return Sentence(
            self._divided.sentences[i],
            self._divided.prefixes[i],
            self._divided.streams[i],
            self.is_wanted,
            self._tell and partial(self._told, i),
        )

    def found(self, i: int, translation: Translation) -> None:
        """Take the translation of a sentence; the last one ends the job."""
        self._found[i] = translation
        if self._tell:
            self._so_far[i] = translation.text
        if len(self._found) == len(self._divided.sentences):
            self._finish()

    def so_far(self) -> str:
        """The translation so far of a single text, if it was to be told."""
        joined = ""
        for text, glue in zip(self._so_far, self._divided.glue, strict=True):
            joined += (glue if joined and text else "") + text
        return joined

    def _told(self, i: int, text: str) -> None:
        assert self._tell is not None
        self._so_far[i] = text
        self._tell()  # and no more here: joining thousands of sentences each time would take long

    def _finish(self) -> None:
        lines = self._divided.translations(self._found.items())
        self.result.set_result([translation for some in lines for translation in some])


class UntranslatableTextError(Exception):
    """The model has no translation of a sentence, or it was given up."""


class Batch(NamedTuple):
    """Sentences that are translated together: each a job, and its index there."""

    items: Sequence[tuple[Texts, int]]
    settings: SearchSettings

    @property
    def jobs(self) -> Collection[Job]:
        return {job for job, _ in self.items}

    @property
    def sentences(self) -> int:
        return len(self.items)

    @property
    def tokens(self) -> int:
        """Tokens of the sources."""
        return sum(job.length(i) for job, i in self.items)

    def run(self, engine: Engine) -> None:
        """Translate, and give each job what is its own."""
        found = engine.translate([job.sentence(i) for job, i in self.items], self.settings)
        for (job, i), translation in zip(self.items, found, strict=True):
            if translation is None:
                job.fail(UntranslatableTextError())
            elif job.is_wanted():
                job.found(i, translation)
