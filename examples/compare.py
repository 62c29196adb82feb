"""Shared by the examples: trains the paper's model and a variation of it, and compares them.

The text is the generated grammar, or your own in four files: the source and the target to train
on, and the source and the target to validate with.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from npformer import Parts, Translator, UserError
from npformer.parts import THE_PAPERS
from train.adam import adam
from train.demo import grammar_settings
from train.grammar import generate
from train.log_entry import LogEntry
from train.optimizer import MakeOptimizer
from train.preparation import prepare
from train.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer
from train.validation import Validation

SETTINGS = replace(grammar_settings(), max_steps=600, warmup=100, log_every=200)
PAIRS = {"pairs": 10_000, "held_out": 400}
VOCABULARY = 2_000


def compare(
    name: str,
    parts: Parts = THE_PAPERS,
    optimizer: MakeOptimizer = adam,
    files: Sequence[str | Path] | None = None,
    settings: TrainSettings = SETTINGS,
) -> None:
    """Train the paper's model, then the variation `name`, and print the scores of both.

    files: four, or none for the generated grammar; by default the command line's arguments.
    """
    files = sys.argv[1:] if files is None else files
    if len(files) not in (0, 4):
        sys.exit("give TRAIN_SOURCE TRAIN_TARGET VALID_SOURCE VALID_TARGET, or nothing")
    with tempfile.TemporaryDirectory() as folder:
        train_a, train_b, valid_a, valid_b = files or write_grammar(Path(folder))
        out = Path(folder, "corpus")
        try:
            corpus = prepare(train_a, train_b, valid_a, valid_b, out, vocab_size=VOCABULARY)
        except UserError as error:
            sys.exit(f"error: {error}")
        papers, yours = ("the paper's", THE_PAPERS, adam), (name, parts, optimizer)
        for label, its_parts, its_optimizer in (papers, yours):
            run = Run(Path(folder, label))
            trainer = Trainer.start(settings, corpus, run, its_parts, its_optimizer)
            size = sum(p.size for p in trainer.model.parameters().values())
            print(f"\n{label}: {size:,} parameters")
            trainer.train(report)
            scores = trainer.validate(with_bleu=True)
            print(f"  perplexity {scores.valid_perplexity:.2f}, BLEU {scores.bleu:.1f}")
            sources = corpus.valid_text()[0][:2]
            translations = Translator(trainer.model, corpus.tokenizers).translate(sources)
            for source, translation in zip(sources, translations, strict=True):
                print(f"  {source}\n  → {translation.text}")


def write_grammar(folder: Path) -> list[Path]:
    """The generated grammar as four files."""
    generated = generate(**PAIRS)
    paths = []
    for part, pairs in (("train", generated.train), ("valid", generated.valid)):
        for side in ("source", "target"):
            paths.append(folder / f"{part}.{side}")
            paths[-1].write_text("".join(f"{getattr(pair, side)}\n" for pair in pairs), "utf-8")
    return paths


def report(entry: LogEntry | Validation) -> None:
    if isinstance(entry, LogEntry):
        print(f"  step {entry.step}: loss {entry.loss:.2f} after {entry.seconds:.0f} s")
