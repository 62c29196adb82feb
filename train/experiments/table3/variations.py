"""Table 3: all rows are trained with several seeds, and compared with base."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

from autograd.backend import current
from npformer.errors import UserError
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.evaluation import check_tokenizer
from train.experiments.experiment import Experiment
from train.experiments.measurements import Measurements, file_name
from train.experiments.page import Page
from train.experiments.processes import all_in_processes, usable_jobs
from train.experiments.table3.findings import Findings
from train.experiments.table3.plan import rate_factor, steps_in, warmup
from train.experiments.table3.results import Setting, page_of
from train.experiments.table3.rows import BASE, ROWS, Row, chosen, scaled
from train.experiments.table3.trained import Training, step_seconds, train_row
from train.grammar_recipe import write_grammar
from train.settings import BleuTokenizer, ModelSettings, TrainSettings

_VOCABULARY = 1_000  # subwords of the generated grammar, which both languages share
_SMALL_VOCABULARY = 500  # of a few hundred sentences


@dataclass(frozen=True)
class Settings:
    """Which rows are trained, in which size, on what, and how long."""

    data: Annotated[
        Path | None, "a corpus, made by npformer prepare; without it one of the grammar is made"
    ]
    pairs: Annotated[int, "without --data: of the generated grammar, to train on"]
    rows: Annotated[tuple[str, ...], f"which to train: of {', '.join(ROWS)}"]
    width: Annotated[float, "multiplies d_model, d_ff, d_k and d_v of all rows"]
    layers: Annotated[int, "of base; other rows keep their relation to it"]
    steps: Annotated[int, "of training, the same for every row; with --minutes at most as many"]
    minutes: Annotated[
        float, "bounds the whole: the steps are set by what a step takes here; 0 is no bound"
    ]
    seeds: Annotated[int, "how many models are trained of each row"]
    batch_tokens: Annotated[int, "in a step, of each language"]
    rate: Annotated[float, "multiplies the paper's learning rate"]
    tokenize: Annotated[tuple[str, ...], "tokenizers of BLEU, such as 13a, none and paper"]
    sentences: Annotated[int, "of the validation set that are translated, at most"]
    backend: Annotated[str | None, "numpy, or cupy for GPUs"]
    precision: Annotated[str, "float32, tf32 or bf16"]
    jobs: Annotated[int, "rows that are trained at the same time; 0 is one a core or GPU"]


def measure(settings: Settings, found: Measurements) -> Page:
    """Train all rows with all seeds, and compare them."""
    rows = chosen(settings.rows)
    models = {row.name: scaled(row, settings.width, settings.layers) for row in rows}
    _check(settings)
    base = ModelSettings(**models[BASE])
    _train_settings(settings, base, seed=1, steps=1)  # which checks what it is given
    backend = settings.backend or current().name
    jobs = settings.jobs or usable_jobs(backend)
    directory = settings.data or _grammar(found.work("corpus"), settings.pairs)
    corpus = Corpus.open(directory)
    found.check_same("data", corpus.fingerprint)

    def training(name: str, seed: int, steps: int) -> Training:
        return Training(
            directory,
            _run(found, _part(name, seed)),
            _train_settings(settings, ModelSettings(**models[name]), seed, steps),
            settings.tokenize,
            settings.sentences,
        )

    seconds, steps = {row.name: 1.0 for row in rows}, settings.steps
    if settings.minutes:
        speeds = all_in_processes(
            found,
            {_speed(row): partial(step_seconds, training(row.name, 1, 1)) for row in rows},
            {_speed(row): 1.0 for row in rows},
            jobs,
            backend,
        )
        seconds = {row.name: speeds[_speed(row)] for row in rows}
        # Kept: another number of processors when the run goes on does not change it.
        steps = found.of("steps", lambda: _fitting_steps(settings, found, seconds, jobs))
    parts = {
        _part(row.name, seed): (row, seed)
        for row in sorted(rows, key=lambda row: -seconds[row.name])  # the longest first
        for seed in range(1, settings.seeds + 1)
    }
    trained = all_in_processes(
        found,
        {p: partial(train_row, training(row.name, s, steps)) for p, (row, s) in parts.items()},
        {part: seconds[row.name] for part, (row, _) in parts.items()},
        jobs,
        backend,
        lambda part: shutil.rmtree(_run(found, part), ignore_errors=True),
    )
    by_row = {
        row.name: [trained[_part(row.name, s)] for s in range(1, settings.seeds + 1)]
        for row in rows
    }
    return page_of(
        Findings(rows, by_row),
        Setting(
            _train_settings(settings, base, 1, steps),
            corpus,
            f"`{settings.data}`" if settings.data else "the generated grammar (English to German)",
            settings.seeds,
            settings.sentences,
        ),
    )


def _check(settings: Settings) -> None:
    """Raise UserError for values that cannot be, before the work begins."""
    for name in ("seeds", "sentences", "batch_tokens"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name} must be at least 1; it is {getattr(settings, name)}")
    for name in ("steps", "minutes", "jobs"):
        if not getattr(settings, name) >= 0:
            raise UserError(f"--{name} must not be negative; it is {getattr(settings, name)}")
    if not (settings.steps or settings.minutes):
        raise UserError("give --steps, or --minutes that set them")
    if not settings.tokenize:
        raise UserError("--tokenize needs a tokenizer of BLEU, such as 13a")
    for name in settings.tokenize:
        if name not in get_args(BleuTokenizer):
            known = ", ".join(get_args(BleuTokenizer))
            raise UserError(f"BLEU has no tokenizer {name}; give --tokenize of {known}")
        check_tokenizer(name)


def _fitting_steps(
    settings: Settings, found: Measurements, seconds: Mapping[str, float], jobs: int
) -> int:
    """The steps that all models can take in the minutes, at most those that are asked for.

    seconds: of a step of each row
    """
    all_seconds = list(seconds.values()) * settings.seeds
    fitting = steps_in(settings.minutes, found.seconds, all_seconds, jobs)
    fitting -= fitting % 4 if fitting > 4 else 0  # for validations after each quarter
    if fitting < settings.steps:
        found.tell(
            f"--minutes {settings.minutes:g} leave time for {fitting:,} of {settings.steps:,} steps"
        )
    return min(settings.steps or fitting, fitting)


def _train_settings(
    settings: Settings, model: ModelSettings, seed: int, steps: int
) -> TrainSettings:
    return TrainSettings(
        model=model,
        backend=settings.backend,  # type: ignore[arg-type]  # which it checks
        precision=settings.precision,  # type: ignore[arg-type]
        seed=seed,
        max_steps=steps,
        batch_tokens=settings.batch_tokens,
        warmup=warmup(steps),
        rate_factor=settings.rate * rate_factor(steps),
        log_every=max(1, steps // 5),
        validate_every=steps // 4 if steps % 4 == 0 else steps,
        checkpoint_every=steps,
        checkpoint_minutes=2.0,
        keep_checkpoints=1,
    )


def _speed(row: Row) -> str:
    return f"seconds a step, {row.name}"


def _part(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def _run(found: Measurements, part: str) -> Path:
    return found.work("runs") / file_name(part)


def _grammar(work: Path, pairs: int) -> Path:
    """The corpus of the generated grammar, with a vocabulary that both languages share."""
    corpus, text = work / "corpus", work / "text"
    if not corpus.is_dir():
        if text.is_dir():  # of a process that was killed
            shutil.rmtree(text)
        write_grammar(text, pairs, max(20, pairs // 20), more_pairs=0)
        prepare(
            text / "train.en",
            text / "train.de",
            text / "valid.en",
            text / "valid.de",
            corpus,
            vocab_size=_VOCABULARY if pairs >= 5_000 else _SMALL_VOCABULARY,
            jobs=1,
        )
    return corpus


_SMALL = Settings(
    data=None,
    pairs=10_000,
    rows=tuple(ROWS),
    width=1 / 8,
    layers=3,
    steps=2_000,
    minutes=13.0,
    seeds=2,
    batch_tokens=256,
    rate=1.0,  # with more, base learns faster, but deeper models do not begin to learn
    tokenize=("13a", "paper"),
    sentences=100,
    backend=None,
    precision="float32",
    jobs=0,
)
_LONG = replace(
    _SMALL,
    pairs=40_000,
    steps=20_000,
    minutes=120.0,
    sentences=1_000,
)
_PAPER = replace(
    _LONG,
    width=1.0,
    layers=6,
    steps=100_000,
    minutes=0.0,
    seeds=3,
    batch_tokens=25_000,
    sentences=3_000,
    backend="cupy",
    precision="bf16",
)
_TOY = replace(
    _SMALL,
    pairs=300,
    rows=(BASE, "C/layers=2"),
    width=1 / 16,
    steps=4,
    batch_tokens=256,
    minutes=0.0,
    sentences=4,
    jobs=1,
)

EXPERIMENT = Experiment(
    "table3",
    {"toy": _TOY, "small": _SMALL, "long": _LONG, "paper": _PAPER},
    measure,
)
