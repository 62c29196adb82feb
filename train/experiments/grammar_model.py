"""A model of the generated grammar, for experiments that look into a trained model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npformer.batch import Batch, batches_of_similar_length
from npformer.checkpoint import load_model
from npformer.errors import UserError
from npformer.parts import PAPER_PARTS, Parts
from npformer.tokenizer import TokenizerPair
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.corpora.corpus import Corpus
from train.evaluation import likelihood
from train.experiments.measurements import Measurements
from train.experiments.page import Table
from train.experiments.training import train_run
from train.grammar import Pair, Splits, generate
from train.grammar_recipe import (
    GRAMMAR_VOCABULARY,
    grammar_corpus,
    grammar_settings,
    write_parts,
)

_BATCH_TOKENS = 4096
_SMALLEST_VOCABULARY = 500  # of a few hundred sentences
_FEWEST_PAIRS = 400  # of fewer words than that, nothing new can be said for the test


@dataclass(frozen=True)
class GrammarModel:
    """A trained model, the held-out sentences with their trees, and its BLEU on the test part."""

    run: Path
    translator: Translator
    splits: Splits
    score: dict[str, Any]

    @property
    def model(self) -> Transformer:
        """The model itself."""
        assert isinstance(self.translator.model, Transformer)
        return self.translator.model


def grammar_model(
    found: Measurements,
    pairs: int,
    steps: int,
    seed: int,
    *,
    name: str = "model",
    together: int = 1,
    parts: Parts = PAPER_PARTS,
) -> GrammarModel:
    """A model that learns the generated grammar from `pairs` in `steps`, trained once in `found`.

    One pair in forty more is held out, half of them for the test. name: of the part. together: a
    line has up to so many sentences, instead of one. parts: what the model is built from.
    """
    if pairs < _FEWEST_PAIRS:
        raise UserError(f"--pairs must be at least {_FEWEST_PAIRS}; it is {pairs}")
    work = found.work(name)
    splits = generate(pairs, held_out=_held_out(pairs), seed=0)

    def train() -> dict[str, Any]:
        settings = replace(
            grammar_settings(), max_steps=steps, warmup=min(200, 1 + steps // 10), seed=seed
        )
        corpus = _corpus(work, pairs, together)
        run = train_run(work / "run", settings, corpus, found.tell, parts)
        model = load_model(run.directory, parts)
        batches = batches_of(corpus.tokenizers, splits.test)
        return {
            "parameters": sum(p.size for p in model.parameters().values()),
            "perplexity": likelihood(model, batches).perplexity,
        }

    score = found.of(name, train)
    translator = Translator.load(work / "run", parts=parts)
    return GrammarModel(work / "run", translator, splits, score)


def size_of_test(pairs: int) -> int:
    """How many sentences the test part has."""
    return _held_out(pairs) // 2


def scaled_down(pairs: int, steps: int) -> Table:
    """What is smaller than in the paper: the model, its text and its training."""
    settings = grammar_settings()
    model = settings.model
    return Table(
        ["", "the paper", "here"],
        [
            [
                "model",
                "base, N = 6, d = 512, h = 8",
                f"N = {model.layers}, d = {model.d_model}, h = {model.heads}, {model.norm}-norm",
            ],
            [
                "text",
                "WMT 2014, 4.5 million pairs of sentences",
                f"the generated grammar, English to German, {pairs + _more(pairs):,} pairs",
            ],
            [
                "training",
                "100,000 steps of 25,000 tokens on either side",
                f"{steps:,} steps of at most {settings.batch_tokens:,} tokens, one seed",
            ],
        ],
    )


def _held_out(pairs: int) -> int:
    return pairs // 40


def _more(pairs: int) -> int:
    """Training pairs that are drawn besides, after the held-out ones."""
    return pairs * 3 // 2


def batches_of(tokenizers: TokenizerPair, pairs: Sequence[Pair]) -> list[Batch]:
    """Batches of pairs of text, in order of their length."""
    source, target = tokenizers.source, tokenizers.target
    source_ids = source.encode_lines([pair.source for pair in pairs])
    target_ids = target.encode_lines([pair.target for pair in pairs])
    return [
        Batch.of(
            [source_ids[i] for i in chosen],
            [target_ids[i] for i in chosen],
            begin_id=target.begin_id,
            end_id=target.end_id,
        )
        for chosen in batches_of_similar_length(source_ids, _BATCH_TOKENS)
    ]


def documents(pairs: Sequence[Pair], sentences: int) -> list[Pair]:
    """Pairs of `sentences` each, one after the other; a rest that is too short is left out."""
    return [
        Pair(
            *(" ".join(of_language) for of_language in zip(*pairs[i : i + sentences], strict=True))
        )
        for i in range(0, len(pairs) - sentences + 1, sentences)
    ]


def _corpus(work: Path, pairs: int, together: int) -> Corpus:
    if (work / "corpus").is_dir():
        return Corpus.open(work / "corpus")
    if (work / "text").is_dir():  # of a process that was killed
        shutil.rmtree(work / "text")
    splits = generate(pairs, held_out=_held_out(pairs), seed=0, more_pairs=_more(pairs))
    # As many sentences in documents of each size.
    train, valid = (
        [
            document
            for size in range(1, together + 1)
            for document in documents(part[size - 1 :: together], size)
        ]
        for part in (splits.train, splits.valid)
    )
    write_parts(work / "text", train, valid)
    vocabulary = GRAMMAR_VOCABULARY if pairs >= 10_000 else _SMALLEST_VOCABULARY
    return grammar_corpus(work / "text", work / "corpus", vocabulary)
