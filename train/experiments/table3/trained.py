"""One row of Table 3, trained and measured: its perplexity and its BLEU."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from autograd import DropoutStream, using
from autograd.backend import current
from npformer.parts import PAPER_PARTS
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.adam import adam
from train.assembly import assemble
from train.corpora.corpus import Corpus
from train.evaluation import bleu
from train.experiments.measurements import Tell
from train.experiments.training import train_run
from train.loop import DivergedError
from train.runs.metrics import read_metrics
from train.settings import TrainSettings
from train.step import train_step

_WARM_UP = 3  # steps that may compile loops and allocate memory
_SECONDS = 2.0  # of steps that are timed


@dataclass(frozen=True)
class Training:
    """How a row is trained, and how its translations are made and scored.

    Attributes:
        corpus, run: directories
        tokenizers: of BLEU
        sentences: how many of the validation set are translated, from its beginning
    """

    corpus: Path
    run: Path
    settings: TrainSettings
    tokenizers: tuple[str, ...]
    sentences: int


def step_seconds(training: Training, tell: Tell) -> float:
    """How long a step of training takes."""
    seed = training.settings.seed
    with using(_backend(training)):
        corpus = Corpus.open(training.corpus)
        made = assemble(training.settings, corpus, PAPER_PARTS, adam, 1, lambda: False)
        synchronize = made.optimizer.owner.synchronize
        batches = chain.from_iterable(made.batches.epoch(epoch) for epoch in count())
        began = 0.0
        for step, batch in enumerate(batches, start=1 - _WARM_UP):
            if step == 1:
                synchronize()
                began = time.perf_counter()
            dropout = DropoutStream(seed, step + _WARM_UP)
            train_step(made.model, made.optimizer, [batch], 0.0, dropout)
            if step >= 1 and time.perf_counter() - began > _SECONDS:
                synchronize()
                return (time.perf_counter() - began) / step
    raise ValueError("epochs have no end")


def train_row(training: Training, tell: Tell) -> dict[str, Any]:
    """Train a row to its end, from where a run that was killed has left it, and measure it.

    Returns its "parameters", the "perplexity" of the validation set per subword, without smoothing,
    those at all validations as "curve", and "bleu", with "signatures", by tokenizer; or under
    "failed" why there is none of this.
    """
    with using(_backend(training)):
        corpus = Corpus.open(training.corpus)
        try:
            run = train_run(training.run, training.settings, corpus, tell)
        except DivergedError as error:
            return {"failed": str(error).partition(";")[0]}
        validations = [e for e in read_metrics(run.directory) if "valid_loss" in e]
        curve = [validation["valid_perplexity"] for validation in validations]
        if not all(map(math.isfinite, curve)):
            return {"failed": f"its perplexity is {curve[-1]}"}
        translator = Translator.load(run.directory)
        sources, references = (lines[: training.sentences] for lines in corpus.valid_text())
        texts = [translation.text for translation in translator.translate(sources)]
    assert isinstance(translator.model, Transformer)
    scores = {name: bleu(texts, references, name) for name in training.tokenizers}
    return {
        "parameters": sum(p.size for p in translator.model.parameters().values()),
        "perplexity": curve[-1],
        "curve": curve,
        "bleu": {name: score.value for name, score in scores.items()},
        "signatures": {name: score.signature for name, score in scores.items()},
    }


def _backend(training: Training) -> str:
    return training.settings.backend or current().name
