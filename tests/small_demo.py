"""A demonstration that takes a second: the same program, on little text and with a small model.

It is run as `python -m tests.small_demo --out DIRECTORY`.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace

from autograd import cpu
from npformer import Translator
from train.__main__ import main
from train.cli import demo
from train.settings import ModelSettings


class ShortTranslator(Translator):
    """Stops soon: a model that has learned nothing rarely stops by itself, and most of the time
    would go into a picture of fifty more tokens."""

    def translate(self, lines, **settings):
        return super().translate(lines, extra_length=1, **settings)


def make_small() -> None:
    """Let this process's demonstrations be small, and say the same whenever they are run."""
    settings = replace(
        demo.grammar_settings(),
        model=ModelSettings(preset="tiny", layers=1, d_model=8, d_ff=8, heads=2),
        max_steps=4,
        warmup=2,
        log_every=2,
        validate_every=2,
        checkpoint_every=2,
    )
    demo.GRAMMAR_VOCABULARY = 500
    demo.grammar_corpus = functools.partial(demo.grammar_corpus, vocab_size=500)
    demo.write_grammar = functools.partial(demo.write_grammar, pairs=400, held_out=40, more_pairs=0)
    demo.grammar_settings = lambda: settings
    demo.Translator = ShortTranslator
    demo.compile_ahead = lambda config: None
    demo.duration = lambda seconds: "a moment"
    cpu.disable()


if __name__ == "__main__":
    make_small()
    sys.exit(main(["demo", *sys.argv[1:]]))
