"""References of bfloat16 arrays, computed in float32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import ops
from autograd.widened import in_float32
from tests.autograd import cases

bfloat16 = pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 without").bfloat16
x = np.linspace(-1, 1, 24, dtype=bfloat16).reshape(3, 8)
one = np.ones(1, bfloat16)
CASES = {
    "linear": (ops.linear, (x, x.T.copy(), one), {}),
    "feed_forward": (ops.feed_forward, (x, x.T.copy(), one, x, one), {"activation": "swish"}),
    "layer_norm": (ops.layer_norm, (x, one, x[0]), {}),
    "add_dropout_norm": (ops.add_dropout_norm, (x, x[1], x[0], one), {"site": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_a_broadcast_argument_is_summed(name):
    operation, arrays, settings = CASES[name]
    y, vjp = in_float32(operation.reference, has_gradient=True)(*arrays, **settings)
    assert y.dtype == bfloat16
    wide = tuple(a.astype(np.float32) for a in arrays)
    expected, expected_vjp = operation.reference(*wide, **settings)
    np.testing.assert_allclose(y, expected, rtol=1e-2, atol=1e-2)
    dy = np.ones(y.shape, np.float32)
    for a, write, g in zip(arrays, vjp(dy.copy()), expected_vjp(dy.copy()), strict=True):
        out = np.full(a.shape, np.nan, np.float32)
        write(out, False)
        np.testing.assert_allclose(out.sum(), g.sum(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("operation", [o for o in cases.CASES if o._widened], ids=lambda o: o.name)
@settings(max_examples=5)
@given(data=st.data())
def test_operations_that_add_up_bfloat16_do_so_in_float32(operation, data):
    case = data.draw(cases.CASES[operation])
    arrays = [a.astype(bfloat16) for a in case.arrays]
    found = case.run(*arrays)
    expected = operation.reference(*(a.astype(np.float32) for a in arrays), **case.settings)[0]
    if isinstance(expected, tuple):  # losses stay float32
        np.testing.assert_array_equal(found[0], expected[0])
    else:
        assert found.dtype == bfloat16
        np.testing.assert_array_equal(found, expected.astype(bfloat16))


def test_whole_numbers_of_16_bits_are_not_widened():
    assert ops.sum(np.full(3, 30_000, np.int16)) == 90_000
