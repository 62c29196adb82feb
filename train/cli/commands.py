"""The subcommands of the command line."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from npformer.checkpoint import load_tokenizers
from npformer.errors import UserError
from npformer.formats.exporting import export_model
from npformer.formats.importing import import_model
from npformer.shortlist_file import save_shortlist
from npformer.translator import Translator
from train.average import write_average
from train.cli.curves import plot_curves
from train.cli.demo import run_demo
from train.cli.display import TrainingDisplay, counting, counting_bytes, counting_stages
from train.cli.experiments import run_experiment
from train.cli.lines import evaluate, score, translate
from train.cli.plot import plot_attention
from train.cli.rank_output import output_of
from train.cli.status import describe, read_status
from train.cli.streams import require_output, say_at_once
from train.cli.tensorboard import check_tensorboard, event_files
from train.corpora import preparation
from train.corpora.corpus import Corpus
from train.corpora.workers import cores
from train.datasets import fetching
from train.datasets.catalogue import DATASETS
from train.evaluation import check_tokenizer
from train.loop import Report
from train.placing import device_name
from train.ranks.ranks import ALONE, Ranks
from train.ranks.work import logger
from train.ranks.world import world
from train.runs.log_entry import LogEntry
from train.runs.metrics import SCORE_NAMES
from train.runs.run import Run
from train.settings import TrainSettings, settings_from_dict
from train.shortlists import (
    ITERATIONS,
    coverage,
    learn_shortlist,
    pairs_of_corpus,
    pairs_of_text,
)
from train.signals import Stopped, handled_by
from train.trainer import Trainer
from train.validation import Validation
from train.wording import counted

if TYPE_CHECKING:
    from jsonargparse import Namespace


def prepare(options: Namespace) -> None:
    with counting_stages() as progress:
        corpus = preparation.prepare(
            options.train_source,
            options.train_target,
            options.valid_source,
            options.valid_target,
            options.out,
            vocab_size=options.vocab_size,
            tokenizer=options.tokenizer,
            algorithm=options.algorithm,
            shared=not options.separate,
            max_length=options.max_length,
            normalization=options.normalization,
            character_coverage=options.character_coverage,
            vocabulary_lines=options.vocabulary_lines,
            max_ratio=options.max_ratio,
            drop_copies=options.drop_copies,
            drop_duplicates=options.drop_duplicates,
            source_script=options.source_script,
            target_script=options.target_script,
            keep_text=options.keep_text,
            jobs=_jobs(options),
            overwrite=options.overwrite,
            progress=progress,
            origins=fetching.fetched_texts([*options.train_source, *options.train_target]),
        )
    print(
        f"{options.out}: {counted(len(corpus.train), 'pair')} to train on, "
        f"{len(corpus.valid):,} to validate with, {corpus.tokenizers.target.vocab_size:,} subwords",
        file=sys.stderr,
    )


def fetch(options: Namespace) -> None:
    dataset = DATASETS[options.name]
    with counting_bytes() as progress:
        fetching.fetch(dataset, options.out or Path("data", dataset.name), _tell, progress)


def train(options: Namespace) -> None:
    ranks = world()
    with output_of(ranks) as output:
        trainer = _trainer(options, ranks)
        with ranks.together():
            output.log_to(trainer.run.ranks.log(ranks.rank))
        _say_who(trainer)
        parameters = sum(p.size for p in trainer.model.parameters().values())
        pairs = counted(len(trainer.corpus.train), "pair")
        _tell(f"{options.out}: {parameters:,} parameters, {pairs}")
        with _reports(trainer) as report, _stopping_gently(trainer) as signals:
            position = trainer.train(report)
        ending = _ending(trainer, position.step)
        came = [number for of_rank in ranks.all(signals) for number in of_rank]
        if came and not trainer.timetable.is_done():
            raise Stopped(came[0], ending, agreed=True)
        _tell(ending)


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
    run, jobs = Run(options.out), _jobs(options, ranks)
    if options.resume and not ranks.on_first(run.was_never_saved):
        return Trainer.resume(settings, corpus, run, tell=_tell, ranks=ranks, jobs=jobs)
    if options.resume and ranks.is_first:
        _tell(f"{options.out} was killed before its first checkpoint, so it starts again")
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


def _jobs(options: Namespace, ranks: Ranks = ALONE) -> int:
    """How many processes work on text: those that are asked for, or one for each processor."""
    return int(options.jobs) if options.jobs is not None else ranks.processors or cores()


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


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


def average(options: Namespace) -> None:
    write_average(options.run, options.last, options.out)
    _tell(f"{options.out}: the mean of {counted(options.last, 'checkpoint')}")


def import_(options: Namespace) -> None:
    config = import_model(options.directory, options.out)
    vocabulary = f"{config.vocab_size:,} tokens"
    if config.source_vocab_size:
        vocabulary = f"{config.source_vocab_size:,} source and {config.vocab_size:,} target tokens"
    _tell(
        f"{options.out}: {config.layers} + {config.decoder_depth} layers, "
        f"d_model {config.d_model}, {vocabulary}"
    )


def export(options: Namespace) -> None:
    for note in export_model(options.model, options.out, options.format):
        _tell(f"{options.out}: {note}")
    _tell(f"{options.out}: the model in the form of {options.format}")


def shortlist(options: Namespace) -> None:
    model, tokenizers = options.model, load_tokenizers(options.model)
    if (options.data is None) == (options.source is None):
        raise UserError("give --source and --target, or the corpus with --data")
    if (options.target is None) != (options.source is None):
        raise UserError("--source and --target are given together")
    if options.data is not None:
        pairs = pairs_of_corpus(options.data, model, options.pairs)
    else:
        pairs = pairs_of_text(options.source, options.target, tokenizers, options.pairs)
    with counting("iteration", ITERATIONS) as advance:
        learned = learn_shortlist(
            pairs,
            tokenizers,
            best=options.best,
            frequent=options.frequent,
            progress=lambda log_p: advance(1),
        )
    about = {"pairs": len(pairs), "best": options.best, "frequent": options.frequent}
    save_shortlist(model, learned, tokenizers, about)
    _tell(
        f"{model}: a shortlist learned from {counted(len(pairs), 'pair')}; a sentence has "
        f"{coverage(learned, pairs).candidates:,.0f} of {learned.vocab_size:,} tokens, on average"
    )


def plot(options: Namespace) -> None:
    if options.attention is None:
        plot_curves(options.runs, options.out)
        return
    if len(options.runs) > 1:
        raise UserError("--attention is drawn for one model; give one directory")
    plot_attention(Translator.load(options.runs[0]), options.attention, options.out)


def status(options: Namespace) -> None:
    require_output("status")
    print("\n\n".join(describe(read_status(run)) for run in options.runs))


def experiment(options: Namespace) -> None:
    require_output("experiment")
    print(run_experiment(options.subcommand, options[options.subcommand], _tell), end="")


def demo(options: Namespace) -> None:
    run_demo(options.data, options.out, options.minutes, options.seed)


SHARED = frozenset({"train", "translate", "evaluate", "score"})
"""The commands that several processes can share."""

COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "prepare": prepare,
    "fetch": fetch,
    "train": train,
    "translate": translate,
    "evaluate": evaluate,
    "score": score,
    "average": average,
    "import": import_,
    "export": export,
    "shortlist": shortlist,
    "plot": plot,
    "status": status,
    "experiment": experiment,
    "demo": demo,
}
