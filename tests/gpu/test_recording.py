"""Steps that are recorded and replayed (CUDA graphs) are those that are not, bit for bit.

Where there is no GPU, the stand-in for the CUDA runtime replays launches with their arguments as
they were at the recording (tests/without_gpu), and so finds what is frozen by mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autograd import DropoutStream, ops, watching
from autograd.cuda.memory import arena
from autograd.cuda.products import recordable_products
from npformer import Batch, Transformer, TransformerConfig
from train.adam import Adam
from train.moving_average import MovingAverage
from train.recordings import Recordings, sized
from train.step import train_step

SIZES: dict[str, Any] = {"vocab_size": 51, "layers": 1, "d_model": 32, "d_ff": 64, "heads": 2}
RATES = {"dropout": 0.1, "ffn_dropout": 0.1, "attention_dropout": 0.1}


def batches(count: int, longest: int = 12) -> list[Batch]:
    """Batches of as many tokens, once they are filled up, and of different lengths."""
    rng = np.random.default_rng(0)

    def sentences(lengths: np.ndarray) -> list[list[int]]:
        return [rng.integers(3, 51, n).tolist() for n in lengths]

    made = []
    for i in range(count):
        lengths = rng.integers(1, longest, (2, 6 + i % 3))
        made.append(Batch.of(*map(sentences, lengths), begin_id=1, end_id=2))
    return made


def poison() -> None:
    """Fill the memory that steps use with NaN."""
    block = arena()
    assert not block.used_bytes_here()
    x = block.empty((max(block._most, 1 << 20) // 4,), np.float32)
    x[...] = np.nan


class Training:
    """Steps of a model of a seed."""

    def __init__(self, precision: str, recorded: bool, decay: float = 0.0, **config: Any) -> None:
        made = Transformer(TransformerConfig(**{**SIZES, **config}), seed=1)
        self.model = made.to("cupy", precision)
        self.optimizer: Any = Adam(self.model.buffer)
        if decay:
            self.optimizer = MovingAverage(self.optimizer, self.model.buffer, decay)
        self.recordings = Recordings(self.model, self.optimizer) if recorded else None
        self.replayed: list[bool] = []

    def step(self, chosen: list[Batch], rate: float, step: int) -> np.ndarray:
        there = [self.model.prepared(sized(batch, 2048)) for batch in chosen]
        with watching(ops.linear) as calls, recordable_products():
            result = train_step(
                *(self.model, self.optimizer, there, rate, DropoutStream(5, step), 1.0),
                recordings=self.recordings,
            )
        self.replayed.append(not calls[ops.linear])
        return np.append(result.numbers.get(), result.target_tokens)

    def state(self) -> dict[str, np.ndarray]:
        arrays = {"values": self.model.buffer.values, "gradients": self.model.buffer.grads}
        return {k: v.get() for k, v in {**arrays, **self.optimizer.state()}.items()}


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_replayed_steps_are_those_that_run(precision, accumulate):
    """While everything changes that a launch could have frozen: see `batches`, and below."""
    config = {**RATES, "smoothing": 0.1}
    recorded = Training(precision, True, 0.9, **config)
    eager = Training(precision, False, 0.9, **config)
    made = batches(8)
    assert len({b.target_tokens for b in made}) > 3
    for step in range(1, 9):
        chosen = [made[(step + i) % 8] for i in range(accumulate)]
        rate = 1e-3 * step
        poison()
        found = recorded.step(chosen, rate, 1000 * step)
        poison()
        np.testing.assert_array_equal(found, eager.step(chosen, rate, 1000 * step))
        for name, expected in eager.state().items():
            np.testing.assert_array_equal(recorded.state()[name], expected, err_msg=name)
    assert recorded.optimizer.steps == eager.optimizer.steps == 8
    assert recorded.replayed[:1] == [False]
    assert recorded.replayed[3:] == [True] * 5
    assert not any(eager.replayed)
