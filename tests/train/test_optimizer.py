"""A user's optimizer may have state of any dtype, which is saved and restored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autograd import ParameterBuffer, ops
from autograd.backend import Array, backend_of
from npformer import UserError
from npformer.checkpoint import load_arrays
from tests.train.runs import SETTINGS, assert_same_run, settings
from tests.train.small_corpus import make_corpus
from train.corpora.corpus import Corpus
from train.optimizer import MakeOptimizer
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer


class SignMomentum:
    """The sign of a momentum in `dtype`, and a count of each element's turns in int16.

    It has the methods of an Optimizer without being derived from it.
    """

    name = "sign_momentum"

    def __init__(self, buffer: ParameterBuffer, dtype: Any) -> None:
        self.buffer, self.grads = buffer, buffer.allocate_gradients()
        self.owner = backend_of(buffer.values)
        self.momentum: Array = self.owner.xp.zeros(buffer.values.shape, dtype)
        self.turns: Array = self.owner.xp.zeros(buffer.values.shape, np.int16)
        self.steps = 0

    def gradient_norm(self) -> Array:
        return self.owner.xp.sqrt(ops.squared_norm(self.grads))

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        self.steps += 1
        if not np.isfinite(scale):
            return
        before = self.momentum > 0
        self.momentum[...] = 0.9 * self.momentum + scale * self.grads
        self.turns += before != (self.momentum > 0)
        # The more often the sign of an element has changed, the smaller are its steps.
        self.buffer.values -= rate * np.sign(self.momentum) / (1 + self.turns)

    def state(self) -> dict[str, Array]:
        return {"momentum": self.momentum, "turns": self.turns}


def sign_momentum(dtype: Any) -> MakeOptimizer:
    def make(buffer: ParameterBuffer, chosen: TrainSettings) -> SignMomentum:
        return SignMomentum(buffer, dtype)

    return make


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_state_of_another_dtype_than_float32_is_restored_exactly(
    corpus: Corpus, tmp_path: Path, dtype: Any
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    make = sign_momentum(dtype)
    Trainer.start(SETTINGS, corpus, Run(straight), optimizer=make).train()
    Trainer.start(settings(max_steps=4), corpus, Run(stopped), optimizer=make).train()
    saved, _ = load_arrays(Run(stopped).state)
    resumed = Trainer.resume(SETTINGS, corpus, Run(stopped), optimizer=make)
    for name, array in resumed.optimizer.state().items():
        assert array.dtype == saved[f"sign_momentum.{name}"].dtype
        np.testing.assert_array_equal(array, saved[f"sign_momentum.{name}"])
    momentum, turns = (saved[f"sign_momentum.{name}"] for name in ("momentum", "turns"))
    assert momentum.dtype == dtype
    assert turns.dtype == np.int16
    assert momentum.any()
    assert turns.any()
    assert resumed.optimizer.steps == 4
    resumed.train()
    assert_same_run(stopped, straight)


def test_a_state_of_another_dtype_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    chosen = settings(max_steps=1)
    Trainer.start(chosen, corpus, run, optimizer=sign_momentum(np.float16)).train()
    message = "belongs to another model: 'sign_momentum.momentum' holds float16"
    with pytest.raises(UserError, match=re.escape(message)):
        Trainer.resume(chosen, corpus, run, optimizer=sign_momentum(np.float32))


def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Otherwise it would be saved, but could not be loaded."""
    for dtype in (pytest.importorskip("ml_dtypes").bfloat16, np.complex64):
        name = np.dtype(dtype).name
        with pytest.raises(TypeError, match=f"'sign_momentum.momentum' is an array of {name}"):
            Trainer.start(SETTINGS, corpus, Run(tmp_path / name), optimizer=sign_momentum(dtype))
