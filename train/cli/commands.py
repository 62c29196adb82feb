"""The subcommands of the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from npformer.batch import Batch, batches_of_similar_length
from npformer.beam_search import SearchSettings
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.translator import Translator
from train.average import write_average
from train.cli.curves import plot_curves
from train.cli.demo import run_demo
from train.cli.display import TrainingDisplay, counting, counting_bytes, counting_stages
from train.cli.plot import plot_attention
from train.cli.status import describe, read_status
from train.cli.streams import input_bytes, require_output, say_at_once
from train.cli.tensorboard import check_tensorboard, event_files
from train.corpora import preparation
from train.corpora.corpus import Corpus
from train.corpora.text import decode_lines, read_both
from train.corpora.workers import cores
from train.datasets import fetching
from train.datasets.catalogue import DATASETS
from train.evaluation import Likelihood, bleu, check_tokenizer, chrf, likelihood, ter
from train.ranks.world import world
from train.runs.log_entry import LogEntry
from train.runs.metrics import SCORE_NAMES
from train.runs.progress import counted
from train.runs.run import Run
from train.settings import TrainSettings, settings_from_dict
from train.signals import Stopped, handled_by
from train.trainer import Trainer
from train.validation import Validation

if TYPE_CHECKING:
    from jsonargparse import Namespace

_LINES_AT_A_TIME = 10_000  # lines of a stream that are sorted into batches of similar length


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
        )
    print(
        f"{options.out}: {len(corpus.train):,} pairs to train on, {len(corpus.valid):,} to "
        f"validate with, {corpus.tokenizers.target.vocab_size:,} subwords",
        file=sys.stderr,
    )


def fetch(options: Namespace) -> None:
    dataset = DATASETS[options.name]
    with counting_bytes() as progress:
        fetching.fetch(dataset, options.out or Path("data", dataset.name), _tell, progress)


def train(options: Namespace) -> None:
    values = options.as_dict()
    names = {f.name for f in dataclasses.fields(TrainSettings)}
    settings = settings_from_dict({k: v for k, v in values.items() if k in names})
    if settings.bleu_every:
        check_tokenizer(settings.bleu_tokenize)
    if settings.tensorboard:
        check_tensorboard()
    ranks = world()
    with ranks.together():
        corpus = Corpus.open(options.data)
    run = Run(options.out)
    if options.resume and not ranks.on_first(run.was_never_saved):
        trainer = Trainer.resume(
            settings, corpus, run, tell=_tell, ranks=ranks, jobs=_jobs(options)
        )
    else:
        if options.resume:
            _tell(f"{options.out} was killed before its first checkpoint, so it starts again")
        trainer = Trainer.start(settings, corpus, run, ranks=ranks, jobs=_jobs(options))
    parameters = sum(p.size for p in trainer.model.parameters().values())
    _tell(f"{options.out}: {parameters:,} parameters, {len(corpus.train):,} pairs")
    with (
        TrainingDisplay(settings.max_steps, settings.max_minutes) as display,
        event_files(settings.tensorboard, options.out, trainer.position.step) as write_events,
        _stopping_gently(trainer) as signals,
    ):

        def report(entry: LogEntry | Validation) -> None:
            display(entry)
            write_events(entry)

        position = trainer.train(report)
    ending = _ending(trainer, position.step)
    if signals and not trainer.timetable.is_done():
        raise Stopped(signals[0], ending)
    _tell(ending)


def _jobs(options: Namespace) -> int:
    return cores() if options.jobs is None else int(options.jobs)


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
        if trainer.stop_requested:
            raise Stopped(
                number,
                "stopped at once; continue with npformer train --resume from step "
                f"{trainer.saved_step}",
            )
        came.append(number)
        trainer.stop_requested = True
        unit = "batch" if trainer.settings.accumulate > 1 else "step"
        say_at_once(f"stopping after this {unit}; a second signal stops at once")

    with handled_by(stop):
        yield came


def _search_settings(options: Namespace) -> dict[str, Any]:
    """The settings of the search, validated."""
    chosen = {name: options[name] for name in ("beam", "length_penalty", "penalty", "extra_length")}
    try:
        SearchSettings(**chosen)
    except ValueError as error:
        raise UserError(str(error)) from error
    if options.batch_tokens < 1:
        raise UserError(f"batch_tokens must be at least 1; it is {options.batch_tokens}")
    return {**chosen, "batch_tokens": options.batch_tokens}


def translate(options: Namespace) -> None:
    settings = _search_settings(options)
    require_output("translate")
    given = input_bytes("translate")
    translator = Translator.load(options.model, options.backend, options.precision)
    lines = decode_lines(given, "standard input")
    while chunk := list(islice(lines, _LINES_AT_A_TIME)):
        with counting("translated", len(chunk)) as advance:
            translations = translator.translate(chunk, progress=advance, **settings)
        for translation in translations:
            sys.stdout.buffer.write(translation.text.encode() + b"\n")
        sys.stdout.buffer.flush()


def _check_output(options: Namespace) -> None:
    """Raise UserError if the output would overwrite an input."""
    output = options.output
    if output is None or not output.exists():
        return
    if output.is_dir():
        raise UserError(f"{output} is a directory; give --output the name of a file")
    inputs = [options.source, options.reference, *options.model.glob("*")]
    if any(path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output} is what is evaluated; give another --output")


def evaluate(options: Namespace) -> None:
    settings = _search_settings(options)
    _check_output(options)
    require_output("evaluate")
    if "bleu" in options.metrics:
        check_tokenizer(options.tokenize)
    translator = Translator.load(options.model, options.backend, options.precision)
    sources, references = read_both(options.source, options.reference)
    found = _likelihood(translator, sources, references)
    with counting("translated", len(sources)) as advance:
        translations = translator.translate(sources, progress=advance, **settings)
    texts = [t.text for t in translations]
    if options.output:
        with atomic_write(options.output) as file:
            file.writelines(text.encode() + b"\n" for text in texts)
    print(f"perplexity = {found.perplexity:.3f}  per subword, unsmoothed, of the references")
    for metric, score in (("ter", ter), ("chrf", chrf)):
        if metric in options.metrics:
            print(score(texts, references, options.lowercase))
    if "bleu" in options.metrics:
        print(bleu(texts, references, options.tokenize, options.lowercase))


def score(options: Namespace) -> None:
    require_output("score")
    translator = Translator.load(options.model, options.backend, options.precision)
    sources, targets = read_both(options.source, options.target)
    for source, target in zip(sources, targets, strict=True):
        found = _likelihood(translator, [source], [target])
        print(f"{-found.nll_sum:.4f}\t{found.perplexity:.3f}")


def _likelihood(translator: Translator, sources: list[str], targets: list[str]) -> Likelihood:
    """The loss of the model on the given translations."""
    tokenizers = translator.tokenizers
    source_ids = tokenizers.source.encode_lines(sources)
    target_ids = tokenizers.target.encode_lines(targets)
    # With the end token, even two empty lines are a pair of one token each.
    pairs = [
        (*s, *t, tokenizers.target.end_id) for s, t in zip(source_ids, target_ids, strict=True)
    ]
    batches = (
        Batch.of(
            [source_ids[i] for i in chosen],
            [target_ids[i] for i in chosen],
            begin_id=tokenizers.target.begin_id,
            end_id=tokenizers.target.end_id,
        )
        for chosen in batches_of_similar_length(pairs, tokens=4096)
    )
    return likelihood(translator.model, batches)


def average(options: Namespace) -> None:
    write_average(options.run, options.last, options.out)
    _tell(f"{options.out}: the mean of {counted(options.last, 'checkpoint')}")


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


def demo(options: Namespace) -> None:
    run_demo(options.data, options.out, options.minutes, options.seed)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "prepare": prepare,
    "fetch": fetch,
    "train": train,
    "translate": translate,
    "evaluate": evaluate,
    "score": score,
    "average": average,
    "plot": plot,
    "status": status,
    "demo": demo,
}
