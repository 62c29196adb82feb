"""Train a model on a corpus."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from train.cli.display import TrainingDisplay
from train.cli.flags import path
from train.cli.jobs import jobs_of
from train.cli.rank_output import output_of
from train.cli.settings_words import with_settings_of_files
from train.cli.streams import tell
from train.cli.tensorboard import check_tensorboard, event_files
from train.corpora.corpus import Corpus
from train.evaluation import check_tokenizer
from train.loop import Report
from train.placing import device_name
from train.ranks.ranks import Ranks
from train.ranks.work import logger
from train.ranks.world import world
from train.runs.log_entry import LogEntry
from train.runs.metrics import SCORE_NAMES
from train.runs.run import Run
from train.settings import TrainSettings, settings_from_dict
from train.signals import Stopped, handled_by, say_at_once
from train.trainer import Trainer
from train.validation import Validation
from train.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="a YAML file of settings")
    parser.add_argument("--data", type=path, required=True, help="the corpus, made by prepare")
    parser.add_argument("--out", type=path, required=True, help="directory of the run")
    parser.add_argument("--resume", action="store_true", help="resume the run in --out")
    parser.add_argument(
        "--jobs",
        type=int,
        help="processes that segment text for --sampling; one for each core, which ranks share",
    )
    parser.add_class_arguments(TrainSettings, as_group=False)


def expanded(words: list[str]) -> list[str]:
    return with_settings_of_files(words)


def run(options: Namespace) -> None:
    ranks = world()
    with output_of(ranks) as output:
        trainer = _trainer(options, ranks)
        with ranks.together():
            output.log_to(trainer.run.ranks.log(ranks.rank))
        _say_who(trainer)
        parameters = sum(p.size for p in trainer.model.parameters().values())
        pairs = counted(len(trainer.corpus.train), "pair")
        tell(f"{options.out}: {parameters:,} parameters, {pairs}")
        with _reports(trainer) as report, _stopping_gently(trainer) as signals:
            position = trainer.train(report)
        ending = _ending(trainer, position.step)
        came = [number for of_rank in ranks.all(signals) for number in of_rank]
        if came and not trainer.timetable.is_done():
            raise Stopped(came[0], ending, agreed=True)
        tell(ending)


def _trainer(options: Namespace, ranks: Ranks) -> Trainer:
    """The run in --out, begun or resumed."""
    values = options.as_dict()
    names = {f.name for f in dataclasses.fields(TrainSettings)}
    with ranks.together():
        settings = settings_from_dict({k: v for k, v in values.items() if k in names})
        if settings.bleu_every:
            check_tokenizer(settings.bleu_tokenize)
        if settings.tensorboard:
            check_tensorboard()
        corpus = Corpus.open(options.data)
    run, jobs = Run(options.out), jobs_of(options, ranks)
    if options.resume and not ranks.on_first(run.was_never_saved):
        return Trainer.resume(settings, corpus, run, tell=tell, ranks=ranks, jobs=jobs)
    if options.resume and ranks.is_first:
        tell(f"{options.out} was killed before its first checkpoint, so it starts again")
    return Trainer.start(settings, corpus, run, ranks=ranks, jobs=jobs)


def _say_who(trainer: Trainer) -> None:
    """Log, where there are several ranks, which of them this is."""
    ranks, settings = trainer.ranks, trainer.settings
    if ranks.size > 1:
        logger.info(
            "rank %d of %d: process %d on %s, which computes on %s; its share is 1/%d of each step "
            "(batch_tokens %d, accumulate %d)",
            ranks.rank,
            ranks.size,
            os.getpid(),
            socket.gethostname(),
            device_name(trainer.optimizer.owner),
            ranks.size,
            settings.batch_tokens,
            settings.accumulate,
        )


@contextmanager
def _reports(trainer: Trainer) -> Iterator[Report]:
    """What shows the log entries and validations of a run. Of several ranks, the first does."""
    settings = trainer.settings
    if not trainer.ranks.is_first:
        yield lambda entry: None
        return
    with (
        TrainingDisplay(settings.max_steps, settings.max_minutes) as display,
        event_files(
            settings.tensorboard, trainer.run.directory, trainer.position.step
        ) as write_events,
    ):

        def report(entry: LogEntry | Validation) -> None:
            display(entry)
            write_events(entry)

        yield report


def _ending(trainer: Trainer, step: int) -> str:
    """How a run has ended, as a sentence."""
    words = f"done at step {step}"
    best, by = trainer.progress.validations, trainer.settings.best_by
    if trainer.timetable.is_out_of_patience():
        words += f": no improvement in {counted(best.since_best, 'validation')}"
    if best.best_step:
        directory = trainer.run.best.directory
        score = f"with {SCORE_NAMES.get(by, by)} {best.best:.3f} at step {best.best_step}"
        if trainer.run.best.is_of(best.best_step):
            words += f"; {directory} has the best model, {score}"
        else:  # removed, or not copied
            words += f"; the best model, {score}, is no longer in {directory}"
    if trainer.stop_requested and not trainer.timetable.is_done():
        words = f"stopped at step {step}; continue with npformer train --resume"
        if trainer.saved_step < step:
            words += f" from step {trainer.saved_step}, before steps that were skipped"
    if skipped := trainer.progress.skips.total:
        words += f"; {counted(skipped, 'step')} skipped, for a loss or gradient that is not finite"
    return words


@contextmanager
def _stopping_gently(trainer: Trainer) -> Iterator[list[int]]:
    """On a signal, end a run after its step with a state; on another, at once.

    Yields a list, of the number of the first signal as soon as it has come.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if came:
            raise Stopped(
                number,
                "stopped at once; continue with npformer train --resume from step "
                f"{max(trainer.saved_step, 0)}",
            )
        came.append(number)
        trainer.stop_requested = True
        if trainer.ranks.is_first:
            alone = trainer.ranks.size == 1
            unit = "batch" if alone and trainer.settings.accumulate > 1 else "step"
            say_at_once(f"stopping after this {unit}; a second signal stops at once")

    with handled_by(stop):
        yield came
