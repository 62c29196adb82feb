"""Every operation and its gradient give the same results on strict arrays as on NumPy arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import (
    ParameterBuffer,
    Sentences,
    Tape,
    Tensor,
    backend,
    check_gradients,
    ops,
    references,
    to_host,
    using,
)
from tests.autograd.cases import CASES
from tests.autograd.drawing import values_and_gradients

strict = backend.backend("strict")


@pytest.mark.parametrize("condition", [True, np.False_, [True, False], np.array([True, False])])
def test_a_condition_may_come_from_the_host(condition):
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])
    got = ops.where(condition, Tensor(strict.asarray(x)), strict.asarray(y))
    np.testing.assert_array_equal(got.numpy(), np.where(condition, x, y))
    check_gradients(lambda x, y: ops.where(condition, x, y), strict.asarray(x), strict.asarray(y))


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=30)
@given(data=st.data())
def test_operations_give_the_same_results_on_every_backend(operation, data):
    case = data.draw(CASES[operation])
    there = case.on(strict)
    with references():
        expected = values_and_gradients(case.run, case.arrays)
        got = values_and_gradients(there.run, there.arrays)
    for x, y in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        assert type(x) is np.ndarray
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=10)
@given(data=st.data())
def test_values_and_gradients_stay_on_their_backend(operation, data):
    """Whichever backend is the current one."""
    case = data.draw(CASES[operation])
    for target, current in ((strict, "numpy"), (backend.backend("numpy"), "strict")):
        moved = case.on(target)
        tensors = [Tensor(x) for x in moved.arrays]
        with using(current):
            with Tape() as tape:
                y = moved.run(*tensors)
                y = y[0] if isinstance(y, tuple) else y
            assert isinstance(y.value, target.kind)
            gradients = tape.backward(y, target.xp.ones(y.shape), wanted=tensors)
        assert all(isinstance(g, target.kind) for g in gradients)


def test_gradients_can_be_checked_on_every_backend():
    inputs = np.random.default_rng(0).random((2, 3, 3))
    check_gradients(lambda x, w: ops.softmax(x @ w), *map(strict.asarray, inputs))


def test_attention_weights_and_adam_run_on_every_backend():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((5, 12))
    args = {"heads": 2, "d_k": 2, "sentences": Sentences([2, 0, 3]), "causal": True}
    for window in (None, 2):
        here = ops.attention_weights(q, **args, window=window)
        there = ops.attention_weights(strict.asarray(q), **args, window=window)
        for x, y in zip(here, there, strict=True):
            np.testing.assert_allclose(x, to_host(y), rtol=1e-12)

    state = [rng.uniform(0.1, 1, 8) for _ in range(4)]
    moved = [strict.asarray(x) for x in state]
    settings_ = {"rate": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 3, "scale": 0.5}
    with references():
        assert ops.adam_step(*state, **settings_) is ops.adam_step(*moved, **settings_) is None
        norms = ops.squared_norm(state[1]), ops.squared_norm(moved[1])
    for x, y in zip(state, moved, strict=True):
        np.testing.assert_allclose(x, to_host(y), rtol=1e-12)
    assert float(norms[0]) == pytest.approx(float(norms[1])) == float((state[1] ** 2).sum())


def test_training_steps_are_the_same_on_every_backend():
    def step():
        rng = np.random.default_rng(0)
        target = backend.current()
        buffer = ParameterBuffer({"w": rng.random((3, 4)), "b": rng.random(4)}, np.float64)
        grads = buffer.allocate_gradients()
        moments = [target.xp.zeros_like(grads) for _ in range(2)]
        x = target.asarray(rng.random((5, 3)))
        w, b = buffer.parameters.values()
        for number in (1, 2):
            with Tape() as tape:
                loss = ops.log_softmax(ops.linear(x, w, b, relu=True)).sum()
            tape.backward(loss)
            ops.adam_step(
                buffer.values, grads, *moments,
                rate=0.1, beta1=0.9, beta2=0.98, epsilon=1e-9, step=number,
            )  # fmt: skip
        assert isinstance(buffer.values, target.kind)
        return w.numpy()

    expected = step()
    with using("strict"):
        np.testing.assert_allclose(step(), expected, rtol=1e-12)
