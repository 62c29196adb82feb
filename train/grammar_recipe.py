"""The generated corpus that shows what the model can do, and the settings that learn it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.grammar import Pair, Splits, generate
from train.settings import ModelSettings, TrainSettings

GRAMMAR_VOCABULARY = 1_600  # per language: nearly every word is one subword


def write_grammar(
    text: Path, pairs: int = 40_000, held_out: int = 1_000, more_pairs: int = 60_000
) -> Splits:
    """Write generated training and validation text to the folder `text`; returns all parts.

    The held-out parts do not depend on `more_pairs`, the training pairs that are drawn last.
    """
    generated = generate(pairs, held_out, seed=0, more_pairs=more_pairs)
    write_parts(text, generated.train, generated.valid)
    return generated


def write_parts(text: Path, train: Sequence[Pair], valid: Sequence[Pair]) -> None:
    """Write pairs to the folder `text`, from which `grammar_corpus` makes a corpus."""
    text.mkdir()
    for name, part in (("train", train), ("valid", valid)):
        for language, lines in zip(("en", "de"), zip(*part, strict=True), strict=True):
            content = "".join(f"{line}\n" for line in lines)
            (text / f"{name}.{language}").write_text(content, encoding="utf-8")


def grammar_corpus(text: Path, out: Path, vocab_size: int = GRAMMAR_VOCABULARY) -> Corpus:
    """The corpus of the text that `write_grammar` wrote to `text`."""
    return prepare(
        f"{text}/train.en",
        f"{text}/train.de",
        f"{text}/valid.en",
        f"{text}/valid.de",
        out,
        vocab_size=vocab_size,
        shared=False,
    )


def grammar_settings() -> TrainSettings:
    """Settings that learn the generated grammar in a minute and a half on two cores."""
    return TrainSettings(
        model=ModelSettings(
            preset="small",
            layers=2,
            d_model=96,
            d_ff=192,
            heads=6,
            dropout=0.0,
            smoothing=0.05,
            norm="pre",
        ),
        max_steps=3600,
        batch_tokens=512,
        schedule="cosine",
        warmup=200,
        peak_rate=3.5e-3,
        clip_norm=1.0,
        log_every=100,
        validate_every=500,
        checkpoint_every=500,
        keep_checkpoints=1,
        source_language="en",
        target_language="de",
    )
