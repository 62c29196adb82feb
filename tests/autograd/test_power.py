"""Powers: right derivatives for every base and exponent that have one."""

import numpy as np
import pytest

from autograd import Parameter, Tape, Tensor, check_gradients, ops

BASES = [0.0, 2.0, -2.0, -0.5]


def derivative(base, exponent):
    if exponent == 0:
        return 0.0
    return exponent * float(np.power(base, exponent - 1)) if exponent != 1 else 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [float, int, np.float64, np.array])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4])
def test_whole_exponents_have_a_derivative_everywhere(exponent, form, dtype):
    exponent = form(exponent)
    x = Tensor(np.array(BASES, dtype))
    if isinstance(exponent, np.ndarray):
        exponent = exponent.astype(dtype)
    with np.errstate(all="raise"), Tape() as tape:
        y = x**exponent
    with np.errstate(all="raise"):
        (g,) = tape.backward(y, np.ones(4), wanted=[x])
    assert y.dtype == g.dtype == dtype
    np.testing.assert_allclose(y.value, [b ** int(exponent) for b in BASES])
    np.testing.assert_allclose(g, [derivative(b, int(exponent)) for b in BASES])


@pytest.mark.parametrize("exponent", [-1, -2, 0.5, 1.5, -1.5])
def test_other_exponents_have_a_derivative_where_it_is_finite(exponent):
    check_gradients(lambda x: x**exponent, np.array([0.3, 2.0, 5.0]))
    if exponent == int(exponent):
        check_gradients(lambda x: x**exponent, np.array([-0.5, -2.0]))
    if exponent > 1:
        with Tape() as tape:
            y = (x := Tensor(0.0)) ** exponent
        assert tape.backward(y, wanted=[x])[0] == 0


def test_the_derivative_of_a_root_at_zero_is_infinite():
    x = Tensor(0.0)
    with Tape() as tape:
        y = x**0.5
    with np.errstate(divide="ignore"):
        assert tape.backward(y, wanted=[x])[0] == np.inf


def test_scalars_and_empty_arrays_have_gradients():
    check_gradients(lambda x, y: x**y, np.array(1.5), np.array(-0.7))
    check_gradients(lambda x, y: (x**2, x**y, 2**y), np.zeros((0, 3)), np.zeros((0, 3)))


def test_the_exponent_may_be_a_tensor():
    check_gradients(lambda y: (2**y, 0.5**y, [1.0, 3.0] ** y), np.array([-0.7, 1.3]))
    check_gradients(lambda x, y: x**y, np.array([[0.5], [2.0]]), np.array([0.0, 1.0, -2.5]))
    for base in (2, 2.0, np.float64(2)):
        y = Tensor(np.array([1.0, 2.0], np.float32))
        with Tape() as tape:
            z = base**y
        (g,) = tape.backward(z, np.ones(2), wanted=[y])
        assert z.dtype == g.dtype == np.float32
        np.testing.assert_allclose(g, z.value * np.log(2), rtol=1e-6)


def test_the_gradient_of_an_exponent_of_zero_is_zero():
    x, y = Parameter([0.0, 0.0]), Parameter([2.0, 0.0])
    with np.errstate(all="raise"), Tape() as tape:
        loss = (x**y).sum()
    with np.errstate(all="raise"):
        tape.backward(loss)
    np.testing.assert_array_equal(y.grad, 0)
    np.testing.assert_array_equal(x.grad, 0)


def test_a_constant_exponent_needs_no_logarithm():
    x = Tensor([-2.0, 0.0])
    with np.errstate(all="raise"), Tape() as tape:
        loss = ops.power(x, np.array([2.0, 2.0])).sum()
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(tape.backward(loss, wanted=[x])[0], [-4, 0])
