"""Multi30k, the published recipe in full on a GPU: its time and its BLEU.

    python -m benchmarks.gpu_multi30k --data DIRECTORY [--seed 1]

Trains train/configs/multi30k-tiny.yaml in bfloat16 from text to translations, averages the last 10
checkpoints, and translates test_2016_flickr with a beam of 5. DIRECTORY holds Multi30k's files
(*.lc.norm.tok.en, *.de). The clock runs from the first step to the end of the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.report import gpu, keep, positive, publish, result_file
from npformer import Translator
from train.average import write_average
from train.corpus import prepare
from train.display import describe
from train.evaluation import bleu
from train.run import Run, settings_from_dict
from train.text import read_lines
from train.trainer import Trainer

RECIPE = Path(__file__).parents[1] / "train" / "configs" / "multi30k-tiny.yaml"
VOCABULARY, AVERAGED = 10_000, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=positive, help="fewer than the recipe's, to try it out")
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    if options.backend == "cupy":
        gpu()

    def text(part: str, language: str) -> Path:
        return options.data / f"{part}.lc.norm.tok.{language}"

    settings = settings_from_dict(yaml.safe_load(RECIPE.read_text()))
    settings = dataclasses.replace(
        settings, seed=options.seed, backend=options.backend, precision=options.precision
    )
    for part, language in itertools.product(("train", "val", "test_2016_flickr"), ("en", "de")):
        if not text(part, language).is_file():
            parser.error(f"--data has no {text(part, language).name}: {options.data}")
    if options.steps:
        settings = dataclasses.replace(settings, max_steps=options.steps, checkpoint_every=1)
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        parts = [text(part, language) for part in ("train", "val") for language in ("en", "de")]
        corpus = prepare(*parts, out / "corpus", vocab_size=VOCABULARY)
        trainer = Trainer.start(settings, corpus, Run(out / "run"))
        started = time.perf_counter()
        trainer.train(lambda entry: print(describe(entry), flush=True))
        seconds = time.perf_counter() - started
        result = {
            "benchmark": "gpu_multi30k",
            "config": RECIPE.stem,
            "backend": options.backend,
            "precision": options.precision,
            "seed": options.seed,
            "steps": settings.max_steps,
            "training_s": round(seconds, 1),
        }
        keep(result, options.out)
        write_average(out / "run", AVERAGED, out / "average")
        started = time.perf_counter()
        translator = Translator.load(out / "average", options.backend, options.precision)
        translations = translator.translate(
            list(read_lines(text("test_2016_flickr", "en"))),
            beam=5,
            length_penalty=1.0,
            penalty="power",
        )
        translating = time.perf_counter() - started
    references = list(read_lines(text("test_2016_flickr", "de")))
    score = bleu([t.text for t in translations], references, tokenize="none")
    print(score)
    publish(
        {
            **result,
            "translating_s": round(translating, 1),
            "bleu": round(score.value, 2),
            "signature": score.signature,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
