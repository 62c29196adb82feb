"""The training loop (section 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from autograd import DropoutStream
from autograd.backend import current
from autograd.cuda import allow_tf32
from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.parameters import check_memory
from npformer.parts import THE_PAPERS, Parts
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.adam import adam
from train.batches import Batches
from train.corpus import Corpus
from train.evaluation import bleu, likelihood, perplexity
from train.optimizer import MakeOptimizer, Optimizer
from train.run import Position, Run, read_metrics
from train.settings import TrainSettings
from train.step import StepResult, read_steps, train_step


@dataclass(frozen=True)
class LogEntry:
    """A line of the training log: averages over the steps since the last one.

    Attributes:
        loss: smoothed, in nats per target token
        perplexity: per target token, without smoothing
        tokens_per_second: target tokens
        seconds, seconds_left: of the whole run
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


@dataclass(frozen=True)
class Validation:
    """Scores on the validation set; `bleu` and `signature` if translations were scored."""

    step: int
    valid_loss: float
    valid_perplexity: float
    seconds: float
    bleu: float | None = None
    signature: str | None = None


Report = Callable[[LogEntry | Validation], None]


class _Scheduled(NamedTuple):
    """A batch, its epoch and its index in the epoch."""

    batch: Batch
    epoch: int
    place: int


class _Recent:
    """The steps since the last log entry.

    `sums` are the sums of their losses, negative log-likelihoods and gradient norms, of the steps
    that `read` has fetched.
    """

    def __init__(self) -> None:
        self.steps = self.target_tokens = 0
        self.sums: tuple[float, ...] = (0.0, 0.0, 0.0)
        self._unread: list[StepResult] = []

    def add(self, result: StepResult) -> None:
        self.steps += 1
        self.target_tokens += result.target_tokens
        self._unread.append(result)

    def read(self, last_step: int) -> None:
        """Fetch the results of new steps, up to `last_step`. Raises UserError on divergence."""
        if self._unread:
            numbers = read_steps(self._unread, last_step)
            self.sums = tuple(map(sum, zip(self.sums, *numbers.tolist(), strict=True)))
            self._unread.clear()


def _config(settings: TrainSettings, corpus: Corpus) -> TransformerConfig:
    """The model's configuration, for these settings and the vocabularies of this corpus."""
    tokenizers = corpus.tokenizers
    return settings.transformer_config(
        tokenizers.target.vocab_size,
        None if tokenizers.shared else tokenizers.source.vocab_size,
    )


class Trainer:
    """A training run: a model with its corpus, its settings and its progress.

    Trainer.start(settings, corpus, Run(directory)).train(report)

    parts: the classes that the model is built from. optimizer: makes its optimizer.

    A resumed run takes the same steps as one that was never interrupted: the order of batches
    depends only on the seed and the epoch, dropout only on the seed and the step.
    """

    def __init__(
        self,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = THE_PAPERS,
        optimizer: MakeOptimizer = adam,
    ) -> None:
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
        self._check_memory(Transformer(config, parts=parts, allocate=False))
        self.model = Transformer(config, seed=settings.seed, parts=parts)
        self.optimizer = self._placed(optimizer)
        self.rate = settings.learning_rate(config.d_model)
        ids = {"begin_id": tokenizers.target.begin_id, "end_id": tokenizers.target.end_id}
        tokens = settings.batch_tokens
        self.batches = Batches(corpus.train, tokens=tokens, seed=settings.seed, **ids)
        self.valid_batches = Batches(corpus.valid, tokens=tokens, **ids)
        self.position = Position()
        self.stop_requested = False
        self._saved_step = -1

    @classmethod
    def start(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = THE_PAPERS,
        optimizer: MakeOptimizer = adam,
    ) -> Trainer:
        """Start a new run. Raises UserError if the directory already holds one."""
        trainer = cls(settings, corpus, run, parts, optimizer)
        run.create(settings, trainer.model, corpus.tokenizers, corpus.fingerprint)
        trainer._save()  # so that a run that is killed early can be resumed
        return trainer

    @classmethod
    def resume(
        cls,
        settings: TrainSettings,
        corpus: Corpus,
        run: Run,
        parts: Parts = THE_PAPERS,
        optimizer: MakeOptimizer = adam,
    ) -> Trainer:
        """Resume a run from its newest checkpoint. Raises UserError if it does not fit."""
        if run.corpus() != corpus.fingerprint:
            raise UserError(
                f"{run.directory} was trained on another corpus than {corpus.directory}; "
                "give the one that it was started with"
            )
        run.check_model(_config(settings, corpus), parts)  # before it is built
        trainer = cls(settings, corpus, run, parts, optimizer)
        trainer.position = run.resume(trainer.model, corpus.tokenizers, trainer.optimizer)
        trainer._saved_step = trainer.position.step
        run.save_settings(settings, corpus.fingerprint)
        return trainer

    def _check_memory(self, model: Transformer) -> None:
        """Raise UserError if training needs more memory than the machine has."""
        saved = 3  # a checkpoint is serialised in memory: the parameters and two moments
        if (self.settings.backend or current().name) == "numpy":
            copies, purpose = 4 + saved, "its parameters, their gradients, Adam's two moments"
        else:  # they are on the device, which raises MemoryError if they do not fit
            copies, purpose = 3 + saved, "its parameters and Adam's two moments from the device"
        check_memory(model.parameters(), copies, f"{purpose} and a checkpoint")

    def _placed(self, optimizer: MakeOptimizer) -> Optimizer:
        """Move the model to its backend; returns its optimizer there."""
        settings, buffer = self.settings, self.model.buffer
        backend = settings.backend or current().name
        allow_tf32(settings.precision == "tf32")
        try:
            self.model.to(backend, "bf16" if settings.precision == "bf16" else "float32")
            return optimizer(buffer, settings)
        except MemoryError as error:
            raise UserError(
                f"a model of {buffer.values.size:,} parameters and its optimizer do not fit into "
                f"memory ({error}); make the model smaller (model.layers, model.d_model)"
            ) from error

    def train(self, report: Report = lambda entry: None) -> Position:
        """Train to the end that the settings set, or until `stop_requested`; saves a checkpoint.

        Raises UserError if training diverges or runs out of memory.
        """
        try:
            return self._train(report)
        except MemoryError as error:
            tokens, bleu = self.settings.batch_tokens, self.settings.bleu_every
            raise UserError(
                f"out of memory at step {self.position.step + 1} ({error}); lower batch_tokens, "
                f"which is {tokens:,}, and raise accumulate by as much"
                f"{', or lower bleu_beam' if bleu else ''}"
            ) from error

    def _train(self, report: Report) -> Position:
        settings, position = self.settings, self.position
        started = time.monotonic() - position.seconds
        since, recent = time.monotonic(), _Recent()
        batches = self.optimizer.owner.ahead(self._prepared, self._scheduled())
        if self._lacks_validation():  # killed between a checkpoint and the validation after it
            self._report(self.validate(self._scores_at(position.step)), report)

        while position.step < settings.max_steps and not self._out_of_time():
            step = position.step + 1
            chosen = [next(batches) for _ in range(settings.accumulate)]
            rate = self.rate(step)
            recent.add(
                train_step(
                    self.model,
                    self.optimizer,
                    [scheduled.batch for scheduled in chosen],
                    rate,
                    DropoutStream(settings.seed, step),
                    settings.clip_norm,
                )
            )
            position.step, position.epoch = step, chosen[-1].epoch
            position.batch = chosen[-1].place + 1
            if self._looks_at(step):
                recent.read(step)
            position.seconds = time.monotonic() - started

            if step % settings.log_every == 0:
                now = time.monotonic()
                self._report(self._log_entry(recent, rate, now - since), report)
                recent, since = _Recent(), now
            if step % settings.checkpoint_every == 0:
                pause = time.monotonic()
                self._save()
                since += time.monotonic() - pause
            if self._validates_at(step):
                pause = time.monotonic()
                self._report(self.validate(self._scores_at(step)), report)
                since += time.monotonic() - pause
            if self.stop_requested:
                break
        if position.step != self._saved_step:
            recent.read(position.step)
            position.seconds = time.monotonic() - started
            self._save()
        return position

    def _looks_at(self, step: int) -> bool:
        """Whether to read the results of a step, which waits for the device."""
        settings = self.settings
        return (
            step % settings.log_every == 0
            or step % settings.checkpoint_every == 0
            or self._validates_at(step)
        )

    def _scores_at(self, step: int) -> bool:
        every = self.settings.bleu_every
        return bool(every) and step % every == 0

    def _validates_at(self, step: int) -> bool:
        return self._scores_at(step) or step % self.settings.validate_every == 0

    def _lacks_validation(self) -> bool:
        """Whether a validation was due at this step and is not in the metrics."""
        step = self.position.step
        return (
            step > 0
            and self._validates_at(step)
            and not any(
                entry["step"] == step and "valid_loss" in entry
                for entry in read_metrics(self.run.directory)
            )
        )

    def validate(self, with_bleu: bool) -> Validation:
        """Loss and perplexity on the validation set, and with `with_bleu` its BLEU."""
        result = likelihood(self.model, self.valid_batches.epoch(0))
        score = None
        if with_bleu:
            sources, references = self.corpus.valid_text()
            translator = Translator(self.model, self.corpus.tokenizers)
            translations = translator.translate(sources, beam=self.settings.bleu_beam)
            texts = [t.text for t in translations]
            score = bleu(texts, references, self.settings.bleu_tokenize)
        return Validation(
            self.position.step,
            result.loss,
            result.perplexity,
            self.position.seconds,
            score.value if score else None,
            score.signature if score else None,
        )

    def _scheduled(self) -> Iterator[_Scheduled]:
        """Batches from the current position on, without end."""
        epoch, index = self.position.epoch, self.position.batch
        for batch, place in self.batches.from_position(epoch, 0, index):
            if place.epoch != epoch:
                epoch, index = place.epoch, 0
            yield _Scheduled(batch, epoch, index)
            index += 1

    def _prepared(self, scheduled: _Scheduled) -> _Scheduled:
        return scheduled._replace(batch=self.model.prepared(scheduled.batch))

    def _out_of_time(self) -> bool:
        limit = self.settings.max_minutes * 60
        return bool(limit) and self.position.seconds >= limit

    def _log_entry(self, recent: _Recent, rate: float, elapsed: float) -> LogEntry:
        settings, position = self.settings, self.position
        tokens = recent.target_tokens
        loss_sum, nll_sum, norm_sum = recent.sums
        left = (settings.max_steps - position.step) * position.seconds / position.step
        if settings.max_minutes:
            left = max(0.0, min(left, settings.max_minutes * 60 - position.seconds))
        return LogEntry(
            step=position.step,
            loss=loss_sum / tokens,
            perplexity=perplexity(nll_sum / tokens),
            rate=rate,
            gradient_norm=norm_sum / recent.steps,
            tokens_per_second=tokens / elapsed,
            seconds=position.seconds,
            seconds_left=left,
            epoch=position.epoch,
        )

    def _report(self, entry: LogEntry | Validation, report: Report) -> None:
        values: dict[str, Any] = asdict(entry)
        self.run.log({k: v for k, v in values.items() if v is not None})
        report(entry)

    def _save(self) -> None:
        self.run.save(
            self.model,
            self.corpus.tokenizers,
            self.optimizer,
            self.position,
            self.settings.keep_checkpoints,
        )
        self._saved_step = self.position.step
