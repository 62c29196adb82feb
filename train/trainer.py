"""The training loop (section 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

from autograd import DropoutStream
from autograd.cuda import choices_kept_in
from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from npformer.transformer import Transformer
from train.adam import adam
from train.corpora.batches import Batches, Indices, Place
from train.corpora.corpus import Corpus
from train.corpora.sampling import Sampler
from train.corpora.sentences import ParallelTokens
from train.moving_average import MovingAverage, averaged
from train.optimizer import MakeOptimizer
from train.placing import check_training_memory, placed
from train.runs.changes import go_on_with_other_batches, told_changes
from train.runs.init_from import check_model_fits, load_parameters
from train.runs.log_entry import LogEntry, log_entry
from train.runs.metrics import read_metrics
from train.runs.progress import Position, Progress, SinceLog, Validations, counted
from train.runs.restored import restored
from train.runs.run import Run
from train.runs.samples import append_samples
from train.settings import TrainSettings
from train.step import Interrupted, StepResult, read_steps, train_step
from train.validation import Validation, validate

Report = Callable[[LogEntry | Validation], None]
Tell = Callable[[str], None]


class _Scheduled(NamedTuple):
    """A batch, and the place in the data after it."""

    batch: Batch
    place: Place


def _config(settings: TrainSettings, corpus: Corpus) -> TransformerConfig:
    """The model's configuration, for these settings and the vocabularies of this corpus."""
    tokenizers = corpus.tokenizers
    return settings.transformer_config(
        tokenizers.target.vocab_size,
        None if tokenizers.shared else tokenizers.source.vocab_size,
    )


def _left(run: Run, before: TrainSettings, now: TrainSettings) -> str:
    """What to say about the best model when it is chosen by something else from now on."""
    if not run.best.directory.is_dir():
        return ""
    until = "" if now.best_by == "none" else f", until one is the best by {now.best_by}"
    return f"; {run.best.directory} keeps its model, the best by {before.best_by}{until}"


class Trainer:
    """A training run: a model with its corpus, its settings and its progress.

    Trainer.start(settings, corpus, Run(directory)).train(report)

    parts: the classes that the model is built from. optimizer: makes its optimizer. jobs: processes
    that segment text, if `sampling` is set, while others train; they change no number. With more
    than one, a script that calls this needs the usual `if __name__ == "__main__":`.

    A resumed run takes the same steps as one that was never interrupted: the order of batches
    depends only on the seed and the epoch, dropout only on the seed and the step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        jobs: int = 1,
    ) -> None:
        settings.check_keep_every()
        self.settings, self.corpus, self.run = settings, corpus, run
        tokenizers, config = corpus.tokenizers, _config(settings, corpus)
        longest = 1 + max(
            length for part in (corpus.train, corpus.valid) for length, _ in part.longest.values()
        )
        if config.positions == "learned" and longest > config.max_length:
            raise UserError(
                f"{corpus.directory} has sentences of up to {longest} tokens, and the model learns "
                f"{config.max_length} positions; raise model.max_length"
            )
        check_training_memory(Transformer(config, parts=parts, allocate=False), settings)
        self.model = Transformer(config, seed=settings.seed, parts=parts)
        self.optimizer = placed(self.model, settings, optimizer)
        self.rate = settings.learning_rate(config.d_model)
        ids: dict[str, Any] = {
            "begin_id": tokenizers.target.begin_id,
            "end_id": tokenizers.target.end_id,
        }
        self._of_tokens = partial(
            Batches, corpus.train, seed=settings.seed, sample=self._sampling(jobs), **ids
        )
        self.batches = self._of_tokens(tokens=settings.batch_tokens)
        if settings.bleu_every or settings.samples:
            corpus.valid_text()  # now, while the corpus is surely the one that was opened
        self.valid_batches = Batches(
            corpus.valid, tokens=settings.batch_tokens, split="validation", **ids
        )
        self.progress = Progress()
        self.stop_requested = False
        self.saved_step = -1
        self._unsaved_validation = False

    @property
    def position(self) -> Position:
        return self.progress.position

    @classmethod
    def start(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        jobs: int = 1,
    ) -> Trainer:
        """Start a new run. Raises UserError if the directory already holds one."""
        init_from = None if settings.init_from is None else Path(settings.init_from)
        if init_from:
            check_model_fits(init_from, _config(settings, corpus), corpus, parts)
        trainer = cls(settings, corpus, run, parts, optimizer, jobs)
        if init_from:
            load_parameters(init_from, trainer.model)
            if isinstance(trainer.optimizer, MovingAverage):
                trainer.optimizer.start_anew()
        with run.unlocked_on_error():
            run.create(settings, trainer.model, corpus.tokenizers, corpus.fingerprint)
            trainer._save()  # so that a run that is killed early can be resumed
        return trainer

    @classmethod
    def resume(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = PAPER_PARTS,
        optimizer: MakeOptimizer = adam,
        tell: Tell = lambda line: None,
        jobs: int = 1,
    ) -> Trainer:
        """Resume a run from its newest state, with the same settings or others that may change.

        tell: is told line by line what came back, and what changes.

        Raises UserError if it does not fit, and if another process is training in the directory.
        """
        run.lock()
        with run.unlocked_on_error():
            if not corpus.has_fingerprint(run.corpus()):
                raise UserError(
                    f"{run.directory} was trained on another corpus than {corpus.directory}; "
                    "give the one that it was started with"
                )
            config = _config(settings, corpus)
            run.check_model(config, parts)  # before it is built
            before = run.saved_settings()
            changes = told_changes(
                (before, _config(before, corpus)), (settings, config), run.saved_step() + 1
            )
            trainer = cls(settings, corpus, run, parts, optimizer, jobs)
            trainer.progress = run.resume(
                trainer.model, corpus.tokenizers, trainer.optimizer, settings
            )
            trainer.saved_step = trainer.position.step
            if before.best_by != settings.best_by:
                validations = trainer.progress.validations
                trainer.progress.validations = Validations(step=validations.step)
                tell(f"the best validation so far is forgotten{_left(run, before, settings)}")
            trainer._tell_what_came_back(tell)
            for line in changes:
                tell(line)
            if before.batch_tokens != settings.batch_tokens:
                old = trainer._of_tokens(tokens=before.batch_tokens)
                tell(go_on_with_other_batches(trainer.position, old, trainer.batches))
            run.save_settings(settings, corpus.fingerprint)
        return trainer

    def _tell_what_came_back(self, tell: Tell) -> None:
        for line in restored(
            self.settings,
            self.progress,
            self.optimizer,
            self.rate,
            self.batches.windows,
            read_metrics(self.run.directory),
        ):
            tell(line)

    def train(self, report: Report = lambda entry: None) -> Position:
        """Train to the end that the settings set, or until `stop_requested`; saves a state.

        Raises UserError if training diverges or runs out of memory.
        """
        run = self.run
        with run.locked(), run.saying_what_is_kept(), choices_kept_in(run.products):
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
        settings, position = self.settings, self.position
        self._started = time.monotonic() - position.seconds
        self._since = time.monotonic() - self.progress.since_log.seconds
        unread: list[StepResult] = []
        batches = self.optimizer.owner.ahead(self._prepared, self._scheduled())
        if self._lacks_validation():  # the run was stopped at a step that is validated
            self._validate(report)

        while not self._has_ended():
            step = position.step + 1
            rate = self.rate(step)
            try:
                chosen = [next(batches) for _ in range(settings.accumulate)]
                result = train_step(
                    self.model,
                    self.optimizer,
                    [scheduled.batch for scheduled in chosen],
                    rate,
                    DropoutStream(settings.seed, step),
                    settings.clip_norm,
                    lambda: self.stop_requested,
                )
            except Interrupted:
                break  # when the run is resumed, the step is taken as a whole
            unread.append(result)
            place = chosen[-1].place
            position.step, position.epoch = step, place.epoch
            position.window, position.batch = place.window, place.batch
            keeps_checkpoint = self._keeps_checkpoint_at(step)
            if keeps_checkpoint or self._looks_at(step):
                self._read(unread)
            self._look_at_clock()

            if step % settings.log_every == 0:
                self._report(log_entry(self.progress, settings, rate), report)
                self.progress.since_log = SinceLog()
                self._since = time.monotonic()
            # First, so that a state knows of the validation of its step.
            if self._validates_at(step) and not self.stop_requested:
                self._validate(report)
            if keeps_checkpoint and not self._is_skipping():
                with self._pause():
                    self._save()
            if self.stop_requested:
                break
        self._read(unread)
        self._look_at_clock()
        self._save_at_end()
        return position

    def _has_ended(self) -> bool:
        return (
            self.position.step >= self.settings.max_steps
            or self._out_of_time()
            or self.is_out_of_patience()
        )

    def is_done(self) -> bool:
        """Whether the settings end the run here, and its last validation was made."""
        return self._has_ended() and not self._lacks_validation()

    def is_out_of_patience(self) -> bool:
        """Whether `patience` validations have passed without improvement."""
        patience = self.settings.patience
        return bool(patience) and self.progress.validations.since_best >= patience

    def _keeps_checkpoint_at(self, step: int) -> bool:
        """Whether to keep the parameters of a step, by its number or by the clock before it."""
        every, minutes = self.settings.checkpoint_every, self.settings.checkpoint_minutes
        seconds = self.position.seconds - self.progress.checkpoints.seconds
        return bool(every and step % every == 0) or bool(minutes and seconds >= 60 * minutes)

    def _is_skipping(self) -> bool:
        """Whether the last step was skipped. Then the state before may be the last good one."""
        return self.progress.skips.in_a_row > 0

    def _save_at_end(self) -> None:
        """Save what is unsaved, so that a resumed run equals an uninterrupted one.

        So the parameters are kept for averaging only if the settings end the run.
        """
        step, ended = self.position.step, self._has_ended()
        if ended:
            is_saved = step == self.saved_step and not self._unsaved_validation
            if not is_saved or not self.run.has_checkpoint(step):
                self._save()
        elif step != self.saved_step and not self._is_skipping():
            self._save(keep_parameters=False)

    def _read(self, unread: list[StepResult]) -> None:
        """Fetch and count what the last steps have given, up to this one.

        Raises UserError if too many in a row were skipped.
        """
        if not unread:
            return
        settings, last = self.settings, self.position.step
        numbers = read_steps(unread).tolist()
        for i, (row, result) in enumerate(zip(numbers, unread, strict=True)):
            self.progress.count(row, result.target_tokens)
            if self.progress.skips.in_a_row >= settings.max_skipped:
                loss, _, norm = row
                raise UserError(
                    f"training diverged, with {counted(settings.max_skipped, 'step')} skipped in a "
                    f"row, up to step {last - len(unread) + 1 + i}; in the last one the loss is "
                    f"{loss / result.target_tokens:.4g} a token and the gradient's norm "
                    f"{norm:.4g}. Resume from step {max(self.saved_step, 0)} (--resume) with a "
                    "lower learning rate or a clip_norm, or start again with a longer warmup"
                )
        unread.clear()

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        self.position.seconds = now - self._started
        self.progress.since_log.seconds = now - self._since

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """The time that the block takes does not count for the speed of training."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def _looks_at(self, step: int) -> bool:
        """Whether to read the results of a step, which waits for the device."""
        return step % self.settings.log_every == 0 or self._validates_at(step)

    def _scores_at(self, step: int) -> bool:
        every = self.settings.bleu_every
        return bool(every) and step % every == 0

    def _validates_at(self, step: int) -> bool:
        return self._scores_at(step) or step % self.settings.validate_every == 0

    def _lacks_validation(self) -> bool:
        """Whether a validation is due at this step and is not counted yet."""
        step = self.position.step
        return step > self.progress.validations.step and self._validates_at(step)

    def _validate(self, report: Report) -> None:
        """Validate, and record the result. The metrics come last: they show that all is done."""
        step, by = self.position.step, self.settings.best_by
        with self._pause():
            validation = self.validate(self._scores_at(step))
            self.run.check_place()
            if validation.samples:
                append_samples(self.run.directory, step, validation.samples)
            is_best = self.progress.validations.count(
                step, validation.score(by), lower_is_better=by == "loss"
            )
            if is_best:
                self.run.keep_best(self.model, self.optimizer, step)
            self._unsaved_validation = True
            self._report(validation, report)

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
            )

    def _sampling(self, jobs: int) -> Callable[[int, Indices], Iterator[ParallelTokens]] | None:
        """What gives other segmentations of the text in each epoch, if that is set."""
        settings, corpus = self.settings, self.corpus
        if not settings.sampling:
            return None
        sampler = Sampler(
            corpus.train,
            corpus.train_text(),
            corpus.tokenizers,
            settings.sampling,
            settings.seed,
            jobs,
        )

        def sample(epoch: int, pairs: Indices) -> Iterator[ParallelTokens]:
            for block in sampler.sample(epoch, pairs):
                if self.stop_requested:
                    raise Interrupted
                yield block

        return sample

    def _scheduled(self) -> Iterator[_Scheduled]:
        """Batches from the current position on, without end."""
        position = self.position
        coming = self.batches.from_position(position.epoch, position.window, position.batch)
        return starmap(_Scheduled, coming)

    def _prepared(self, scheduled: _Scheduled) -> _Scheduled:
        return scheduled._replace(batch=self.model.prepared(scheduled.batch))

    def _out_of_time(self) -> bool:
        limit = self.settings.max_minutes * 60
        return bool(limit) and self.position.seconds >= limit

    def _report(self, entry: LogEntry | Validation, report: Report) -> None:
        values: dict[str, Any] = asdict(entry)
        values.pop("samples", None)  # they have a file of their own
        self.run.log({k: v for k, v in values.items() if v is not None})
        report(entry)

    def _save(self, *, keep_parameters: bool = True) -> None:
        if keep_parameters and self.settings.checkpoint_minutes:
            self.progress.checkpoints.seconds = self.position.seconds
        self.run.save(
            self.model,
            self.corpus.tokenizers,
            self.optimizer,
            self.progress,
            self.settings,
            keep_parameters=keep_parameters,
        )
        self.saved_step = self.position.step
        self._unsaved_validation = False
