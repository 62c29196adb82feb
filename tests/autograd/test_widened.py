"""References of 16-bit arrays, computed in float32."""

import numpy as np
import pytest

from autograd import ops
from autograd.widened import in_float32

x = np.linspace(-1, 1, 24, dtype=np.float16).reshape(3, 8)
one = np.ones(1, np.float16)
CASES = {
    "linear": (ops.linear, (x, x.T.copy(), one), {}),
    "layer_norm": (ops.layer_norm, (x, one, x[0]), {}),
    "add_dropout_norm": (ops.add_dropout_norm, (x, x[1], x[0], one), {"site": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_a_broadcast_argument_is_summed(name):
    operation, arrays, settings = CASES[name]
    y, vjp = in_float32(operation.reference, True, arrays, settings)
    assert y.dtype == np.float16
    wide = tuple(a.astype(np.float32) for a in arrays)
    expected, expected_vjp = operation.reference(*wide, **settings)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    dy = np.ones(y.shape, np.float32)
    for a, write, g in zip(arrays, vjp(dy.copy()), expected_vjp(dy.copy()), strict=True):
        out = np.full(a.shape, np.nan, np.float32)
        write(out, False)
        np.testing.assert_allclose(out.sum(), g.sum(), rtol=1e-5, atol=1e-4)
