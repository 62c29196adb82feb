"""The thread that owns the model, and the queue before it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from npformer.sentence_translator import source_tokens
from npformer.service.engine import Engine
from npformer.service.errors import RefusedError
from npformer.service.jobs import Batch, Call, Texts
from npformer.service.metrics import Metrics

logger = logging.getLogger("npformer")


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        tokens: source tokens times beam of a batch, padded to its longest sentence
        rows: hypotheses of a batch
        gather_seconds, gather_share: that the thread waits, at most, for the clients that it has
            just answered, in seconds and as a share of the last batch's time: they may ask again at
            once, and are then translated together with those that wait. While they do not, the
            share becomes smaller.
        quiet_seconds: that an idle thread waits for a request to be followed by others, over and
            over, until none comes or `gather_seconds` are over
    """

    tokens: int = 16_384
    rows: int = 512
    gather_seconds: float = 0.25
    gather_share: float = 0.5
    quiet_seconds: float = 0.003


class Batcher:
    """Translates the sentences of several requests together.

    Jobs take turns: a batch is for the first of them, and its other places are for those with the
    same settings, a sentence each, over and over. What is left goes behind all others. So a job of
    a thousand sentences holds up a single one for a batch at most, where settings are the same.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, queue: int, batching: Batching | None = None
    ) -> None:
        """queue: sentences that may wait."""
        self._engine, self._metrics, self._most = engine, metrics, queue
        self._batching = batching or Batching()
        self._jobs: deque[Texts | Call] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._expected = 0  # jobs: those that wait, and as many as were answered last
        self._patience = self._batching.gather_share
        self._gather_until = 0.0
        self._thread = threading.Thread(target=self._run, name="npformer-model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The sentences in the queue."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether anything is translated any more."""
        return self._thread.is_alive()

    def submit(self, job: Texts | Call) -> None:
        """Let a job wait for its turn. Raises RefusedError if too many sentences wait already."""
        with self._changed:
            if self._is_closing:
                raise RefusedError(503, "the service is stopping", retry_after=10)
            if self._waiting and self._waiting + job.size > self._most:
                raise RefusedError(
                    503,
                    f"{self._waiting:,} sentences wait already, of {self._most:,} that may; try "
                    "again later",
                    retry_after=5,
                )
            self._jobs.append(job)
            self._waiting += job.size
            if len(self._jobs) in (1, self._expected):  # others are seen when it looks again
                self._changed.notify()

    def close(self) -> None:
        """End the thread after the batch that it works on; what waits fails."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while work := self._next():
            begun = time.monotonic()
            for job in work.jobs:
                if not job.has_begun:
                    self._metrics.waited(job.begin())
            try:
                work.run(self._engine)
            except Exception as error:  # of any kind: those of this batch are told, others go on
                logger.exception("a batch has failed")
                for job in work.jobs:
                    job.fail(error)
            took = time.monotonic() - begun
            self._metrics.searched(work.sentences, work.tokens, took)
            self._expected = len(self._jobs) + sum(job.result.done() for job in work.jobs)
            self._gather_until = time.monotonic() + min(
                self._batching.gather_seconds, took * self._patience
            )
        for job in self._jobs:
            job.fail(RefusedError(503, "the service has stopped", retry_after=10))

    def _next(self) -> Batch | Call | None:
        """What is done next; None when the thread is to end."""
        with self._changed:
            self._gather()
            while not self._is_closing:
                self._jobs = deque(job for job in self._jobs if job.is_wanted())
                if self._jobs:
                    break
                self._waiting = 0
                self._changed.wait()
                self._gather_burst()
            if self._is_closing:
                return None
            first = self._jobs.popleft()
            work = self._batch(first) if isinstance(first, Texts) else first
            if isinstance(first, Texts):
                self._jobs.append(first)
            self._jobs = deque(job for job in self._jobs if job.size)
            self._waiting = sum(job.size for job in self._jobs)
            return work

    def _gather(self) -> None:
        """Wait a little for those that were answered last."""
        while not self._is_closing and self._waiting < min(self._expected, self._batching.rows):
            left = self._gather_until - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        have_come = self._waiting >= self._expected
        most = self._batching.gather_share
        self._patience = (
            min(self._patience * 2, most) if have_come else max(self._patience / 2, most / 16)
        )
        self._expected = 0

    def _gather_burst(self) -> None:
        """Wait for those that come right after the first."""
        until, seen = time.monotonic() + self._batching.gather_seconds, 0
        while seen < len(self._jobs) and time.monotonic() < until and not self._is_closing:
            seen = len(self._jobs)
            self._changed.wait(self._batching.quiet_seconds)

    def _batch(self, first: Texts) -> Batch:
        same = [j for j in self._jobs if isinstance(j, Texts) and j.settings == first.settings]
        rows = first.settings.rows
        most, tokens = self._batching.rows // rows, source_tokens(self._batching.tokens, rows)
        items: list[tuple[Texts, int]] = []
        longest = 0
        for job in _in_turns([first, *same]):
            longest = max(longest, job.length(job.waiting[0]) + 1)
            if items and (len(items) >= most or (len(items) + 1) * longest > tokens):
                break
            items.append((job, job.waiting.popleft()))
        return Batch(items, first.settings)


def _in_turns(jobs: Iterable[Texts]) -> Iterator[Texts]:
    """Each job in turn, for as long as it has a sentence that waits."""
    turns = deque(jobs)
    while turns:
        job = turns.popleft()
        if job.size:
            yield job
            turns.append(job)
