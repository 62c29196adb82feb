"""The checks reject deliberately wrong operations, and name the input."""

import numpy as np
import pytest

from autograd import Sentences, check_gradients, op, ops
from tests.autograd.contract import check_contract
from tests.autograd.wrong_ops import (
    WRONG,
    ahead,
    attention_by_mask,
    nothing,
    relu_masked_by_the_sign_of_dy,
    square,
)


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_gradient_is_rejected(mistake):
    wrong, inputs, _ = WRONG[mistake]
    with pytest.raises(AssertionError, match="wrong gradient for"):
        check_gradients(wrong, *inputs)


@pytest.mark.parametrize("mistake", WRONG)
def test_the_message_names_the_input_the_expected_and_the_computed_change(mistake):
    """The other inputs are constant, so that only the gradient of this one is tested."""
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
    loudness = 1e9  # hides the error of all inputs together, but not that of the input
    with pytest.raises(AssertionError, match=f"input 2.*{expected_and_computed}"):
        check_gradients(of_three, np.zeros(2), np.ones(3), inputs[guilty])


def test_the_right_attention_passes():
    inputs = square, square.T.copy(), square + 1
    check_gradients(attention_by_mask(ahead, ahead), *inputs)
    # A wrong mask in both passes has the right gradient of another function. Its values differ
    # from those of attention.
    check_gradients(attention_by_mask(nothing, nothing), *inputs)


def test_a_mask_off_by_one_gives_other_values_than_attention():
    q, k, v = square, square.T.copy(), square + 1
    packed = np.concatenate([q, k, v], axis=1)
    expected = ops.attention(packed, heads=1, d_k=4, sentences=Sentences([4]), causal=True)
    np.testing.assert_allclose(attention_by_mask(ahead, ahead)(q, k, v), expected)
    late = attention_by_mask(lambda i, j: j > i + 1, ahead)(q, k, v)
    assert abs(late - expected).max() > 1e-3


# Broken contracts: memory that is overwritten or shared, wrong shapes and dtypes.


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


def test_one_array_for_two_gradients_is_rejected_if_an_argument_is_used_twice():
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
    """The check does not draw dy from default_rng(0), or it could equal the caller's x."""
    x = np.random.default_rng(0).standard_normal((4, 4))
    with pytest.raises(AssertionError, match="wrong gradient"):
        check_gradients(relu_masked_by_the_sign_of_dy, x, seed=0)


def test_too_few_gradients_are_an_error_naming_the_operation():
    with pytest.raises(RuntimeError, match="one_gradient_too_few returned 2 values for 3"):
        check_gradients(one_gradient_too_few, *square[:3])
