"""The training loop (section 5): steps, and between them the log, validations and checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from autograd import DropoutStream
from autograd.cuda.products import choices_kept_in
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from train.adam import adam
from train.assembly import assemble
from train.corpora.batches import Place
from train.corpora.corpus import Corpus
from train.guessing import Beginning
from train.moving_average import averaged
from train.optimizer import MakeOptimizer
from train.placing import device_name
from train.ranks.ranks import ALONE, AgreedError, Exchange, Ranks
from train.ranks.same_run import check_same_parameters
from train.ranks.shares import Step, steps
from train.ranks.work import Work
from train.recordings import Recordings, sized
from train.runs.log_entry import LogEntry, log_entry, logged
from train.runs.progress import Position, Progress, SinceLog
from train.runs.run import Run
from train.runs.samples import append_samples
from train.runs.snapshot import Snapshot, published_copy
from train.runs.training_data import TrainingData
from train.runs.writer import RunWriter
from train.settings import TrainSettings
from train.step import Interrupted, StepResult, read_steps, train_step
from train.timetable import Timetable
from train.validation import Validation, validate
from train.wording import counted

logger = logging.getLogger("npformer")

Report = Callable[[LogEntry | Validation], None]


class DivergedError(AgreedError):
    """The loss or the gradient is no longer finite."""


class TrainingLoop:
    """A run that is being trained: its model, its corpus, its settings and its progress.

    A resumed run takes the same steps as one that was never interrupted: the order of batches
    depends only on the seed and the epoch, dropout only on the seed and the step. Several ranks
    take the steps that a single process would take. The first of them alone writes to the run, and
    its clock counts for all.

    parts: the classes that the model is built from. optimizer: makes its optimizer. ranks: the
    processes that train the model together, each with a loop of its own. jobs: processes that
    segment text, if `sampling` is set, while this one trains; they change no number. With more
    than one, a script that calls this needs the usual `if __name__ == "__main__":`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        ranks: Ranks = ALONE,
        jobs: int = 1,
    ) -> None:
        settings.check_keep_every()
        self.settings, self.corpus, self.run, self.ranks = settings, corpus, run, ranks
        self.stop_requested, self._jobs = False, jobs
        self.model, self.optimizer, self.batches, self.valid_batches = assemble(
            settings, corpus, parts, optimizer, jobs, self._gives_up
        )
        self.rate = settings.learning_rate(self.model.config.d_model)
        self.progress = Progress()
        self.work = Work(ranks)
        self.saved_step = -1
        self._beginning = Beginning(corpus.train.targets, settings.warmup)
        self._unsaved_validation = False
        self._exchange: Exchange | None = None

    @property
    def position(self) -> Position:
        return self.progress.position

    def train(self, report: Report = lambda entry: None) -> Position:
        """Train to the end that the settings set, or until `stop_requested`; saves a state.

        Raises UserError if training diverges or runs out of memory.
        """
        run, ranks = self.run, self.ranks
        self.work = Work(ranks, self.position.step)
        with (
            run.locked() if ranks.is_first else nullcontext(),
            RunWriter() as self._writer,
            run.saying_what_is_kept(),  # of what `report` writes
            choices_kept_in(run.products_of(ranks.rank)),
            run.ranks.reporting(self.work, device_name(self.optimizer.owner)),
        ):
            try:
                return self._train(report)
            except MemoryError as error:
                tokens, bleu = self.settings.batch_tokens, self.settings.bleu_every
                raise UserError(
                    f"out of memory at step {self.position.step + 1} ({error}); lower "
                    f"batch_tokens, which is {tokens:,}, and raise accumulate by as much"
                    f"{', or lower bleu_beam' if bleu else ''}"
                ) from error

    def _train(self, report: Report) -> Position:
        settings, position, timetable = self.settings, self.position, self.timetable
        self._started = time.monotonic() - position.seconds
        self._since = time.monotonic() - self.progress.since_log.seconds
        unread: list[StepResult] = []
        recordings = None
        if self._records:
            longest = 1 + max(length for length, _ in self.corpus.train.longest.values())
            recordings = Recordings(self.model, self.optimizer, longest)
        coming = self.optimizer.owner.ahead(self._prepared, self._steps())
        if timetable.lacks_validation():  # the run was stopped at a step that is validated
            self._validate(report)

        stopping = False
        while not (stopping or timetable.has_ended()):
            step = position.step + 1
            rate = self.rate(step)
            try:
                batches, part, place = next(coming)
                result = train_step(
                    self.model,
                    self.optimizer,
                    batches,
                    rate,
                    DropoutStream(settings.seed, step),
                    settings.clip_norm,
                    self._gives_up,
                    part,
                    self._exchange,
                    recordings,
                )
            except Interrupted:
                break  # when the run is resumed, the step is taken as a whole
            unread.append(result)
            position.step, position.epoch = step, place.epoch
            position.window, position.batch = place.window, place.batch
            self.work.took(step, sum(batch.target_tokens for batch in batches))
            keeps_checkpoint = timetable.keeps_checkpoint_at(step)
            validates = timetable.validates_at(step)
            if keeps_checkpoint or validates or timetable.logs_at(step):
                self._read(unread)
            stopping = self._look_at_clock()

            if timetable.logs_at(step):
                self._report(log_entry(self.progress, settings, rate), report)
                self.progress.since_log = SinceLog()
                self._since = time.monotonic()
                stopping = self._is_to_stop()
            # First, so that a state knows of the validation of its step.
            if validates and not stopping:
                self._validate(report)
            if keeps_checkpoint and not self._is_skipping():
                self._save()
            if validates or keeps_checkpoint:  # which may have taken long
                stopping = self._is_to_stop()
        self._read(unread)
        self._look_at_clock()
        self._save_at_end()
        return position

    def _gives_up(self) -> bool:
        """Whether to give up a step before it is done, which ranks do not do on their own."""
        return self.stop_requested and self.ranks.size == 1

    @property
    def timetable(self) -> Timetable:
        """When the run logs, validates, keeps checkpoints and ends."""
        return Timetable(self.settings, self.progress)

    @property
    def _records(self) -> bool:
        """Whether steps are recorded and replayed."""
        return self.settings.record and self.optimizer.owner.records

    def _is_skipping(self) -> bool:
        """Whether the last step was skipped. Then the state before may be the last good one."""
        return self.progress.skips.in_a_row > 0

    def _save_at_end(self) -> None:
        """Save what is unsaved, so that a resumed run equals an uninterrupted one.

        So the parameters are kept for averaging only if the settings end the run.
        """
        step = self.position.step
        if self.timetable.has_ended():
            is_saved = step == self.saved_step and not self._unsaved_validation
            if not is_saved or not self.ranks.on_first(lambda: self._has_checkpoint(step)):
                self._save()
        elif step != self.saved_step and not self._is_skipping():
            self._save(keep_parameters=False)
        self.ranks.on_first(self._writer.finish)

    def _has_checkpoint(self, step: int) -> bool:
        self._writer.finish()
        return self.run.checkpoints.has(step)

    def _read(self, unread: list[StepResult]) -> None:
        """Fetch and count what the last steps have given, up to this one.

        Raises UserError if too many in a row were skipped.
        """
        if not unread:
            return
        settings, last = self.settings, self.position.step
        self.ranks.await_sums()
        numbers = read_steps(unread).tolist()
        for i, (row, result) in enumerate(zip(numbers, unread, strict=True)):
            self.progress.count(row, result.target_tokens)
            if self.progress.skips.in_a_row >= settings.max_skipped:
                loss, _, norm = row
                raise DivergedError(  # all ranks have read the same
                    f"training diverged, with {counted(settings.max_skipped, 'step')} skipped in a "
                    f"row, up to step {last - len(unread) + 1 + i}; in the last one the loss is "
                    f"{loss / result.target_tokens:.4g} a token and the gradient's norm "
                    f"{norm:.4g}. Resume from step {max(self.saved_step, 0)} (--resume) with a "
                    "lower learning rate or a clip_norm, or start again with a longer warmup"
                )
        unread.clear()

    def _is_to_stop(self) -> bool:
        """Whether any rank is to stop."""
        return self._agree(0.0)[0]

    def _agree(self, seconds: float) -> tuple[bool, float]:
        """Whether any rank is to stop, and the first rank's clock."""
        stopping, seconds = self.ranks.agree(self.stop_requested, seconds)
        if stopping:  # otherwise a signal may have come since, and counts next time
            self.stop_requested = True
        return stopping, seconds

    def _look_at_clock(self) -> bool:
        """Note the time, by the first rank's clock; returns whether any rank is to stop."""
        now = time.monotonic()
        stopping, self.position.seconds = self._agree(now - self._started)
        self.progress.since_log.seconds = now - self._since
        return stopping

    @contextmanager
    def _pause(self, doing: str) -> Iterator[None]:
        """The time that the block takes does not count for the speed of training."""
        began = time.monotonic()
        with self.work.other(doing):
            yield
        self._since += time.monotonic() - began

    def _validate(self, report: Report) -> None:
        """Validate, and record the result."""
        step, by = self.position.step, self.settings.best_by
        with self._pause("validating"):
            validation = self.validate(self.timetable.scores_at(step))
            is_best = self.progress.validations.count(
                step, validation.score(by), lower_is_better=by == "loss"
            )
            self.ranks.on_first(lambda: self._record(validation, is_best))
            self._unsaved_validation = True
            report(validation)

    def _record(self, validation: Validation, is_best: bool) -> None:
        """Have a validation written. The metrics come last: they show that all is done."""
        best = None
        if is_best:
            self._writer.make_room(validation.step)
            best = published_copy(self.model, self.optimizer)

        def write() -> None:
            self.run.check_place()
            if validation.samples:
                append_samples(self.run.directory, validation.step, validation.samples)
            if best:
                self.run.keep_best(best(), validation.step)
            self._log(validation)

        self._write(write)

    def validate(self, with_bleu: bool) -> Validation:
        """Loss and perplexity on the validation set, and with `with_bleu` its BLEU.

        The model is that which is saved: the moving average of the parameters, if one is kept.
        """
        with averaged(self.optimizer):
            return validate(
                self.model,
                self.corpus,
                self.valid_batches,
                self.settings,
                self.position,
                with_bleu,
                self.ranks,
            )

    def _steps(self) -> Iterator[Step]:
        """This rank's part of the steps from the current position on, without end."""
        position, ranks = self.position, self.ranks
        place = Place(position.epoch, position.window, position.batch)
        return steps(self.batches, place, self.settings.accumulate, ranks.rank, ranks.size)

    def _prepared(self, step: Step) -> Step:
        batches = step.batches
        if self._records:
            batches = [sized(batch, self.settings.batch_tokens) for batch in batches]
        return step._replace(batches=[self.model.prepared(batch) for batch in batches])

    def _report(self, entry: LogEntry, report: Report) -> None:
        self.ranks.on_first(lambda: self._write(lambda: self._log(entry)))
        self.work.log()
        report(entry)
        advice = self._beginning.advice(entry)
        if advice is not None and self.ranks.is_first:
            logger.warning("%s", advice)

    def _log(self, entry: LogEntry | Validation) -> None:
        self.run.log(logged(entry))

    def _write(self, write: Callable[[], None]) -> None:
        """Have the writer call `write`, on the first rank alone. Errors say what is kept.

        That of an earlier write is raised here.
        """

        def saying_what_is_kept() -> None:
            with self.run.saying_what_is_kept():
                write()

        self._writer.put(saying_what_is_kept)

    def _save(self, *, keep_parameters: bool = True) -> None:
        """Save a state and, with `keep_parameters`, a checkpoint."""
        if keep_parameters and self.settings.checkpoint_minutes:
            self.progress.checkpoints.seconds = self.position.seconds
        with self._pause("saving"):
            check_same_parameters(self.ranks, self.model.buffer.values, self.position.step)
            self.ranks.on_first(lambda: self._put_state(keep_parameters))
        self.saved_step = self.position.step
        self._unsaved_validation = False

    def _put_state(self, keep_parameters: bool) -> None:
        """Copy the state as it is now, and have it written."""
        self._writer.make_room(self.position.step)
        snapshot = self._snapshot()
        self._write(lambda: self._write_state(snapshot, keep_parameters=keep_parameters))

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.model, self.optimizer, self.progress)

    def _write_state(self, snapshot: Snapshot, *, keep_parameters: bool) -> None:
        self.run.save(
            snapshot,
            self.corpus.tokenizers,
            self.settings,
            TrainingData.of(self.corpus),
            keep_parameters=keep_parameters,
        )
