"""What a resumed run has restored, line by line."""

from __future__ import annotations

from typing import Any

from train.moving_average import MovingAverage
from train.optimizer import Optimizer
from train.runs.metrics import SCORE_NAMES, valid_loss
from train.runs.progress import Progress
from train.schedule import Schedule
from train.settings import TrainSettings
from train.wording import counted


def restored(
    settings: TrainSettings,
    progress: Progress,
    optimizer: Optimizer,
    rate: Schedule,
    windows: int,
    metrics: list[dict[str, Any]],
) -> list[str]:
    """Step, place in the data, optimizer, random streams, schedule and best validation.

    windows: of an epoch. metrics: the entries of the run's log.
    """
    position, step = progress.position, progress.position.step
    window = f", window {position.window}" if windows > 1 else ""
    lines = [
        f"step {step}: {optimizer.name} and its moments are those of the state",
        f"data: epoch {position.epoch}{window}, after batch {position.batch}",
        f"random streams: seed {settings.seed}, dropout of step {step + 1}",
        f"schedule: {settings.schedule}, learning rate {rate(step + 1):.3g} next",
    ]
    if isinstance(optimizer, MovingAverage):
        lines.append(f"moving average of the parameters: decay {optimizer.decay}")
    return [*lines, *_best(settings, progress, metrics)]


def _best(settings: TrainSettings, progress: Progress, metrics: list[dict[str, Any]]) -> list[str]:
    """The best score so far, by what the settings choose or else by the loss."""
    found = progress.validations
    if found.best_step:
        since = found.since_best
        ago = f"{counted(since, 'validation')} ago" if since else "the last validation"
        return [
            f"best {SCORE_NAMES.get(settings.best_by, settings.best_by)}: {found.best:.3f}, "
            f"of step {found.best_step}, {ago}"
        ]
    validations = [entry for entry in metrics if "valid_loss" in entry]
    if not validations:
        return []
    best = min(validations, key=valid_loss)
    return [f"best validation loss: {best['valid_loss']:.3f}, of step {best['step']}"]
