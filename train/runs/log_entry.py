"""A line of the training log."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from train.evaluation import perplexity
from train.runs.progress import Progress
from train.settings import TrainSettings


@dataclass(frozen=True)
class LogEntry:
    """A line of the training log: averages over the steps since the last one.

    Attributes:
        loss: smoothed, in nats per target token; NaN if all steps were skipped
        perplexity: per target token, without smoothing
        tokens_per_second: target tokens
        seconds, seconds_left: of the whole run
        skipped: steps that changed nothing, because their loss or gradient was not finite; the
            averages are over the others
    """

    step: int
    loss: float
    perplexity: float
    rate: float
    gradient_norm: float
    tokens_per_second: float
    seconds: float
    seconds_left: float
    epoch: int
    skipped: int = 0


def log_entry(progress: Progress, settings: TrainSettings, rate: float) -> LogEntry:
    """The entry for the steps since the last one; rate: the learning rate of the last step."""
    position, sums = progress.position, progress.since_log
    left = (settings.max_steps - position.step) * position.seconds / position.step
    if settings.max_minutes:
        left = max(0.0, min(left, settings.max_minutes * 60 - position.seconds))
    tokens = sums.target_tokens or math.nan  # NaN if all steps were skipped
    return LogEntry(
        step=position.step,
        loss=sums.loss / tokens,
        perplexity=perplexity(sums.nll / tokens),
        rate=rate,
        gradient_norm=sums.norm / (sums.steps or math.nan),
        tokens_per_second=sums.target_tokens / max(sums.seconds, 1e-9),
        seconds=position.seconds,
        seconds_left=left,
        epoch=position.epoch,
        skipped=sums.skipped,
    )


def logged(entry: Any) -> dict[str, Any]:
    """A log entry or a validation as metrics.jsonl has it: without what it lacks.

    Samples have a file of their own.
    """
    values = asdict(entry)
    values.pop("samples", None)
    return {name: value for name, value in values.items() if value is not None}
