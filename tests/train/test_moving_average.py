"""The moving average of the parameters: its values after each step, and its use."""

import math

import numpy as np
import pytest

from autograd import ParameterBuffer
from npformer import Transformer, TransformerConfig
from npformer.checkpoint import parameter_arrays
from train import moving_average as module
from train.adam import Adam
from train.moving_average import MovingAverage, averaged
from train.runs.snapshot import published_copy

CONFIG = TransformerConfig.preset("tiny", vocab_size=20, layers=1, d_model=8, d_ff=8, heads=2)


def small(decay: float = 0.9) -> tuple[ParameterBuffer, MovingAverage]:
    """Two parameters, and an Adam with a moving average."""
    generator = np.random.default_rng(0)
    values = {"w": generator.normal(size=(70, 3)), "b": generator.normal(size=5)}
    buffer = ParameterBuffer(values, np.float64)
    return buffer, MovingAverage(Adam(buffer), buffer, decay)


def take_step(buffer: ParameterBuffer, optimizer: MovingAverage, scale: float = 1.0) -> None:
    buffer.grads[...] = np.random.default_rng(optimizer.steps).normal(size=buffer.values.size)
    optimizer.step(0.1, np.float64(scale))


@pytest.mark.parametrize("chunk", [7, 1 << 22])
def test_the_average_is_the_weighted_mean_of_the_parameters(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    buffer, optimizer = small(decay=0.5)
    expected = buffer.values.copy()
    for step in range(1, 12):
        take_step(buffer, optimizer)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * buffer.values
        np.testing.assert_allclose(optimizer.average, expected, rtol=1e-12)
    assert optimizer.steps == 11


def test_a_step_that_changes_nothing_does_not_change_the_average() -> None:
    buffer, optimizer = small()
    take_step(buffer, optimizer)
    before = optimizer.average.copy()
    take_step(buffer, optimizer, math.nan)
    np.testing.assert_array_equal(optimizer.average, before)
    assert optimizer.steps == 2


def test_averaging_does_not_change_the_optimizers_steps() -> None:
    buffer, optimizer = small()
    alone_buffer, averaging = small()
    alone = averaging.optimizer
    for _ in range(3):
        take_step(buffer, optimizer)
        alone_buffer.grads[...] = np.random.default_rng(alone.steps).normal(size=buffer.values.size)
        alone.step(0.1)
    np.testing.assert_array_equal(buffer.values, alone_buffer.values)
    assert optimizer.state().keys() == {"first", "second", "average"}


def test_the_model_has_the_average_only_inside_averaged() -> None:
    buffer, optimizer = small()
    for _ in range(3):
        take_step(buffer, optimizer)
    values, average = buffer.values.copy(), optimizer.average.copy()
    assert not np.array_equal(values, average)
    with averaged(optimizer):
        np.testing.assert_array_equal(buffer.values, average)
        np.testing.assert_array_equal(buffer.parameters["w"].value.ravel(), average[:210])
    np.testing.assert_array_equal(buffer.values, values)
    np.testing.assert_array_equal(optimizer.average, average)
    with averaged(optimizer.optimizer):
        np.testing.assert_array_equal(buffer.values, values)


def test_the_average_is_published() -> None:
    model = Transformer(CONFIG, seed=0)
    optimizer = MovingAverage(Adam(model.buffer), model.buffer, 0.9)
    optimizer.average += 1
    published, own = published_copy(model, optimizer)(), parameter_arrays(model)
    assert published.keys() == own.keys()
    for name in own:
        np.testing.assert_allclose(published[name], own[name] + 1, rtol=1e-6)
    published = published_copy(model, optimizer.optimizer)()
    for name in own:
        np.testing.assert_array_equal(published[name], own[name])
