"""Runs a whole recipe on a GPU: training, averaging, translation and scoring.

Results are written as soon as they are known, so that an interrupted run leaves its curve.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import gpu, keep, positive, result_file
from npformer import Translator
from train.average import write_average
from train.cli.display import describe
from train.corpora.corpus import Corpus
from train.runs.log_entry import LogEntry, logged
from train.runs.run import Run
from train.settings import TrainSettings, settings_from_dict
from train.trainer import Trainer
from train.validation import Validation

CONFIGS = Path(__file__).parents[1] / "train" / "configs"


class Recipe:
    """Settings of training, the number of checkpoints to average, and settings of the search.

    `about` is the beginning of a result, and `save` saves what there is of it, by default in the
    file `out`, if any.
    """

    def __init__(
        self, benchmark: str, config: Path, options: argparse.Namespace, averaged: int
    ) -> None:
        self.settings = _settings(config, options, averaged)
        self.averaged = averaged
        self.out: Path | None = options.out
        self.save: Callable[[dict[str, Any]], Any] = lambda result: keep(result, self.out)
        self.about = {
            "benchmark": benchmark,
            "config": config.stem,
            "backend": options.backend,
            "precision": options.precision,
            "seed": options.seed,
        }

    def train(self, corpus: Corpus, run: Path) -> dict[str, Any]:
        """Train in the directory `run`; returns the result so far, with the curve.

        Log entries are printed, and the result is saved after each. The time is from the first
        step to the end of the last, including checkpoints and validations.
        """
        trainer = Trainer.start(self.settings, corpus, Run(run))
        started = time.perf_counter()
        curve: list[dict[str, Any]] = []  # which metrics.jsonl may not have yet

        def result() -> dict[str, Any]:
            return {
                **self.about,
                "norm": self.settings.model.norm or "post",
                "steps": trainer.position.step,
                "training_s": round(time.perf_counter() - started, 1),
                "curve": curve,
            }

        def report(entry: LogEntry | Validation) -> None:
            print(describe(entry), flush=True)
            curve.append(_rounded(logged(entry)))
            self.save(result())

        trainer.train(report)
        found = result()
        self.save(found)
        return found

    def translator(self, run: Path, out: Path) -> Translator:
        """The mean of the last checkpoints of `run`, written to the directory `out`."""
        there = len(Run(run).checkpoints.paths())  # a short run has fewer
        write_average(run, min(self.averaged, there), out)
        return Translator.load(out, self.about["backend"], self.about["precision"])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all recipes have."""
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=positive, help="steps, if fewer than the recipe's")
    parser.add_argument(
        "--minutes", type=float, default=0, help="the most minutes of training, 0 for no limit"
    )
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=result_file, help="a file for the result")


def needs_gpu(options: argparse.Namespace) -> None:
    """Exit with a one-line message if the backend needs a GPU and there is none."""
    if options.backend == "cupy":
        gpu(needs_bfloat16=options.precision == "bf16")


def translated(
    translator: Translator, sources: Sequence[str], **search: Any
) -> tuple[list[str], float]:
    """The translations of some lines, and their seconds."""
    started = time.perf_counter()
    found = translator.translate(sources, **search)
    return [t.text for t in found], round(time.perf_counter() - started, 1)


def _settings(config: Path, options: argparse.Namespace, averaged: int) -> TrainSettings:
    """The recipe's settings, with changes by the options.

    Shorter runs have as many checkpoints to average and as many points of the curve.
    """
    settings = dataclasses.replace(
        settings_from_dict(yaml.safe_load(config.read_text(encoding="utf-8"))),
        seed=options.seed,
        max_minutes=options.minutes,
        backend=options.backend,
        precision=options.precision,
    )
    if options.steps is None:
        return settings
    every = max(1, options.steps // averaged)
    intervals = ("log_every", "validate_every", "checkpoint_every")
    shorter = {name: min(getattr(settings, name), every) for name in intervals}
    return dataclasses.replace(settings, max_steps=options.steps, **shorter)


def _rounded(entry: dict[str, Any]) -> dict[str, Any]:
    """A log entry, rounded to significant digits."""
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in entry.items()}
