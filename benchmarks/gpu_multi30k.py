"""Trains the published Multi30k recipe in full on a GPU: time and BLEU.

    python -m benchmarks.gpu_multi30k --data DIRECTORY [--seed 1]

Trains train/configs/multi30k-tiny.yaml in bfloat16 from text to translations, averages the last 10
checkpoints, and translates test_2016_flickr with a beam of 5. DIRECTORY holds Multi30k's files
(*.lc.norm.tok.en, *.de). The clock runs from the first step to the end of the last.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_recipe import CONFIGS, Recipe, add_options, needs_gpu, translated
from benchmarks.report import publish
from train.corpora.preparation import prepare
from train.corpora.text import read_both
from train.evaluation import bleu

VOCABULARY, AVERAGED = 10_000, 10
SEARCH = {"beam": 5, "length_penalty": 1.0, "penalty": "power"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args(arguments)
    needs_gpu(options)

    def text(part: str, language: str) -> Path:
        return options.data / f"{part}.lc.norm.tok.{language}"

    for part, language in itertools.product(("train", "val", "test_2016_flickr"), ("en", "de")):
        if not text(part, language).is_file():
            parser.error(f"--data has no {text(part, language).name}: {options.data}")
    recipe = Recipe("gpu_multi30k", CONFIGS / "multi30k-tiny.yaml", options, AVERAGED)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        parts = [text(part, language) for part in ("train", "val") for language in ("en", "de")]
        corpus = prepare(*parts, out / "corpus", vocab_size=VOCABULARY)
        result = recipe.train(corpus, out / "run")
        translator = recipe.translator(out / "run", out / "average")
    sources, references = read_both(*(text("test_2016_flickr", each) for each in ("en", "de")))
    translations, seconds = translated(translator, sources, **SEARCH)
    score = bleu(translations, references, tokenize="none")
    print(score)
    publish(
        {
            **result,
            "translating_s": seconds,
            "bleu": round(score.value, 2),
            "signature": score.signature,
        },
        recipe.out,
    )


if __name__ == "__main__":
    main()
