"""Trainings that several ranks must make as a single process makes them.

python -m tests.train.ranks_alike CORPUS OUT, on the ranks of a launcher. A process alone calls the
same functions; test_ranks_alike.py compares.
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autograd import DropoutStream
from npformer import Transformer, TransformerConfig
from tests.train.runs import settings
from train.adam import Adam
from train.corpora.batches import Batches, Place
from train.corpora.corpus import Corpus
from train.corpora.sentences import ParallelTokens
from train.moving_average import MovingAverage
from train.ranks.exchange import BucketedExchange
from train.ranks.ranks import Ranks
from train.ranks.same_run import check_same_parameters
from train.ranks.shares import steps
from train.ranks.world import world
from train.runs.run import Run
from train.step import train_step
from train.trainer import Trainer

STEPS = 50
SPOILT = 20  # the step whose loss is infinite, on the last rank alone
BUCKET = 4096  # bytes, of the 30 KB and more that the gradients have


class Case(NamedTuple):
    """How to train. With few `tokens`, a batch has fewer sentences than there are ranks."""

    dtype: Any
    accumulate: int = 1
    tokens: int = 80
    clip_norm: float = 0.0
    ema: float = 0.0
    spoilt: bool = False


CASES = {
    "float64, few sentences": Case(np.float64, tokens=14),
    "float64, accumulate 2": Case(np.float64, accumulate=2, clip_norm=0.5, ema=0.9, spoilt=True),
    "float32, accumulate 3": Case(np.float32, accumulate=3, clip_norm=0.5, ema=0.9),
}


class Trained(NamedTuple):
    """Of each step: its numbers (loss, nll, norm), the gradients and the parameters after it."""

    numbers: np.ndarray
    gradients: np.ndarray
    parameters: np.ndarray
    average: np.ndarray | None


def new_model(dtype: Any) -> Transformer:
    config = TransformerConfig(
        vocab_size=50,
        layers=1,
        d_model=16,
        d_ff=32,
        heads=2,
        dropout=0.2,
        attention_dropout=0.2,
        smoothing=0.1,
    )
    return Transformer(config, 0, dtype)


def random_batches(tokens: int) -> Batches:
    rng = np.random.default_rng(0)

    def sentences() -> list[list[int]]:
        return [rng.integers(3, 50, rng.integers(1, 12)).tolist() for _ in range(300)]

    parallel = ParallelTokens.of(sentences(), sentences())
    return Batches(parallel, tokens=tokens, begin_id=1, end_id=2)


def trained(case: Case, ranks: Ranks) -> Trained:
    """STEPS steps. Raises UserError as soon as the ranks' parameters differ."""
    model = new_model(case.dtype)
    buffer = model.buffer
    adam = Adam(buffer)
    average = MovingAverage(adam, buffer, case.ema) if case.ema else None
    optimizer = average or adam
    exchange: Any = None
    if ranks.size > 1:
        transport: Any = ranks
        exchange = BucketedExchange(buffer, transport, BUCKET)
    rows, gradients, parameters = [], [], []
    coming = steps(random_batches(case.tokens), Place(), case.accumulate, ranks.rank, ranks.size)
    for step, (batches, part, _) in enumerate(islice(coming, STEPS), start=1):
        is_spoilt = case.spoilt and step == SPOILT and ranks.rank == ranks.size - 1
        result = train_step(
            spoilt(model) if is_spoilt else model,
            optimizer,
            batches,
            0.003,
            DropoutStream(1, step),
            case.clip_norm,
            part=part,
            exchange=exchange,
        )
        check_same_parameters(ranks, buffer.values, step)
        rows.append(result.numbers / [result.target_tokens, result.target_tokens, 1])
        gradients.append(np.array(buffer.grads))
        parameters.append(np.array(buffer.values))
    return Trained(
        np.stack(rows),
        np.stack(gradients),
        np.stack(parameters),
        None if average is None else np.array(average.average),
    )


def key_biases(model: Transformer) -> np.ndarray:
    """Which of the flat parameters are biases of keys.

    They change no attention weight, so their gradient is zero but for rounding, and Adam makes
    steps of that.
    """
    parameters, spans = model.parameters(), model.buffer.spans()
    found = np.zeros(model.buffer.values.size, bool)
    for name, span in spans.items():
        size = parameters[name].size
        if name.endswith("attention.qkv.bias"):
            found[span.start + size // 3 : span.start + 2 * size // 3] = True
        elif name.endswith("attention.kv.bias"):
            found[span.start : span.start + size // 2] = True
    assert found.sum() == 3 * model.config.layers * model.config.d_model
    return found


def spoilt(model: Transformer) -> Transformer:
    """The same model, but its losses are infinite."""

    def losses(*arguments: Any) -> Any:
        loss, nll = model.losses(*arguments)
        return loss * np.inf, nll

    other = copy.copy(model)
    other.losses = losses  # type: ignore[method-assign]
    return other


# Runs, which read a corpus and write directories.

LAST = 9
RUN = settings(
    max_steps=LAST,
    batch_tokens=150,
    accumulate=2,
    clip_norm=1.0,
    ema=0.9,
    sampling=0.1,
    bleu_every=8,
    bleu_beam=2,
    samples=2,
    best_by="loss",
)


class Killed(BaseException):
    """In place of a signal that no process survives."""


def after_step(trainer: Trainer, step: int, do: Callable[[], None]) -> Trainer:
    """Let the trainer do something at the end of a step, before it counts it."""
    taken = trainer.optimizer.step

    def stepping(rate: float, scale: Any) -> None:
        taken(rate, scale)
        if trainer.optimizer.steps == step:
            do()

    trainer.optimizer.step = stepping  # type: ignore[method-assign]
    return trainer


def started(corpus: Corpus, out: Path, ranks: Ranks) -> Trainer:
    return Trainer.start(RUN, corpus, Run(out), ranks=ranks)


def resumed(corpus: Corpus, out: Path, ranks: Ranks) -> Trainer:
    return Trainer.resume(RUN, corpus, Run(out), ranks=ranks)


def stopped_after(trainer: Trainer, step: int) -> None:
    """Train until a step, after which one rank is asked to stop: the last."""

    def stop() -> None:
        trainer.stop_requested = trainer.ranks.rank == trainer.ranks.size - 1

    assert after_step(trainer, step, stop).train().step == step


def killed_after(trainer: Trainer, step: int) -> None:
    def kill() -> None:
        raise Killed

    try:
        after_step(trainer, step, kill).train()
    except Killed:
        return
    raise AssertionError("it was not killed")


def drifted(trainer: Trainer) -> str:
    """What is said when the last rank's parameters differ by a little. Nothing is saved then."""

    def drift() -> None:
        if trainer.ranks.rank == trainer.ranks.size - 1:
            # By more than a bit, which the rounding of the next updates may take away again.
            trainer.model.buffer.values[:1] += 1e-4

    try:
        after_step(trainer, 3, drift).train()
    except Exception as error:
        return f"{type(error).__name__}: {error}; saved: {trainer.saved_step}"
    return "nothing"


def main(corpus_directory: str, out: str) -> None:
    ranks, folder = world(), Path(out)
    corpus = Corpus.open(Path(corpus_directory))
    found = {name: trained(case, ranks)._asdict() for name, case in CASES.items()}

    started(corpus, folder / "whole", ranks).train()
    started(corpus, folder / "repeated", ranks).train()
    if ranks.size == 2:
        stopped_after(started(corpus, folder / "stopped", ranks), 6)
        resumed(corpus, folder / "stopped", ranks).train()
        killed_after(started(corpus, folder / "killed", ranks), 7)  # saved last after step 5
        resumed(corpus, folder / "killed", ranks).train()
    shared = folder.parent / "shared"  # by this number of ranks, and then by another
    if shared.is_dir():
        stopped_after(resumed(corpus, shared, ranks), 6)
    else:
        stopped_after(started(corpus, shared, ranks), 3)
    words = ranks.all(drifted(started(corpus, folder / "drifted", ranks)))
    if ranks.is_first:
        (folder / "found.pickle").write_bytes(pickle.dumps((found, words)))


if __name__ == "__main__":
    main(*sys.argv[1:])
