"""What a rank is doing, and how long it takes over it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from train.ranks.ranks import ALONE, Ranks

logger = logging.getLogger("npformer.rank")


@dataclass(frozen=True)
class Pace:
    """How fast a rank has taken some steps.

    Attributes:
        step_seconds: for a step
        waiting: the share of that time in which it waited for the other ranks
        tokens_per_second: the target tokens of its own sentences, a second
    """

    step_seconds: float
    waiting: float
    tokens_per_second: float

    def __str__(self) -> str:
        return (
            f"{self.step_seconds:.3g} s a step, {self.waiting:.0%} waiting, "
            f"{self.tokens_per_second:,.0f} target tokens of its own a second"
        )


class Work:
    """The work of one rank, which it logs. It changes while another thread may be looking at it.

    Attributes:
        ranks: of which the rank is one
        doing: a word for it
        step: the last step that was taken
        pace: that of the steps before the last log entry; None before the first
    """

    def __init__(self, ranks: Ranks = ALONE, step: int = 0) -> None:
        self.ranks = ranks
        self.doing = "training"
        self.step = step
        self.pace: Pace | None = None
        self._begin()

    def _begin(self) -> None:
        self._began, self._waited = time.monotonic(), self.ranks.waited
        self._steps = self._tokens = 0

    def took(self, step: int, tokens: int) -> None:
        """A step was taken, with this many target tokens of the rank's own."""
        self.step = step
        self._steps += 1
        self._tokens += tokens

    def log(self) -> None:
        """Log the pace since the last time."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        self.pace = Pace(
            seconds / max(self._steps, 1),
            min(1.0, (self.ranks.waited - self._waited) / seconds),
            self._tokens / seconds,
        )
        logger.info("step %6d  %s", self.step, self.pace)
        self._begin()

    @contextmanager
    def other(self, doing: str) -> Iterator[None]:
        """Something other than training, which does not count for its pace, and is logged."""
        began, waited = time.monotonic(), self.ranks.waited
        self.doing = doing
        yield
        self.doing = "training"
        seconds, waited = time.monotonic() - began, self.ranks.waited - waited
        self._began += seconds
        self._waited += waited
        logger.info(
            "step %6d  %s: %.3g s, %.0f%% waiting",
            self.step, doing, seconds, 100 * waited / max(seconds, 1e-9),
        )  # fmt: skip
