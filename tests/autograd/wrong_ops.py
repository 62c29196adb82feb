"""Operations with deliberate mistakes in their gradients, each of which a check must find."""

import math

import numpy as np

from autograd import op, ops

rng = np.random.default_rng(0)


@op
def layer_norm_without_the_part_along_the_result(x, gain, bias):
    y, vjp = ops.layer_norm.reference(x, gain, bias)
    inverse = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)

    def wrong(dy):
        dnormed = dy * gain
        dx = (dnormed - dnormed.mean(axis=-1, keepdims=True)) * inverse
        return dx, *vjp(dy)[1:]

    return y, wrong


@op
def layer_norm_without_the_mean(x, gain, bias):
    y, vjp = ops.layer_norm.reference(x, gain, bias)
    inverse = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    normed = (x - x.mean(axis=-1, keepdims=True)) * inverse

    def wrong(dy):
        dnormed = dy * gain
        dx = (dnormed - normed * (dnormed * normed).mean(axis=-1, keepdims=True)) * inverse
        return dx, *vjp(dy)[1:]

    return y, wrong


@op
def layer_norm_with_the_gain_of_another_row(x, gain, bias):
    y, vjp = ops.layer_norm.reference(x, gain, bias)

    def wrong(dy):
        dx, dgain, dbias = vjp(dy)
        return dx, np.roll(dgain, 1), dbias

    return y, wrong


@op
def embedding_that_loses_repeated_ids(table, *, ids):
    def wrong(dy):
        dtable = np.zeros_like(table)
        dtable[ids] += dy
        return dtable

    return table[ids], wrong


def attention_by_mask(hidden_forward, hidden_backward, scale_backward=True):
    """Attention of one head over one sentence; two masks as functions of (query, key)."""

    @op
    def attention(q, k, v):
        n, d_k = q.shape
        i, j = np.arange(n)[:, None], np.arange(n)[None, :]
        scores = np.where(hidden_forward(i, j), -np.inf, q @ k.T / math.sqrt(d_k))
        p = ops.softmax(scores)

        def vjp(dy):
            dp = dy @ v.T
            dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
            dscores = np.where(hidden_backward(i, j), 0, dscores)
            if scale_backward:
                dscores /= math.sqrt(d_k)
            return dscores @ k, dscores.T @ q, p.T @ dy

        return p @ v, vjp

    return attention


def ahead(i, j):
    return j > i


def ahead_or_same(i, j):
    return j >= i


def nothing(i, j):
    return (j < 0) | (i < 0)


@op
def softmax_without_the_sum(x):
    y = ops.softmax(x)
    return y, lambda dy: y * dy


@op
def relu_masked_by_the_sign_of_dy(x):
    return np.maximum(x, 0), lambda dy: dy * (dy > 0)


@op
def add_summed_over_the_wrong_axis(x, y):
    return x + y, lambda dz: (dz, dz.sum(axis=1))


@op
def linear_without_its_bias(x, weight, bias):
    return x @ weight + bias, lambda dy: (dy @ weight.T, x.T @ dy, np.zeros_like(bias))


@op
def product_with_arguments_exchanged(x, y):
    return x * y, lambda dz: (dz * x, dz * y)


@op
def cross_entropy_without_smoothing_in_its_gradient(x, weight):
    targets = np.array([0, 1, 0, 3])
    entropy = ops.projected_cross_entropy.reference
    (loss, _), _ = entropy(x, weight, targets=targets, smoothing=0.1)
    _, wrong = entropy(x, weight, targets=targets, smoothing=0.0)
    return loss, wrong


square = rng.standard_normal((4, 4))
WRONG = {
    "layer norm without the part along the result": (
        layer_norm_without_the_part_along_the_result,
        (square, square[0], square[1]),
        0,
    ),
    "layer norm without the mean": (
        layer_norm_without_the_mean,
        (square, square[0], square[1]),
        0,
    ),
    "layer norm with its gain's gradient misplaced": (
        layer_norm_with_the_gain_of_another_row,
        (square, square[0], square[1]),
        1,
    ),
    "embedding that loses repeated ids": (
        lambda t: embedding_that_loses_repeated_ids(t, ids=np.array([0, 2, 0])),
        (square,),
        0,
    ),
    "causal mask off by one, in the gradient": (
        attention_by_mask(ahead, ahead_or_same),
        (square, square.T.copy(), square + 1),
        0,
    ),
    "1/√d_k forgotten in the gradient": (
        attention_by_mask(ahead, ahead, scale_backward=False),
        (square, square.T.copy(), square + 1),
        0,
    ),
    "softmax without the sum": (softmax_without_the_sum, (square,), 0),
    "relu masked by the sign of dy": (
        relu_masked_by_the_sign_of_dy,
        (square + np.sign(square) * 0.1,),
        0,
    ),
    "broadcast summed over the wrong axis": (
        add_summed_over_the_wrong_axis,
        (square, square[0]),
        1,
    ),
    "a bias without its gradient": (linear_without_its_bias, (square, square.T, square[0]), 2),
    "a product with its arguments exchanged": (
        product_with_arguments_exchanged,
        (square, square + 1),
        0,
    ),
    "smoothing forgotten in the gradient": (
        cross_entropy_without_smoothing_in_its_gradient,
        (square, square.T.copy()),
        0,
    ),
}
