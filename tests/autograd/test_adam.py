"""Adam, one parameter at a time, as in algorithm 1 of Kingma and Ba (2015)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import ops, references


@given(
    seed=st.integers(0, 1000),
    rate=st.floats(1e-5, 1),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    epsilon=st.sampled_from([1e-9, 1e-2]),
    scale=st.sampled_from([1.0, 0.1]),
)
def test_steps_match_the_algorithm(seed, rate, beta1, beta2, epsilon, scale):
    rng = np.random.default_rng(seed)
    values, first, second = rng.standard_normal(3), np.zeros(3), np.zeros(3)
    theta, m, v = values.tolist(), [0.0] * 3, [0.0] * 3
    for t in range(1, 5):
        grads = rng.standard_normal(3)
        given_ = grads.copy()
        with references():
            ops.adam_step(
                values, grads, first, second,
                rate=rate, beta1=beta1, beta2=beta2, epsilon=epsilon, step=t, scale=scale,
            )  # fmt: skip
        for i, g in enumerate((grads * scale).tolist()):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            theta[i] -= rate * m_hat / (math.sqrt(v_hat) + epsilon)
        np.testing.assert_allclose(values, theta, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose((first, second), (m, v), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(grads, given_)


@pytest.mark.parametrize("number", [float, np.float32, np.float64])
def test_float32_arrays_stay_float32(number):
    flat = [np.ones(4, np.float32) for _ in range(4)]
    with references():
        ops.adam_step(
            *flat,
            rate=number(0.1), beta1=number(0.9), beta2=number(0.98), epsilon=number(1e-9),
            step=1, scale=number(0.5),
        )  # fmt: skip
        assert ops.squared_norm(flat[1]).dtype == np.float32
    assert {x.dtype for x in flat} == {np.dtype(np.float32)}


@given(seed=st.integers(0, 100), size=st.integers(0, 9))
def test_the_squared_norm_is_the_sum_of_squares(seed, size):
    x = np.random.default_rng(seed).standard_normal(size)
    with references():
        assert ops.squared_norm(x) == pytest.approx(math.fsum(v * v for v in x))
