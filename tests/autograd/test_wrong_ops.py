"""Deliberately wrong operations: the checks must reject each, and say which input it is."""

import math

import numpy as np
import pytest

from autograd import Parameter, check_gradients, op, ops
from tests.autograd.contract import check_contract

rng = np.random.default_rng(0)
LENGTHS = np.array([3, 2])


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
    value, _ = entropy(x, weight, targets=targets, smoothing=0.1)
    _, wrong = entropy(x, weight, targets=targets, smoothing=0.0)
    return value, wrong


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


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_gradient_is_rejected(mistake):
    wrong, inputs, _ = WRONG[mistake]
    with pytest.raises(AssertionError, match="wrong gradient for"):
        check_gradients(wrong, *inputs)


@pytest.mark.parametrize("mistake", WRONG)
def test_the_message_names_the_input_what_was_expected_and_what_came(mistake):
    """Every other input is held constant, so that its gradient alone is in question."""
    wrong, inputs, guilty = WRONG[mistake]

    def of_one(x):
        return wrong(*inputs[:guilty], x, *inputs[guilty + 1 :])

    def of_three(a, b, x):
        y = of_one(x)
        return a * loudness, b.sum(), *(y if isinstance(y, tuple) else (y,))

    expected_and_computed = r"the function changes by [-\d.e]+, the gradient says [-\d.e]+"
    loudness = 1.0
    with pytest.raises(AssertionError, match=f"all inputs together.*{expected_and_computed}"):
        check_gradients(of_three, np.zeros(2), np.ones(3), inputs[guilty])
    loudness = 1e9  # drowns the error among all inputs together, but not in the input alone
    with pytest.raises(AssertionError, match=f"input 2.*{expected_and_computed}"):
        check_gradients(of_three, np.zeros(2), np.ones(3), inputs[guilty])


def test_the_right_attention_passes():
    inputs = square, square.T.copy(), square + 1
    check_gradients(attention_by_mask(ahead, ahead), *inputs)
    # A mask that is off by one both ways is a right gradient of another function; its value
    # differs from that of the attention that is meant.
    check_gradients(attention_by_mask(nothing, nothing), *inputs)


def test_a_mask_off_by_one_gives_other_values_than_the_composition():
    q, k, v = square, square.T.copy(), square + 1
    packed = np.concatenate([q, k, v], axis=1)
    meant = ops.attention(packed, heads=1, d_k=4, lengths=np.array([4]), causal=True)
    np.testing.assert_allclose(attention_by_mask(ahead, ahead)(q, k, v), meant)
    late = attention_by_mask(lambda i, j: j > i + 1, ahead)(q, k, v)
    assert abs(late - meant).max() > 1e-3


# What is wrong with memory rather than with numbers.


@op
def centring_in_place(x):
    x -= x.mean()
    return x * 1, lambda dy: dy - dy.mean()


@op
def gradient_that_overwrites_its_input(x):
    def vjp(dy):
        np.multiply(x, 2, out=x)
        return dy * x

    return x * x, vjp


@op
def one_array_for_two_arguments(x, y):
    return x + y, lambda dz: (dz, dz)


@op
def gradient_that_is_its_input(x, y):
    return (x * y).sum(), lambda dz: (y, dz * x)


@op
def gradient_that_cannot_be_written(x):
    return x.sum(), lambda dy: np.broadcast_to(dy, x.shape)


@op
def gradient_over_its_output(x):
    y = np.exp(x)

    def vjp(dy):
        y[...] *= dy
        return y * 1

    return y, vjp


@op
def one_gradient_too_few(x, y, z):
    return x + y + z, lambda dw: (dw, dw.copy())


@op
def promoted_output(x):
    return x * np.float64(2), lambda dy: 2 * dy


@op
def promoted_gradient(x):
    return x * 2, lambda dy: dy * np.float64(2)


@pytest.mark.parametrize("wrong", [centring_in_place, gradient_that_overwrites_its_input])
def test_overwriting_an_input_is_rejected(wrong):
    with pytest.raises(AssertionError, match="input 1 was overwritten"):
        check_gradients(lambda a, x: (a, wrong(x)), np.ones(2), square[0])
    with pytest.raises(AssertionError, match="argument 0 was overwritten"):
        check_contract(wrong.reference, square[0].copy())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (one_array_for_two_arguments, "argument 0 shares memory with the gradient of argument 1"),
        (gradient_that_is_its_input, "argument 0 shares memory with argument 1"),
        (gradient_that_cannot_be_written, "argument 0 is not writable"),
        (gradient_over_its_output, "output 0 was overwritten by the gradient"),
        (one_gradient_too_few, "2 gradients for 3 positional arguments"),
        (promoted_output, "output 0 is float64, of inputs that are float32"),
        (promoted_gradient, "gradient of argument 0 is float64, not float32"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_broken_contract_is_rejected(wrong, complaint):
    arguments = wrong.reference.__code__.co_argcount
    inputs = [square[i].astype(np.float32) for i in range(arguments)]
    with pytest.raises(AssertionError, match=complaint):
        check_contract(wrong.reference, *inputs)


def test_one_array_for_two_arguments_shows_where_one_has_a_second_use():
    def f(x, y):
        return x * 2, one_array_for_two_arguments(x, y)

    with pytest.raises(AssertionError, match="wrong gradient"):
        check_gradients(f, square[0], square[1])
    check_gradients(lambda x, y: (x * 2, ops.add(x, y)), square[0], square[1])


def test_a_gradient_of_the_wrong_shape_is_an_error_naming_the_operation():
    @op
    def rotated(x):
        return x.T, lambda dy: dy

    with pytest.raises(RuntimeError, match=r"gradient of rotated has shape \(2, 3\) .* \(3, 2\)"):
        check_gradients(lambda x: rotated(x * 1), np.ones((3, 2)))

    @op
    def lost(x):
        return x * 1, lambda dy: dy.sum()

    with pytest.raises(RuntimeError, match=r"gradient of lost has shape \(\) .* \(1,\)"):
        check_gradients(lambda x: lost(x * 1), np.ones(1))


def test_inputs_drawn_with_the_same_seed_do_not_hide_a_mistake():
    """A caller's default_rng(0) is not the check's, or x and dy would be the same numbers."""
    x = np.random.default_rng(0).standard_normal((4, 4))
    with pytest.raises(AssertionError, match="wrong gradient"):
        check_gradients(relu_masked_by_the_sign_of_dy, x, seed=0)


def test_too_few_gradients_are_an_error_naming_the_operation():
    with pytest.raises(RuntimeError, match="one_gradient_too_few returned 2 values for 3"):
        check_gradients(one_gradient_too_few, *square[:3])


# check_gradients itself.


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3,), (2, 3), (2, 1, 3)])
def test_an_output_may_have_any_shape(shape):
    check_gradients(ops.tanh, np.asarray(np.random.default_rng(0).standard_normal(shape)))


def test_there_may_be_several_outputs():
    check_gradients(lambda x, y: (x.sum(), x @ y, ops.exp(y)), square, square.T)


def test_an_input_may_be_a_parameter_that_the_function_uses_wherever_it_likes():
    w = Parameter(square)
    check_gradients(lambda x, _: x @ w + w, square[0], w)


def test_a_wrong_gradient_of_a_parameter_is_named():
    w = Parameter(square)
    with pytest.raises(AssertionError, match="wrong gradient for"):
        check_gradients(lambda x, _: softmax_without_the_sum(w) * x, square[0], w)


def test_values_are_restored():
    w, x = Parameter(square.copy()), square[0].copy()
    check_gradients(lambda x, w: x @ w, x, w)
    np.testing.assert_array_equal(w.value, square)
    np.testing.assert_array_equal(x, square[0])
    with pytest.raises(AssertionError):
        check_gradients(softmax_without_the_sum, w)
    np.testing.assert_array_equal(w.value, square)


def test_values_are_restored_where_the_function_fails():
    w, calls = Parameter(square.copy()), []

    def f(w):
        calls.append(w)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return w * 2

    with pytest.raises(KeyboardInterrupt):
        check_gradients(f, w)
    np.testing.assert_array_equal(w.value, square)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_it_needs_float64_and_says_so(dtype):
    with pytest.raises(TypeError, match=f"input 1 is {np.dtype(dtype)}.*float64"):
        check_gradients(lambda x, y: x + y, np.ones(2), np.ones(2, dtype))


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        (lambda x: None, "a NoneType"),
        (lambda x: x.value, "a ndarray"),
        (lambda x: [x, x], "a list"),
        (lambda x: (x, 1.0), "a float in a tuple"),
        (lambda x: (), "an empty one"),
    ],
)
def test_what_returns_no_tensor_is_told(returned, what):
    with pytest.raises(TypeError, match=f"a Tensor, or a tuple of them, and returned {what}$"):
        check_gradients(returned, np.ones(2))


def test_a_function_that_does_not_depend_on_an_input_has_a_gradient_of_zero():
    check_gradients(lambda x, y: x * 2, np.ones(2), np.ones(3))
