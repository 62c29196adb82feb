"""Trains the paper's base model with the paper's schedule on a GPU: learning curve and BLEU.

    python -m benchmarks.gpu_base --data DIRECTORY --corpus CORPUS --minutes 5 --pre-norm

Trains train/configs/base.yaml in bfloat16 on the train parts of Tatoeba, Multi30k (raw) and news
together, in 16,000 subwords that both languages share, averages the last 5 checkpoints, and
translates three test sets with a beam of 4 and a length penalty of 0.6. DIRECTORY holds tatoeba/,
multi30k/raw/ and news/. Some translations go to a text file beside the result.

With `--pre-norm` the model with the norms before the sublayers is trained next, in as many steps,
and both share the minutes. `pre_norm` is its result, and `ahead` how many BLEU the paper's model is
better.

The prepared text goes to CORPUS, and is reused if it is already there. With `--only-prepare` it
can be prepared on a cheaper machine, and --data is not needed afterwards.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_recipe import CONFIGS, Recipe, add_options, needs_gpu, translated
from benchmarks.report import keep, positive, publish
from train.corpora.corpus import Corpus
from train.corpora.manifest import read_manifest
from train.corpora.preparation import prepare
from train.corpora.text import read_both
from train.evaluation import bleu

VOCABULARY, AVERAGED = 16_000, 5
SEARCH = {"beam": 4, "length_penalty": 0.6, "batch_tokens": 32_768}
TRAIN = ("tatoeba/train", "multi30k/raw/train", "news/train")
VALID = "tatoeba/dev"
TESTS = {
    "tatoeba-dev": "tatoeba/dev",
    "test_2016_flickr": "multi30k/raw/test_2016_flickr",
    "newstest2013": "news/newstest2013",
}
LANGUAGES = ("en", "de")
_SHOWN = 20  # translations of each test set, evenly spread


class TestSet(NamedTuple):
    """A test set: English, and its German."""

    name: str
    sources: list[str]
    references: list[str]


def prepare_all(data: Path, out: Path, vocabulary: int) -> None:
    """Prepare the test sets, and then the corpus, from the text in `data`."""
    for name, path in TESTS.items():
        for language in LANGUAGES:
            copy = _test_file(out, name, language)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((data / f"{path}.{language}").read_bytes())
    train = [[data / f"{path}.{language}" for path in TRAIN] for language in LANGUAGES]
    valid = [data / f"{VALID}.{language}" for language in LANGUAGES]
    prepare(*train, *valid, out / "corpus", vocab_size=vocabulary)


def vocabulary_of(corpus: Path) -> int | None:
    """The vocabulary size of the prepared corpus; None if there is none."""
    if not (corpus / "corpus" / "manifest.json").is_file():
        return None
    vocabulary: int = read_manifest(corpus / "corpus")["settings"]["vocab_size"]
    return vocabulary


def tests_of(corpus: Path) -> list[TestSet]:
    """The test sets beside the corpus."""
    return [
        TestSet(name, *read_both(*(_test_file(corpus, name, each) for each in LANGUAGES)))
        for name in TESTS
    ]


def _test_file(corpus: Path, name: str, language: str) -> Path:
    return corpus / "tests" / f"{name}.{language}"


def missing(data: Path) -> list[str]:
    """The files that `data` lacks."""
    names = (f"{path}.{each}" for path in (*TRAIN, *TESTS.values()) for each in LANGUAGES)
    return [name for name in names if not (data / name).is_file()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with the text")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="a folder for the prepared corpus"
    )
    parser.add_argument(
        "--only-prepare", action="store_true", help="prepare the corpus, and do not train"
    )
    parser.add_argument(
        "--config", type=Path, default=CONFIGS / "base.yaml", help="a YAML file of settings"
    )
    parser.add_argument("--vocabulary", type=positive, default=VOCABULARY)
    parser.add_argument(
        "--pre-norm", action="store_true", help="train with norm: pre, too, in as many steps"
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    if not options.only_prepare:
        needs_gpu(options)
    prepared = vocabulary_of(options.corpus)
    if prepared is None:
        if options.data is None:
            parser.error(f"{options.corpus} holds no prepared corpus; give --data")
        if absent := missing(options.data):
            parser.error(f"--data has no {absent[0]}: {options.data}")
        prepare_all(options.data, options.corpus, options.vocabulary)
    elif prepared != options.vocabulary:
        parser.error(
            f"the corpus in {options.corpus} has {prepared} subwords, not {options.vocabulary}; "
            "give another --corpus or --vocabulary"
        )
    if not options.only_prepare:
        if options.pre_norm:
            options.minutes /= 2
        recipe = Recipe("gpu_base", options.config, options, AVERAGED)
        result = run(recipe, options.corpus)
        if options.pre_norm:
            result = beside_pre_norm(recipe, result, options.corpus)
        publish(result, options.out)


def beside_pre_norm(recipe: Recipe, result: dict[str, Any], prepared: Path) -> dict[str, Any]:
    """Train with the norms before the sublayers in as many steps; returns both results as one."""
    before, model = recipe.settings, dataclasses.replace(recipe.settings.model, norm="pre")
    recipe.settings = dataclasses.replace(
        before, model=model, max_steps=result["steps"], max_minutes=0
    )

    def both(other: dict[str, Any]) -> dict[str, Any]:
        ahead = {
            name: round(result["scores"][name]["bleu"] - score["bleu"], 2)
            for name, score in other.get("scores", {}).items()
        }
        return {**result, "pre_norm": other, "ahead": ahead}

    recipe.save = lambda other: keep(both(other), recipe.out)
    return both(run(recipe, prepared))


def run(recipe: Recipe, prepared: Path) -> dict[str, Any]:
    """Train, average, translate and score; save each result as soon as it is known."""
    corpus = Corpus.open(prepared / "corpus")
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        result = recipe.train(corpus, out / "run")
        translator = recipe.translator(out / "run", out / "average")
    scores: dict[str, Any] = {}
    result["scores"] = scores
    shown: list[str] = []
    for test in tests_of(prepared):
        translations, seconds = translated(translator, test.sources, **SEARCH)
        score = bleu(translations, test.references)
        print(test.name, score, flush=True)
        scores[test.name] = {
            "bleu": round(score.value, 2),
            "signature": score.signature,
            "sentences": len(translations),
            "translating_s": seconds,
        }
        recipe.save(result)
        shown += examples(test, translations)
        if recipe.out:
            norm = recipe.settings.model.norm
            suffix = ".pre-norm.txt" if norm == "pre" else ".txt"
            recipe.out.with_suffix(suffix).write_text("\n".join(shown) + "\n", encoding="utf-8")
    return result


def examples(test: TestSet, translations: Sequence[str]) -> list[str]:
    """Evenly spaced sentences of a test set: source, reference and translation, a line each."""
    lines = [f"# {test.name}", ""]
    for i in range(0, len(translations), max(1, len(translations) // _SHOWN)):
        lines += [
            f"source       {test.sources[i]}",
            f"translation  {translations[i]}",
            f"reference    {test.references[i]}",
            "",
        ]
    return lines


if __name__ == "__main__":
    main()
