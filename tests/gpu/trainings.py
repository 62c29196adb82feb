"""Small models in training on a GPU, recorded or launched, and the poison between steps."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from autograd import DropoutStream
from autograd.cuda.memory import SMALL, Fixed, arena
from autograd.cuda.products import recordable_products
from npformer import Batch, Transformer, TransformerConfig
from npformer.parts import PAPER_PARTS
from train.adam import Adam
from train.moving_average import MovingAverage
from train.ranks.shares import Part
from train.recordings import Recordings, sized
from train.step import train_step

cupy = pytest.importorskip("cupy")

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
    """Fill the memory that steps use with NaN, and the small arrays of recordings."""
    block = arena()
    assert not block.used_bytes_here()
    x = block.empty((max(block._most, 1 << 20) // 4,), np.float32)
    x[...] = np.nan
    del x
    for memory in _small:
        cupy.cuda.runtime.memset(memory.ptr, 0xFF, memory.mem.size)


_small: list[Any] = []  # memory of small arrays that recordings have made, which so stays as it is
_memory = Fixed.memory


def _noted(self: Fixed, size: int) -> Any:
    """Memory for what is recorded, a part of its own for each small array."""
    found = _memory(self, size)
    if size <= SMALL:
        _small.append(found)
    return found


class Training:
    """Steps of a model of a seed."""

    def __init__(self, precision: str, recorded: bool, decay: float = 0.0, **config: Any) -> None:
        parts = config.pop("parts", PAPER_PARTS)
        made = Transformer(TransformerConfig(**{**SIZES, **config}), seed=1, parts=parts)
        self.model = made.to("cupy", precision)
        self.optimizer: Any = Adam(self.model.buffer)
        if decay:
            self.optimizer = MovingAverage(self.optimizer, self.model.buffer, decay)
        self.recordings = Recordings(self.model, self.optimizer) if recorded else None
        self.replayed: list[bool] = []
        self._losses = self.model.losses

    def step(
        self,
        chosen: list[Batch],
        rate: float,
        step: int,
        *,
        seed: int = 5,
        clip_norm: float = 1.0,
        part: Part | None = None,
    ) -> np.ndarray:
        """Loss, likelihood and gradient norm of a step, and how many targets it has."""
        there = [self.model.prepared(sized(batch, 2048)) for batch in chosen]
        computed: list[Batch] = []  # by Python: what is replayed is not

        def losses(batch: Batch, *others: Any) -> Any:
            computed.append(batch)
            return self._losses(batch, *others)

        with (
            patch.object(self.model, "losses", losses),
            recordable_products(),
            patch.object(Fixed, "memory", _noted),
        ):
            result = train_step(
                *(self.model, self.optimizer, there, rate, DropoutStream(seed, step), clip_norm),
                part=part,
                recordings=self.recordings,
            )
        self.replayed.append(not computed)
        return np.append(result.numbers.get(), result.target_tokens)

    def state(self) -> dict[str, np.ndarray]:
        return {name: x.get() for name, x in self._arrays().items()}

    def restore(self, state: dict[str, np.ndarray], steps: int) -> None:
        """Go back to a state, after so many of the optimizer's steps."""
        for name, x in self._arrays().items():
            x[...] = cupy.asarray(state[name])
        if self.model.buffer.rounded is not None:
            self.model.buffer.rounded[...] = self.model.buffer.values
        self.optimizer.steps = steps

    def _arrays(self) -> dict[str, Any]:
        buffer = self.model.buffer
        return {"values": buffer.values, "gradients": buffer.grads, **self.optimizer.state()}
