"""Changes of the settings when a run is resumed: refused or reported."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from autograd.backend import current
from npformer.config import TransformerConfig
from npformer.errors import UserError
from train.corpora.batches import Batches
from train.runs.progress import Position
from train.settings import MODEL_MAY_CHANGE, TrainSettings
from train.wording import shown

Both = tuple[TrainSettings, TransformerConfig]
"""A run's settings, and the configuration of its model that they give."""


def told_changes(before: Both, now: Both, next_step: int) -> list[str]:
    """A sentence for each change.

    Raises UserError for a setting that may not change.
    """
    (old, old_model), (new, new_model) = before, now
    lines = []
    for setting in fields(TrainSettings):
        if setting.name == "model":
            continue
        was, is_ = _value(old, setting.name), _value(new, setting.name)
        if was == is_:
            continue
        if not setting.metadata["may_change"]:
            raise UserError(
                f"{setting.name} is {shown(was)} in this run, and cannot become {shown(is_)}; "
                "start a new run with another --out"
            )
        lines.append(f"{setting.name} is {is_} from now on; it was {was}")
    is_now = new_model.to_dict()
    for name, was in old_model.to_dict().items():
        is_ = is_now[name]
        if was == is_:
            continue
        if name not in MODEL_MAY_CHANGE:
            raise UserError(
                f"model.{name} is {shown(was)} in this run, and cannot become {shown(is_)}; "
                "start a new run with another --out"
            )
        lines.append(f"model.{name} is {is_} from now on; it was {was}")
    rates = [s.learning_rate(m.d_model)(next_step) for s, m in (before, now)]
    if rates[0] != rates[1]:
        lines.append(
            f"the learning rate of step {next_step} is {rates[1]:.3g}; with the settings before it "
            f"would have been {rates[0]:.3g}"
        )
    return lines


def _value(settings: TrainSettings, name: str) -> Any:
    """The value of a setting as it is compared with another.

    The backend is that which no choice of one means, and a model is the same by whatever path.
    """
    value = getattr(settings, name)
    if name == "backend" and value is None:
        return current().name
    return os.path.realpath(value) if name == "init_from" and value is not None else value


def scores_compare(before: Both, now: Both) -> bool:
    """Whether the best score so far can be compared with those of validations from now on.

    Otherwise no score might be better than it any more, and patience would end the run.
    """
    return _scored_by(*before) == _scored_by(*now)


def _scored_by(settings: TrainSettings, model: TransformerConfig) -> tuple[Any, ...]:
    """All that the score of the best validation depends on, but the parameters."""
    by = settings.best_by
    if by == "loss":
        return by, model.smoothing, model.smoothing_over
    if by == "bleu":
        return by, settings.bleu_beam, settings.bleu_tokenize
    return (by, settings.bleu_beam) if by == "chrf" else (by,)


def go_on_with_other_batches(position: Position, before: Batches, now: Batches) -> str:
    """Move a position to about the same pair of its window; returns a message.

    before, now: the batches of the same corpus, of the old size and the new one.
    """
    epoch, window, done = position.epoch, position.window, position.batch
    pairs = sum(map(len, before.plan_window(epoch, window)[:done]))
    position.batch = now.batch_after(epoch, window, pairs)
    return (
        f"epoch {epoch}: the {done} batches that were taken count as {position.batch} of the new "
        "size"
    )
