"""Small models and batches that the tests of the examples share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autograd import DropoutStream
from npformer import Batch, Parts, Transformer, TransformerConfig
from npformer.parts import PAPER_PARTS
from train.adam import adam
from train.optimizer import MakeOptimizer
from train.settings import ModelSettings, TrainSettings
from train.step import train_step

VOCABULARY, BEGIN, END = 11, 1, 2

SETTINGS = TrainSettings(
    model=ModelSettings(preset="tiny", layers=1, d_model=8, d_ff=12, heads=2, norm="pre"),
    max_steps=4,
    batch_tokens=150,
    schedule="constant",
    warmup=1,
    peak_rate=1e-3,
    log_every=2,
    checkpoint_every=2,
)


def small_config(**changes: Any) -> TransformerConfig:
    given = {"layers": 2, "d_model": 8, "d_ff": 12, "heads": 2, **changes}
    return TransformerConfig(VOCABULARY, **given)


def small_batch(seed: int = 0, pairs: int = 6) -> Batch:
    """Sentences of 1 to 6 random ids, each with its reverse as its translation."""
    rng = np.random.default_rng(seed)
    sources = [rng.integers(3, VOCABULARY, rng.integers(1, 7)).tolist() for _ in range(pairs)]
    targets = [source[::-1] for source in sources]
    return Batch.of(sources, targets, begin_id=BEGIN, end_id=END)


def trained(
    parts: Parts = PAPER_PARTS, optimizer: MakeOptimizer = adam, steps: int = 100
) -> tuple[Transformer, list[float]]:
    """A model trained to memorise one batch, and its loss per token, in nats, at each step."""
    model = Transformer(small_config(d_model=16, d_ff=24, smoothing=0.0), parts=parts)
    trained_by = optimizer(model.buffer, SETTINGS)
    batch = small_batch()
    results = [
        train_step(model, trained_by, [batch], 1e-2, DropoutStream(0, step))
        for step in range(1, steps + 1)
    ]
    return model, [float(result.loss_sum) / result.target_tokens for result in results]


def write_text(folder: Path) -> list[str]:
    """A few dozen pairs to train on, and some to validate with, in four files."""
    words = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
    pairs = [
        (f"{a} {b} {c}", f"{words[c]} {words[b]} {words[a]}")
        for a in words
        for b in words
        for c in words
    ]
    paths = []
    for part, chosen in (("train", pairs), ("valid", pairs[::11])):
        for side in (0, 1):
            path = folder / f"{part}.{side}"
            path.write_text("".join(f"{pair[side]}\n" for pair in chosen), encoding="utf-8")
            paths.append(str(path))
    return paths
