"""Table 4: constituency parsing as translation, beside a grammar read off the same trees."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from npformer.checkpoint import load_model
from npformer.errors import UserError
from npformer.search_settings import SearchSettings
from npformer.translator import Translator
from train.average import write_average
from train.experiments.experiment import Experiment
from train.experiments.measurements import Measurements
from train.experiments.page import Page
from train.experiments.parsing_page import Results, parsing_page
from train.experiments.parsing_scores import Scores, judged
from train.experiments.training import train_run
from train.parsing.binarised import Markovisation
from train.parsing.linearised import Known
from train.parsing.pcfg import Pcfg
from train.parsing.right_branching import RightBranching
from train.parsing.source_words import SourceWords
from train.parsing.translation import TranslationParser, parsing_corpus
from train.parsing.treebank import read_sections, read_treebank
from train.parsing.trees import Node, bracketed, words
from train.runs.metrics import read_metrics
from train.settings import TrainSettings, settings_from_dict

_AT_A_TIME = 400  # sentences of a part, so that a run that is stopped loses little
_CHECKPOINTS, _LINES = 40, 100  # in a run


@dataclass(frozen=True)
class Settings:
    """A parser that translates, and the grammar that it is compared with."""

    train: Annotated[Path | None, "bracketed trees to learn from: a file, or a folder of files"]
    dev: Annotated[Path | None, "bracketed trees to be scored on"]
    wsj: Annotated[
        Path | None,
        "in place of both, the Penn Treebank's folder of 00 to 24 (parsed/mrg/wsj): sections 02 to "
        "21 to learn from, 22 to watch, 23 to be scored on",
    ]
    layers: Annotated[int, "of the encoder, and of the decoder"]
    d_model: Annotated[int, "width of the model"]
    d_ff: Annotated[int, "inner width of its feed-forward networks"]
    heads: Annotated[int, "attention heads"]
    dropout: Annotated[float, "of sub-layers and embeddings"]
    attention_dropout: Annotated[float, "of attention weights"]
    norm: Annotated[str, "pre or post"]
    steps: Annotated[int, "of training"]
    batch_tokens: Annotated[int, "most symbols of a training batch"]
    peak_rate: Annotated[float, "highest learning rate"]
    warmup: Annotated[int, "steps until it is reached"]
    average: Annotated[int, "checkpoints that are averaged"]
    longest: Annotated[int, "symbols of a tree that is learned from, at most"]
    rare: Annotated[int, "words that occur less often are read as classes"]
    beam: Annotated[
        tuple[int, ...], "hypotheses of the search, or several numbers; the first counts"
    ]
    length_penalty: Annotated[float, "α of the search"]
    extra_length: Annotated[int, "symbols more than words that the search may write"]
    search_tokens: Annotated[int, "words times beam that are parsed together"]
    vertical: Annotated[int, "of the grammar: generations of labels in its symbols"]
    horizontal: Annotated[int, "of the grammar: siblings that its symbols remember"]
    seed: Annotated[int, "of training"]
    backend: Annotated[str | None, "numpy, or cupy for a GPU"]
    precision: Annotated[str, "float32, or on a GPU bf16"]


@dataclass(frozen=True)
class Treebank:
    """Trees to learn from, to watch training on, and to be scored on."""

    name: str
    train: list[Node]
    valid: list[Node]
    scored: list[Node]

    @classmethod
    def of(cls, settings: Settings) -> Treebank:
        """The trees that the settings name. Raises UserError if they are not all there."""
        files = settings.train, settings.dev
        if settings.wsj is not None:
            if any(files):
                raise UserError("--wsj is in place of --train and --dev; leave out either")
            sections = ((2, 21), (22, 22), (23, 23))
            return cls("WSJ", *(read_sections(settings.wsj, *both) for both in sections))
        if settings.train is None or settings.dev is None:
            raise UserError(
                "give --train and --dev, files of bracketed trees, or --wsj, the folder of the "
                "Penn Treebank's sections"
            )
        dev = read_treebank(settings.dev)
        return cls(settings.train.parent.name or "trees", read_treebank(settings.train), dev, dev)

    def digest(self) -> str:
        """A SHA-256 of all trees."""
        digest = hashlib.sha256()
        for trees in (self.train, self.valid, self.scored):
            digest.update("".join(f"{bracketed(tree)}\n" for tree in trees).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def learned(self) -> set[tuple[str, ...]]:
        """The sentences to learn from."""
        return {tuple(words(tree)) for tree in self.train}

    @cached_property
    def known(self) -> Known:
        return Known.of(self.train)

    @cached_property
    def sentences(self) -> list[list[str]]:
        """The words of each sentence that is scored."""
        return [words(tree) for tree in self.scored]


Parser = Callable[[Sequence[list[str]]], tuple[Sequence[Node | None], Sequence[bool]]]
"""The trees over sentences, and whether each was a tree as the parser gave it."""


def measure(settings: Settings, found: Measurements) -> Page:
    """Score the baselines, train the parser, and score it."""
    training_settings = _training_settings(settings)
    searches = {beam: _search_settings(settings, beam) for beam in settings.beam}
    bank = Treebank.of(settings)
    found.check_same("trees", bank.digest())
    source = SourceWords.of((word for tree in bank.train for word in words(tree)), settings.rare)

    def right_branching() -> Parser:
        straight = RightBranching(bank.train, bank.known)
        return lambda some: ([*map(straight.parse, some)], [True] * len(some))

    def grammar() -> Parser:
        made = Pcfg(bank.train, Markovisation(settings.vertical, settings.horizontal))

        def parse(some: Sequence[list[str]]) -> tuple[Sequence[Node | None], Sequence[bool]]:
            trees = made.parse_all(some)
            return trees, [tree is not None for tree in trees]

        return parse

    def translation(beam: int) -> Parser:
        model = found.work("model") / "average"
        parser = TranslationParser(
            Translator.load(model, settings.backend, settings.precision),
            source,
            bank.known,
            searches[beam],
        )

        def parse(some: Sequence[list[str]]) -> tuple[Sequence[Node | None], Sequence[bool]]:
            parses = parser.parse(some, settings.search_tokens)
            return [parse.tree for parse in parses], [parse.whole for parse in parses]

        return parse

    parts = {
        "right-branching": _parts("right-branching", right_branching, bank, found),
        "grammar": _parts("grammar", grammar, bank, found),
    }
    training = found.of(
        "training", lambda: _train(settings, training_settings, bank, source, found)
    )
    for beam in settings.beam:
        name = f"translation, beam {beam}"
        parts[name] = _parts(name, partial(translation, beam), bank, found)
    return parsing_page(
        Results(
            treebank=bank.name,
            trees=len(bank.train),
            lengths=np.array([len(sentence) for sentence in bank.sentences]),
            seen=np.array([tuple(sentence) in bank.learned for sentence in bank.sentences]),
            training=training,
            scores={name: Scores.of(of) for name, of in parts.items()},
            seconds={name: sum(part["seconds"] for part in of) for name, of in parts.items()},
        ),
        asdict(settings),
    )


def _parts(
    name: str, make: Callable[[], Parser], bank: Treebank, found: Measurements
) -> list[dict[str, Any]]:
    """What a parser scores on some sentences at a time. make: makes the parser, once."""
    made = cache(make)

    def part(begin: int) -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            parser = made()
            chosen = slice(begin, begin + _AT_A_TIME)
            began = time.monotonic()
            trees, whole = parser(bank.sentences[chosen])
            seconds = time.monotonic() - began
            return {"seconds": seconds, **judged(bank.scored[chosen], trees, whole)}

        return measure

    begins = range(0, len(bank.scored), _AT_A_TIME)
    return list(found.all_of({f"{name} from {n + 1}": part(n) for n in begins}).values())


def _training_settings(settings: Settings) -> TrainSettings:
    """The settings of the run. Raises UserError for values that make no sense."""
    model = ("layers", "d_model", "d_ff", "heads", "dropout", "attention_dropout", "norm")
    own = ("backend", "precision", "seed", "batch_tokens", "warmup", "peak_rate")
    least_values = {"average": 1, "vertical": 1, "horizontal": 0, "longest": 1, "search_tokens": 1}
    for name, least in least_values.items():
        if (value := getattr(settings, name)) < least:
            raise UserError(f"{name} must be at least {least}; it is {value}")
    values = asdict(settings)
    found = settings_from_dict(
        {
            "model": {name: values[name] for name in model},
            **{name: values[name] for name in own},
            "max_steps": settings.steps,
            "schedule": "cosine",
            "clip_norm": 1.0,
            "log_every": max(1, settings.steps // _LINES),
            "validate_every": settings.steps,
            "checkpoint_every": max(1, settings.steps // _CHECKPOINTS),
            "keep_checkpoints": settings.average,
        }
    )
    config = found.transformer_config(vocab_size=100, source_vocab_size=100)  # or others
    found.learning_rate(config.d_model)
    return found


def _search_settings(settings: Settings, beam: int) -> dict[str, Any]:
    """The settings of the search. Raises UserError for values that make no sense."""
    found: dict[str, Any] = {
        "beam": beam,
        "alternatives": beam,
        "length_penalty": settings.length_penalty,
        "extra_length": settings.extra_length,
    }
    try:
        SearchSettings(**found)
    except ValueError as error:
        raise UserError(str(error)) from error
    return found


def _train(
    settings: Settings,
    training: TrainSettings,
    bank: Treebank,
    source: SourceWords,
    found: Measurements,
) -> dict[str, Any]:
    """Train the model, and average its last checkpoints in work/model/average."""
    work = found.work("model")
    corpus = parsing_corpus(bank.train, bank.valid, source, settings.longest, work / "corpus")
    run = train_run(work / "run", training, corpus, found.tell)
    last_checkpoints = min(settings.average, len(run.checkpoints.paths()))
    write_average(run.directory, last_checkpoints, work / "average")
    entries = read_metrics(run.directory)
    [*_, validation] = (entry for entry in entries if "valid_perplexity" in entry)
    [*_, last] = (entry for entry in entries if "epoch" in entry)
    return {
        "parameters": sum(p.size for p in load_model(run.directory).parameters().values()),
        "perplexity": validation["valid_perplexity"],
        "learned": len(corpus.train),
        "source vocabulary": corpus.tokenizers.source.vocab_size,
        "symbols": corpus.tokenizers.target.vocab_size,
        "epochs": last["epoch"],
        "seconds": last["seconds"],
    }


_SMALL = Settings(
    train=None,
    dev=None,
    wsj=None,
    layers=2,
    d_model=128,
    d_ff=512,
    heads=4,
    dropout=0.0,  # in four epochs nothing is learned by heart
    attention_dropout=0.0,
    norm="pre",
    steps=8000,
    batch_tokens=600,
    peak_rate=2e-3,
    warmup=200,
    average=5,
    longest=150,
    rare=3,
    beam=(4, 21),
    length_penalty=0.3,
    extra_length=300,
    search_tokens=8192,
    vertical=2,
    horizontal=1,
    seed=1,
    backend=None,
    precision="float32",
)

EXPERIMENT = Experiment(
    "table4",
    {
        "toy": replace(
            _SMALL,
            layers=1,
            d_model=32,
            d_ff=64,
            heads=2,
            steps=120,
            batch_tokens=256,
            peak_rate=1e-2,
            warmup=20,
            beam=(4, 2),
            extra_length=30,
            rare=2,
        ),
        "small": _SMALL,
        "long": replace(
            _SMALL,
            layers=3,
            d_model=192,
            d_ff=768,
            heads=6,
            dropout=0.1,
            steps=24_000,
            batch_tokens=1000,
            peak_rate=1.5e-3,
            warmup=500,
            longest=250,
            horizontal=2,
        ),
        # The paper's sizes; where it says nothing, d_ff, heads, dropout and warm-up are those of
        # tensor2tensor. For a GPU.
        "paper": replace(
            _SMALL,
            layers=4,
            d_model=1024,
            d_ff=2048,
            heads=8,
            dropout=0.2,
            attention_dropout=0.2,
            norm="post",
            steps=100_000,
            batch_tokens=4096,
            peak_rate=2.5e-4,
            warmup=16_000,
            longest=1000,
            beam=(21,),
            horizontal=2,
        ),
    },
    measure,
)
