"""The demonstration: prepare, train, translate and plot, in a few minutes on two cores."""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from npformer.errors import UserError
from npformer.translation import Translation
from npformer.translator import Translator
from train.average import write_average
from train.cli.compile_ahead import compile_ahead
from train.cli.display import TrainingDisplay, counting, heat_map, shades
from train.cli.plot import draw_attention
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.corpora.text import read_lines
from train.datasets.catalogue import MULTI30K
from train.datasets.fetching import fetch, fetched_texts
from train.evaluation import bleu
from train.grammar_recipe import (
    GRAMMAR_VOCABULARY,
    grammar_corpus,
    grammar_settings,
    write_grammar,
)
from train.own_files import OwnFiles, replaced
from train.runs.run import Run
from train.settings import ModelSettings, TrainSettings
from train.signals import handled_by, stop_at_once
from train.trainer import Trainer
from train.wording import duration

_MARK = "npformer-demo"  # lists the files in a directory that may be replaced
_MODEL, _PICTURE = "model", "attention.png"
_MADE = (
    _MODEL,
    _PICTURE,
    "corpus",
    "run",
    *(f"text/{split}.{language}" for split in ("train", "valid") for language in ("en", "de")),
)  # but no fetched text

_MULTI30K_VOCABULARY = 8_000


@dataclass(frozen=True)
class _Example:
    """A corpus for the demonstration, and its test set."""

    about: str
    corpus: Corpus
    sources: list[str]
    references: list[str]
    tokenize: str


def run_demo(data: str, out: Path, minutes: float, seed: int) -> None:
    """Train on the generated grammar or on Multi30k for at most `minutes`; results go to `out`."""
    if not 0 < minutes < math.inf:
        raise UserError(f"--minutes must be a number above 0; it is {minutes}")
    settings = replace(
        grammar_settings() if data == "grammar" else _multi30k_settings(),
        max_minutes=minutes,
        seed=seed,
    )
    with handled_by(stop_at_once), replaced(out, _MARK, _MADE) as own:
        _demonstrate(data, own, settings)


def _demonstrate(data: str, own: OwnFiles, settings: TrainSettings) -> None:
    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    compile_ahead(
        settings.transformer_config(GRAMMAR_VOCABULARY, source_vocab_size=GRAMMAR_VOCABULARY)
        if data == "grammar"
        else settings.transformer_config(_MULTI30K_VOCABULARY)
    )
    example = _grammar(own) if data == "grammar" else _multi30k(own, console)
    console.print(f"{example.about}\n{len(example.corpus.train):,} pairs to learn from, e.g.")
    for source, reference in list(zip(example.sources, example.references, strict=True))[:3]:
        console.print(f"  {source}\n  → {reference}", style="dim", markup=False)

    run = Run(own.work / "run")
    trainer = Trainer.start(settings, example.corpus, run)
    parameters = sum(p.size for p in trainer.model.parameters().values())
    console.print(f"\nA Transformer with {parameters:,} parameters, trained on this machine:")
    with TrainingDisplay(settings.max_steps, settings.max_minutes) as display:
        position = trainer.train(display)
    if data == "grammar" and position.step < settings.max_steps:
        console.print(
            f"{settings.max_minutes:g} minutes were enough for {position.step} of "
            f"{settings.max_steps} steps on this machine; --minutes gives it more time"
        )

    write_average(run.directory, len(run.checkpoints.paths()), own.work / _MODEL)
    translator = Translator.load(own.work / _MODEL)
    with counting("translated", len(example.sources)) as advance:
        translations = translator.translate(example.sources, progress=advance)
    score = bleu([t.text for t in translations], example.references, example.tokenize)
    _show(console, example, translations)
    chosen = _good_to_look_at(translations)
    _show_attention(console, translator, example.sources[chosen], own)
    console.print(
        f"\nTranslate text of your own: npformer translate --model {own.directory / _MODEL} < text",
        markup=False,
    )
    console.print(
        f"\n{len(example.sources):,} held-out sentences, none of them seen in training, "
        f"after {duration(time.monotonic() - started)} in all:\n{score}",
        markup=False,
    )


def _grammar(own: OwnFiles) -> _Example:
    test = write_grammar(own.work / "text").test
    own.put_in_place()  # the manifest of the corpus records the paths of its text
    return _Example(
        about="A generated corpus: a synchronous grammar of English and German.",
        corpus=grammar_corpus(own.directory / "text", own.work / "corpus"),
        sources=[pair.source for pair in test],
        references=[pair.target for pair in test],
        tokenize="13a",
    )


def _multi30k(own: OwnFiles, console: Console) -> _Example:
    text = own.directory / MULTI30K.name
    fetch(MULTI30K, text, console.print)
    return _Example(
        about=f"{MULTI30K.about}; {MULTI30K.terms}.",
        corpus=prepare(
            f"{text}/train.en",
            f"{text}/train.de",
            f"{text}/valid.en",
            f"{text}/valid.de",
            own.work / "corpus",
            vocab_size=_MULTI30K_VOCABULARY,
            origins=fetched_texts([text / "train.en", text / "train.de"]),
        ),
        sources=list(read_lines(text / "test.en")),
        references=list(read_lines(text / "test.de")),
        tokenize="none",
    )


def _multi30k_settings() -> TrainSettings:
    """Settings for Multi30k, independent of the time limit."""
    return TrainSettings(
        model=ModelSettings(preset="small", d_ff=512),
        batch_tokens=2048,
        schedule="inverse_sqrt",
        warmup=300,
        peak_rate=7e-4,
        validate_every=500,
        checkpoint_every=250,
        keep_checkpoints=4,
    )


def _show(console: Console, example: _Example, translations: list[Translation]) -> None:
    console.print()
    # Every tenth sentence is one of the most deeply nested; these are of all kinds.
    for i in range(len(translations) // 7, len(translations), len(translations) // 5):
        console.print(example.sources[i], style="bold", markup=False)
        console.print(f"  translation {translations[i].text}", markup=False)
        console.print(f"  reference   {example.references[i]}", style="dim", markup=False)


def _show_attention(console: Console, translator: Translator, source: str, own: OwnFiles) -> None:
    """Show which source tokens each target token attends to, as text and as a file."""
    [translation] = translator.translate([source], attention=True)
    console.print(f"\nWhat it attends to in “{source}”", markup=False)
    console.print(heat_map(translation, shades(console.encoding)), markup=False)
    if importlib.util.find_spec("matplotlib"):
        draw_attention(translation, own.work / _PICTURE)
        console.print(f"All heads: {own.directory / _PICTURE}", markup=False)
    else:
        hint = "(all heads as a picture: pip install 'npformer[plot]', and run it again)"
        console.print(hint, markup=False)


def _good_to_look_at(translations: list[Translation]) -> int:
    """The first sentence whose length fits the plot."""
    lengths = [len(t.text.split()) for t in translations]
    return next((i for i, n in enumerate(lengths) if 9 <= n <= 13), 0)
