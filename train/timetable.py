"""When a run logs, validates, keeps checkpoints and ends."""

from __future__ import annotations

from dataclasses import dataclass

from train.runs.progress import Progress
from train.settings import TrainSettings


@dataclass(frozen=True)
class Timetable:
    """What the settings of a run say about its progress. The progress changes, this asks it."""

    settings: TrainSettings
    progress: Progress

    def logs_at(self, step: int) -> bool:
        return step % self.settings.log_every == 0

    def scores_at(self, step: int) -> bool:
        """Whether the validation of a step translates, and scores its translations."""
        every = self.settings.bleu_every
        return bool(every) and step % every == 0

    def validates_at(self, step: int) -> bool:
        return self.scores_at(step) or step % self.settings.validate_every == 0

    def lacks_validation(self) -> bool:
        """Whether a validation is due at the last step and is not counted yet."""
        step = self.progress.position.step
        return step > self.progress.validations.step and self.validates_at(step)

    def keeps_checkpoint_at(self, step: int) -> bool:
        """Whether to keep the parameters of a step, by its number or by the clock before it."""
        every, minutes = self.settings.checkpoint_every, self.settings.checkpoint_minutes
        seconds = self.progress.position.seconds - self.progress.checkpoints.seconds
        return bool(every and step % every == 0) or bool(minutes and seconds >= 60 * minutes)

    def has_ended(self) -> bool:
        return (
            self.progress.position.step >= self.settings.max_steps
            or self._is_out_of_time()
            or self.is_out_of_patience()
        )

    def is_done(self) -> bool:
        """Whether the settings end the run here, and its last validation was made."""
        return self.has_ended() and not self.lacks_validation()

    def is_out_of_patience(self) -> bool:
        """Whether `patience` validations have passed without improvement."""
        patience = self.settings.patience
        return bool(patience) and self.progress.validations.since_best >= patience

    def _is_out_of_time(self) -> bool:
        limit = self.settings.max_minutes * 60
        return bool(limit) and self.progress.position.seconds >= limit
