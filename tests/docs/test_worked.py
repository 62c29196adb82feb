"""The numbers of the worked examples are right, by two other ways."""

import numpy as np
import pytest

from docs.worked import EXAMPLES, table


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def normed(x):
    return (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True)


SMOOTHED = np.array([[0.1, 0.8, 0.1]])
ONE_HOT = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 1]])

# Who is before, at and after each position of two sentences, [3, n, n].
PLACES = np.array([[[0] * 3, [1, 0, 0], [0] * 3], np.eye(3), [[0, 1, 0], [0] * 3, [0] * 3]])

# What each example computes, as the paper says it.
FORWARD = {
    "matrix_product": lambda x, w, b: x @ w + b,
    "softmax": softmax,
    "layer_norm": lambda x, gain, bias: normed(x) * gain + bias,
    "attention": lambda q, k, v: softmax(q @ k.T / 2) @ v,
    "cross_entropy": lambda x, e: -(SMOOTHED * np.log(softmax(x @ e.T))).sum(),
    "embedding": lambda e: 2 * ONE_HOT @ e,
    "dropout": lambda x, keep: x * keep * 2,
    "convolution": lambda x, w, b: (w * PLACES).sum(axis=0) @ x + b,
    "recurrent_step": lambda h, x, u: np.tanh(x + h @ u),
}


def layer_norm_by_hand(x, gain, dy):
    n, dn = normed(x), dy * gain
    along = (dn * n).mean(axis=-1, keepdims=True)
    dx = (dn - dn.mean(axis=-1, keepdims=True) - n * along) / x.std(axis=-1, keepdims=True)
    return {"dx": dx, "dgain": (dy * n).sum(axis=0), "dbias": dy.sum(axis=0)}


def attention_by_hand(q, k, v, dy):
    p, dp = softmax(q @ k.T / 2), dy @ v.T
    ds = np.empty_like(p)
    for i in range(len(q)):
        for j in range(len(k)):
            ds[i, j] = p[i, j] * (dp[i, j] - sum(dp[i] * p[i]))
    return {"dq": ds / 2 @ k, "dk": ds.T / 2 @ q, "dv": p.T @ dy}


# The results of the derivations, as docs/gradients.md has them.
BY_HAND = {
    "matrix_product": lambda x, w, dy: {"dx": dy @ w.T, "dw": x.T @ dy, "db": dy.sum(axis=0)},
    "softmax": lambda y, dy: {"dx": y * (dy - (dy * y).sum())},
    "layer_norm": layer_norm_by_hand,
    "attention": attention_by_hand,
    "cross_entropy": lambda x, e, p, dy: {
        "dx": dy * (p - SMOOTHED) @ e,
        "de": (dy * (p - SMOOTHED)).T @ x,
    },
    "embedding": lambda dy: {"de": 2 * np.stack([dy[1], 0 * dy[1], dy[0] + dy[2]])},
    "dropout": lambda keep, dy: {"dx": dy * keep * 2},
    "convolution": lambda x, w, dy: {
        "dx": (w * PLACES).sum(axis=0).T @ dy,
        "dw": np.array([x[0] * dy[1], sum(x * dy), x[1] * dy[0]])[:, None],
        "db": sum(dy),
    },
    "recurrent_step": lambda h, y, dy, u: {
        "dx": dy * (1 - y**2),
        "dh": dy * (1 - y**2) @ u.T,
        "du": h.T @ (dy * (1 - y**2)),
    },
}

DERIVED = {
    "matrix_product": {"dx", "dw", "db"},
    "softmax": {"dx"},
    "layer_norm": {"dx", "dgain", "dbias"},
    "attention": {"dq", "dk", "dv"},
    "cross_entropy": {"dx", "de"},
    "embedding": {"de"},
    "dropout": {"dx"},
    "convolution": {"dx", "dw", "db"},
    "recurrent_step": {"dx", "dh", "du"},
}

every_gradient = pytest.mark.parametrize("name", DERIVED)


def called(f, numbers):
    """`f` of the numbers that its arguments name."""
    names = f.__code__.co_varnames[: f.__code__.co_argcount]
    return f(**{name: numbers[name] for name in names})


def test_every_example_is_checked():
    assert set(EXAMPLES) == {*DERIVED, "adam"}
    for name, gradients in DERIVED.items():
        numbers = EXAMPLES[name]()
        assert gradients == {n for n in numbers if n[1:] in numbers} - {"dy"}


@every_gradient
def test_the_values_are_those_of_the_equation(name):
    numbers = EXAMPLES[name]()
    np.testing.assert_allclose(called(FORWARD[name], numbers), numbers["y"], rtol=1e-12, atol=1e-12)


@every_gradient
def test_the_gradients_are_the_slopes(name):
    """Each element of each input alone, by central differences of the paper's equation."""
    numbers = EXAMPLES[name]()
    step = 1e-5
    for gradient in DERIVED[name]:
        slopes = np.zeros_like(numbers[gradient])
        for place in np.ndindex(slopes.shape):
            ends = []
            for sign in (+1, -1):
                moved = numbers[gradient[1:]].copy()
                moved[place] += sign * step
                y = called(FORWARD[name], numbers | {gradient[1:]: moved})
                ends.append((y * numbers["dy"]).sum())
            slopes[place] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(numbers[gradient], slopes, rtol=1e-8, atol=1e-9)


@every_gradient
def test_the_gradients_are_those_of_the_derivation(name):
    numbers = EXAMPLES[name]()
    by_hand = called(BY_HAND[name], numbers)
    assert by_hand.keys() == DERIVED[name]
    for gradient, expected in by_hand.items():
        np.testing.assert_allclose(numbers[gradient], expected, rtol=1e-12, atol=1e-12)


def test_adam_s_corrected_moments_are_weighted_averages():
    numbers = EXAMPLES["adam"]()
    g, values = numbers["g"], np.zeros(2)
    for t in range(1, len(g) + 1):
        averages = []
        for beta, terms in ((0.9, g), (0.98, g**2)):
            weights = beta ** np.arange(t - 1, -1, -1)
            averages.append(np.average(terms[:t], axis=0, weights=weights))
        np.testing.assert_allclose(numbers["m_corrected"][t - 1], averages[0])
        np.testing.assert_allclose(numbers["v_corrected"][t - 1], averages[1])
        values -= 0.1 * averages[0] / (np.sqrt(averages[1]) + 1e-9)
        np.testing.assert_allclose(numbers["values"][t - 1], values)


def test_a_table_shows_four_digits():
    numbers = {"x": np.array([1.0, -1e-9]), "long": np.array([[2 / 3], [0.5]])}
    assert table(numbers) == ("x    = [1. 0.]\nlong = [[0.6667]\n        [0.5   ]]")
