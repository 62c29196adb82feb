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

from examples.text import four_files, mistakes_in_a_line
from npformer import Parts, Translator
from npformer.parts import PAPER_PARTS
from train.adam import adam
from train.corpora.preparation import prepare
from train.grammar_recipe import grammar_settings
from train.optimizer import MakeOptimizer
from train.runs.log_entry import LogEntry
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer
from train.validation import Validation

SETTINGS = replace(grammar_settings(), max_steps=600, warmup=100, log_every=200)
VOCABULARY = 2_000


@mistakes_in_a_line()
def compare(
    name: str,
    parts: Parts = PAPER_PARTS,
    optimizer: MakeOptimizer = adam,
    files: Sequence[str | Path] | None = None,
    settings: TrainSettings = SETTINGS,
) -> None:
    """Train the paper's model, then the variation `name`, and print the scores of both.

    files: four, or none for the generated grammar; by default the command line's arguments.
    """
    files = sys.argv[1:] if files is None else files
    with tempfile.TemporaryDirectory() as folder:
        a, b, c, d = four_files(files, Path(folder))
        corpus = prepare(a, b, c, d, Path(folder, "corpus"), vocab_size=VOCABULARY)
        papers, yours = ("the paper's", PAPER_PARTS, adam), (name, parts, optimizer)
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


def report(entry: LogEntry | Validation) -> None:
    if isinstance(entry, LogEntry):
        print(f"  step {entry.step}: loss {entry.loss:.2f} after {entry.seconds:.0f} s")
