"""Adam with weight decay apart from the gradient."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest

from autograd import ParameterBuffer
from examples.adamw import AdamW, adamw
from npformer import Transformer, UserError
from tests.examples.small import SETTINGS, small_config, trained, write_text
from train.adam import Adam
from train.corpora.preparation import prepare
from train.runs.run import Run
from train.trainer import Trainer


def a_buffer() -> ParameterBuffer:
    rng = np.random.default_rng(0)
    return ParameterBuffer(
        {"weight": rng.standard_normal((4, 3)), "bias": rng.standard_normal(3)}, np.float64
    )


def set_gradients(buffer: ParameterBuffer, step: int) -> None:
    rng = np.random.default_rng((1, step))
    for parameter in buffer.parameters.values():
        assert parameter.grad is not None
        parameter.grad[...] = rng.standard_normal(parameter.shape)


def test_its_steps_are_those_of_the_paper() -> None:
    """Algorithm 2 of Loshchilov and Hutter, with the rate as its η."""
    buffer = a_buffer()
    optimizer = AdamW(buffer, decay=0.1, beta1=0.9, beta2=0.99, epsilon=1e-8)
    values = {name: p.numpy().copy() for name, p in buffer.parameters.items()}
    m = {name: np.zeros_like(v) for name, v in values.items()}
    v = {name: np.zeros_like(x) for name, x in values.items()}
    for t in range(1, 8):
        set_gradients(buffer, t)
        for name, parameter in buffer.parameters.items():
            g = parameter.grad
            assert g is not None
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.99 * v[name] + 0.01 * g * g
            change = m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - 0.99**t)) + 1e-8)
            if name == "weight":
                change = change + 0.1 * values[name]
            values[name] = values[name] - 0.05 * change
        optimizer.step(0.05)
    for name, parameter in buffer.parameters.items():
        np.testing.assert_allclose(parameter.numpy(), values[name], rtol=1e-12)


def test_without_decay_it_is_adam() -> None:
    ours, theirs = a_buffer(), a_buffer()
    with_decay, without = AdamW(ours, decay=0.0), Adam(theirs)
    for step in range(3):
        for buffer, optimizer in ((ours, with_decay), (theirs, without)):
            set_gradients(buffer, step)
            optimizer.step(0.1)
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_biases_and_norms_do_not_decay() -> None:
    model = Transformer(small_config())
    optimizer = AdamW(model.buffer)
    decaying = {p.serial for p in optimizer.decaying()}
    for name, parameter in model.parameters().items():
        is_vector = name.endswith((".bias", ".gain"))
        assert (parameter.serial in decaying) != is_vector, name


@pytest.mark.parametrize("scale", [math.nan, np.float64(math.inf), np.array(math.nan)])
def test_a_gradient_that_is_not_finite_changes_nothing(scale: float) -> None:
    buffer = a_buffer()
    before = buffer.values.copy()
    optimizer = AdamW(buffer)
    set_gradients(buffer, 0)
    optimizer.step(0.1, scale)
    np.testing.assert_array_equal(buffer.values, before)


def test_a_step_that_is_refused_changes_nothing() -> None:
    model = Transformer(small_config())
    optimizer = AdamW(model.buffer)
    buffer, copied = model.buffer, copy.deepcopy(model.buffer)
    buffer.grads = None  # as after a change of precision
    with pytest.raises(RuntimeError, match="make a new one"):
        optimizer.step(0.1)
    np.testing.assert_array_equal(buffer.values, copied.values)


def test_a_copy_goes_on_in_the_same_way() -> None:
    buffer = a_buffer()
    optimizer = AdamW(buffer)
    set_gradients(buffer, 0)
    optimizer.step(0.1)
    copied = copy.deepcopy(optimizer)
    for one in (optimizer, copied):
        set_gradients(one.buffer, 1)
        one.step(0.1)
    np.testing.assert_array_equal(copied.buffer.values, buffer.values)


def test_it_memorises_a_batch() -> None:
    _, losses = trained(optimizer=adamw)
    assert losses[0] > 2
    assert losses[-1] < 0.7
    assert losses[-1] != trained()[1][-1]


def test_a_run_is_resumed_with_it(tmp_path: Path) -> None:
    a, b, c, d = write_text(tmp_path)
    corpus = prepare(a, b, c, d, tmp_path / "corpus", vocab_size=300)
    straight = Trainer.start(SETTINGS, corpus, Run(tmp_path / "straight"), optimizer=adamw)
    straight.train()
    run = Run(tmp_path / "stopped")
    stopped = Trainer.start(SETTINGS, corpus, run, optimizer=adamw)
    stopped.stop_requested = True
    assert stopped.train().step == 1
    with pytest.raises(UserError, match="belongs to another model or optimizer"):
        Trainer.resume(SETTINGS, corpus, run)
    resumed = Trainer.resume(SETTINGS, corpus, run, optimizer=adamw)
    resumed.train()
    np.testing.assert_array_equal(resumed.model.buffer.values, straight.model.buffer.values)
