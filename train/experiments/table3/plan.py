"""How many steps each row gets, so that all of them end in time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from npformer.errors import UserError

_PAPER_WARMUP = 4000
_FOR_TRAINING = 0.75  # of the time; the rest is to start, to validate and to translate


def steps_in(minutes: float, spent: float, seconds: Iterable[float], jobs: int) -> int:
    """The steps that every model can take, `jobs` of them at a time, within `minutes`.

    spent: seconds of these minutes that have passed. seconds: of a step of each model. Raises
    UserError if they are too few.
    """
    left = _FOR_TRAINING * (60 * minutes - spent)
    a_step = makespan(seconds, jobs)
    if left < a_step:
        raise UserError(
            f"--minutes {minutes:g} are too few: a step of all models takes {a_step:,.1f} s here; "
            "give more, or fewer --rows or --seeds, or a smaller --width"
        )
    return int(left / a_step)


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """When the last of all is done, where each of `jobs` that is free takes the longest left."""
    ends = [0.0] * jobs
    for longest in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + longest)
    return max(ends)


def warmup(steps: int) -> int:
    """Steps until the learning rate is highest: the paper's 4,000, or a quarter of few steps."""
    return max(1, min(_PAPER_WARMUP, steps // 4))


def rate_factor(steps: int) -> float:
    """What keeps the paper's highest learning rate with another warm-up."""
    return (warmup(steps) / _PAPER_WARMUP) ** 0.5
