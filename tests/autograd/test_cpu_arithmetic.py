"""Elementwise compiled functions: exp, the maximum of a row, dropout's masks, and Adam."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import DropoutSite, ops  # noqa: E402
from autograd.cpu import philox, vector  # noqa: E402
from autograd.cpu.loops import parallel_loop  # noqa: E402
from autograd.cpu.registers import LANES, store  # noqa: E402
from tests.autograd.drawing import normal32, seeds  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("fresh_memory_is_full_of_garbage"),
    pytest.mark.limit(600),  # the first tests compile loops
]

words = st.integers(0, 2**32 - 1)


@parallel_loop
def _factors(task, mask, row, column, factors):
    """The factors of a block: [rows, columns] in whole vectors, whose first element is given."""
    rows, columns = factors.shape
    kept = philox.bits_for(rows, columns)
    philox.draw(kept, mask, row, rows, column, columns)
    for i in range(rows):
        for j in range(0, columns, LANES):
            store(factors, i, j, philox.factors_of(kept, mask, i, j, columns))


@parallel_loop
def _exp(i, x):
    x[i] = vector.exp(x[i])


@parallel_loop
def _largest(i, rows, found):
    found[i] = vector.largest(rows[i])


@given(
    site=st.builds(DropoutSite, st.floats(0, 0.9999), seeds, words, words, words),
    rows=st.integers(1, 20),
    vectors=st.integers(1, 12),
    row=st.integers(0, 10**6),
    group=st.integers(0, 1 << 20),
)
def test_masks_agree_with_their_reference(site, rows, vectors, row, group):
    columns, column = vectors * LANES, group * philox.MASKED
    factors = np.full((rows, columns), np.nan, np.float32)
    _factors(1, philox.mask_of(site), row, column, factors)
    at = np.arange(rows)[:, None] + row, np.arange(columns)[None, :] + column
    expected = np.where(site.keep(np, *at), np.float32(site.scale), np.float32(0))
    np.testing.assert_array_equal(factors, expected)


def test_exp_is_within_three_units_in_the_last_place():
    x = np.linspace(-86.9, 88, 100_001, dtype=np.float32)
    got = np.concatenate([x, np.float32([-np.inf, np.nan])])
    _exp(len(got), got)
    np.testing.assert_allclose(got[:-2], np.exp(x.astype(np.float64)), rtol=3 * 2**-23)
    assert got[-2] == 0
    assert np.isnan(got[-1])


@pytest.mark.parametrize("activation", [ops.swish, ops.gelu], ids=lambda o: o.name)
def test_activations_agree_with_their_references_in_the_last_digits(activation):
    x = np.linspace(-12, 30, 100_001, dtype=np.float32)
    odd = np.float32([np.nan, np.inf, -np.inf, 1e10, -1e10, 0])
    y, _ = activation.reference(x.astype(np.float64))
    np.testing.assert_allclose(activation(x[None])[0], y, rtol=3e-6, atol=1e-7)
    with np.errstate(invalid="ignore"):
        expected, _ = activation.reference(odd)
    np.testing.assert_array_equal(activation(odd[None])[0], expected)


@given(seed=seeds, size=st.integers(1, 100), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_the_largest_number_of_a_row_agrees_with_numpy(seed, size, scale):
    x = normal32(np.random.default_rng(seed), size) * np.float32(scale)
    rows, found = np.stack([x, abs(x), -abs(x)]), np.empty(3, np.float32)
    _largest(3, rows, found)
    np.testing.assert_array_equal(found, rows.max(axis=1))


@given(seed=seeds, size=st.integers(0, 50_000), scale=st.sampled_from([1.0, 0.1]))
def test_adam_agrees_with_its_reference(seed, size, scale):
    rng = np.random.default_rng(seed)
    values, grads, first = (normal32(rng, size) for _ in range(3))
    second = normal32(rng, size) ** 2
    chosen = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 7}
    got = values.copy(), grads.copy(), first.copy(), second.copy()
    expected = [x.astype(np.float64) for x in got]
    ops.adam_step(*got, **chosen, scale=scale)
    ops.adam_step.reference(*expected, **chosen, scale=scale)
    np.testing.assert_array_equal(got[1], grads)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@given(seed=seeds, size=st.integers(0, 50_000))
def test_the_squared_norm_is_summed_in_float64(seed, size):
    x = normal32(np.random.default_rng(seed), size)
    got = ops.squared_norm(x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (x.astype(np.float64) ** 2).sum(), rtol=1e-7)
