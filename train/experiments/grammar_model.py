"""A model of the generated grammar, for experiments that look into a trained model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npformer.checkpoint import load_model
from npformer.translator import Translator
from train.corpora.corpus import Corpus
from train.evaluation import bleu
from train.experiments.measurements import Measurements
from train.experiments.training import train_run
from train.grammar import Splits, generate
from train.grammar_recipe import (
    GRAMMAR_VOCABULARY,
    grammar_corpus,
    grammar_settings,
    write_grammar,
)

_SMALLEST_VOCABULARY = 500  # of a few hundred sentences


@dataclass(frozen=True)
class GrammarModel:
    """A trained model, the held-out sentences with their trees, and its BLEU on the test part."""

    translator: Translator
    splits: Splits
    score: dict[str, Any]


def grammar_model(found: Measurements, pairs: int, steps: int, seed: int) -> GrammarModel:
    """The model that learns the generated grammar from `pairs` in `steps`, trained once in `found`.

    As many pairs again as a fortieth are held out, half of them for the test.
    """
    work = found.work("model")
    splits = generate(pairs, held_out=pairs // 40, seed=0)

    def train() -> dict[str, Any]:
        settings = replace(
            grammar_settings(), max_steps=steps, warmup=min(200, 1 + steps // 10), seed=seed
        )
        run = train_run(work / "run", settings, _corpus(work, pairs), found.tell)
        translator = Translator.load(run.directory)
        translations = translator.translate([pair.source for pair in splits.test])
        score = bleu([t.text for t in translations], [pair.target for pair in splits.test])
        return {
            "parameters": sum(p.size for p in load_model(run.directory).parameters().values()),
            "bleu": score.value,
            "signature": score.signature,
        }

    score = found.of("model", train)
    return GrammarModel(Translator.load(work / "run"), splits, score)


def _corpus(work: Path, pairs: int) -> Corpus:
    if (work / "corpus").is_dir():
        return Corpus.open(work / "corpus")
    if (work / "text").is_dir():  # of a process that was killed
        shutil.rmtree(work / "text")
    write_grammar(work / "text", pairs, pairs // 40, more_pairs=pairs * 3 // 2)
    vocabulary = GRAMMAR_VOCABULARY if pairs >= 10_000 else _SMALLEST_VOCABULARY
    return grammar_corpus(work / "text", work / "corpus", vocabulary)
