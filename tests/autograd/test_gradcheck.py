"""check_gradients: the functions and inputs that it accepts, its errors, and what it restores."""

import numpy as np
import pytest

from autograd import Parameter, check_gradients, ops
from tests.autograd.wrong_ops import softmax_without_the_sum, square


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3,), (2, 3), (2, 1, 3)])
def test_an_output_may_have_any_shape(shape):
    check_gradients(ops.tanh, np.asarray(np.random.default_rng(0).standard_normal(shape)))


def test_a_function_may_have_several_outputs():
    check_gradients(lambda x, y: (x.sum(), x @ y, ops.exp(y)), square, square.T)


def test_an_input_may_be_a_parameter_that_the_function_captures():
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


def test_values_are_restored_if_the_function_fails():
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
def test_inputs_must_be_float64(dtype):
    with pytest.raises(TypeError, match=f"input 1 must be float64.*got {np.dtype(dtype)}"):
        check_gradients(lambda x, y: x + y, np.ones(2), np.ones(2, dtype))


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        (lambda x: None, "a NoneType"),
        (lambda x: x.value, "a ndarray"),
        (lambda x: [x, x], "a list"),
        (lambda x: (x, 1.0), "a float in a tuple"),
        (lambda x: (), "an empty tuple"),
    ],
)
def test_a_function_that_returns_no_tensor_is_an_error(returned, what):
    with pytest.raises(TypeError, match=f"a Tensor, or a tuple of them; it returned {what}$"):
        check_gradients(returned, np.ones(2))


def test_a_function_that_does_not_depend_on_an_input_has_a_gradient_of_zero():
    check_gradients(lambda x, y: x * 2, np.ones(2), np.ones(3))
