"""Compiled matrix products: right for any size and layout, without writing anything else."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import ops  # noqa: E402
from autograd.cpu import pool, products, thin  # noqa: E402
from tests.autograd.cpu_cases import compare, fast, results  # noqa: E402
from tests.autograd.drawing import Case, normal32, seeds  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("fresh_memory_is_full_of_garbage"),
    pytest.mark.limit(600),  # the first tests compile loops
]


@st.composite
def affine_maps_of_any_size(draw):
    """Up to several blocks of rows, columns and terms, and also few rows."""
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.one_of(st.integers(1, 2 * thin.MOST_ROWS), st.integers(1, 1200)))
    d_in, d_out = draw(st.integers(1, 1200)), draw(st.integers(1, 600))
    arrays = normal32(rng, n, d_in), normal32(rng, d_in, d_out), normal32(rng, d_out)
    return Case(ops.linear, arrays, {"relu": draw(st.booleans())})


@settings(max_examples=25)
@given(data=st.data())
def test_products_larger_than_the_caches_agree(data):
    case = data.draw(affine_maps_of_any_size())
    compare(case)
    got = []
    for threads in (1, 64):
        with patch.object(pool, "threads", lambda n=threads: n):
            got.append(results(case.op, fast(case.op), case.arrays, case.settings))
    for one, many in zip(*got, strict=True):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("shape", [(64, 8192), (8192, 64), (520, 1024)])
def test_results_too_large_for_the_caches_are_complete(shape):
    rng, terms = np.random.default_rng(0), 40
    x, w, b = (
        normal32(rng, shape[0], terms),
        normal32(rng, terms, shape[1]),
        normal32(rng, shape[1]),
    )
    assert x.shape[0] * w.shape[1] > products.CACHED
    y, vjp = fast(ops.linear)(x, w, b)
    np.testing.assert_allclose(y, x @ w + b, rtol=1e-4, atol=1e-4)
    dx, dw, _ = vjp(y.copy())
    np.testing.assert_allclose(dx, y @ w.T, rtol=1e-4, atol=1e-2)
    out = np.full_like(w, 2)
    dw(out, True)
    np.testing.assert_allclose(out, x.T @ y + 2, rtol=1e-4, atol=1e-1)


@pytest.mark.parametrize("rows", range(1, thin.MOST_ROWS + 2))
def test_products_with_few_rows_and_columns_are_right_every_time(rows):
    rng = np.random.default_rng(0)
    x, w, b = normal32(rng, rows, 3000), normal32(rng, 3000, 4), normal32(rng, 4)
    expected = x @ w + b
    for _ in range(50):
        np.testing.assert_allclose(ops.linear(x, w, b), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(300, 400), (30, 40)])
def test_a_writer_writes_to_arrays_of_any_layout_and_nowhere_else(shape):
    rng = np.random.default_rng(0)
    x, w, dy = normal32(rng, 20, shape[0]), normal32(rng, *shape), normal32(rng, 20, shape[1])
    _, dw = fast(ops.linear)(x, w)[1](dy.copy())
    around = np.full((2 * shape[0], 2 * shape[1]), 7, np.float32)
    outputs = [
        around[: shape[0], : shape[1]],
        around[::2, ::2],
        around[shape[0] - 1 :: -1, : shape[1]],
        np.full(shape[::-1], 7, np.float32).T,
        np.full(shape, 7, np.float64),
    ]
    for out in outputs:
        around[...] = 7
        out[...] = 7
        dw(out, True)
        np.testing.assert_allclose(out, x.T @ dy + 7, rtol=1e-3, atol=1e-3)
        if out.base is around:
            out[...] = 7
            np.testing.assert_array_equal(around, 7)


def test_nan_and_infinity_affect_only_their_row():
    # The last tile is padded with repeated rows and columns, whose products must not be stored.
    rng = np.random.default_rng(0)
    x, w = normal32(rng, 13, 37), normal32(rng, 37, 41)
    x[12, 0] = np.inf
    y = ops.linear(x, w)
    assert np.isfinite(y[:12]).all()
    assert not np.isfinite(y[12]).any()
