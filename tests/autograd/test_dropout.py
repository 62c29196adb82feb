"""Dropout: the published random numbers, the right rate, and masks that can be replayed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import DropoutSite, DropoutStream, backend, ops, references, to_host
from autograd.dropout import philox
from autograd.ops.large.packed_attention import HEAD_COLUMNS

# Random123's kat_vectors for philox4x32 with 10 rounds: counter, key, result.
PUBLISHED = {
    "zeros": (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    "ones": (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    "digits of pi": (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


def words(text):
    return [int(w, 16) for w in text.split()]


def arrays_of_words(backend, text):
    return tuple(backend.asarray(np.array([w], np.uint64)) for w in words(text))


@pytest.mark.parametrize("name", ["numpy", "strict"])
@pytest.mark.parametrize("vector", PUBLISHED)
def test_philox_generates_the_published_numbers(vector, name):
    counter, key, result = PUBLISHED[vector]
    got = philox(arrays_of_words(backend.backend(name), counter), tuple(words(key)))
    assert [int(w[0]) for w in got] == words(result)


def test_philox_takes_counters_that_broadcast():
    rows, columns = np.arange(3, dtype=np.uint64)[:, None], np.arange(4, dtype=np.uint64)[None]
    one = np.ones((1, 1), np.uint64)
    together = philox((rows, columns, one, one * 2), (5, 6))
    for i in range(3):
        for j in range(4):
            alone = philox((rows[i], columns[:, j], one, one * 2), (5, 6))
            assert [int(w[i, j]) for w in together] == [int(w.item()) for w in alone]


rates = st.floats(0.01, 0.95)
sites = st.builds(
    DropoutSite,
    rate=rates,
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    site=st.integers(0, 2**32 - 1),
    row=st.integers(0, 2**31),
)


@given(site=sites)
def test_the_share_of_dropped_elements_is_the_rate(site):
    keep = site.keep_matrix(np, 128, 200)
    deviation = np.sqrt(site.rate * (1 - site.rate) / keep.size)
    assert abs((1 - keep.mean()) - site.rate) < 5 * deviation + 1 / 65536
    for axis in (0, 1):  # in every row and every column, too
        shares = 1 - keep.mean(axis=axis)
        deviation = np.sqrt(site.rate * (1 - site.rate) / keep.shape[axis])
        assert shares.std() == pytest.approx(deviation, rel=0.4)


@given(rate=st.floats(0.001, 0.99999))
def test_the_scale_keeps_the_expectation(rate):
    site = DropoutSite(rate, seed=0, step=0, site=0)
    kept = 1 - site.threshold / 65536
    assert site.scale * kept == pytest.approx(1)
    assert site.threshold / 65536 == pytest.approx(rate, abs=1 / 65536)


@given(site=sites)
def test_kept_elements_are_scaled_and_the_others_are_zero(site):
    x = np.random.default_rng(0).uniform(1, 2, (5, 11))
    with references():
        y = ops.dropout(x, site=site)
    keep = site.keep_matrix(np, 5, 11)
    np.testing.assert_array_equal(y != 0, keep)
    np.testing.assert_allclose(y[keep], x[keep] * site.scale)


@given(site=sites, rows=st.integers(0, 5), columns=st.integers(1, 20))
def test_a_mask_can_be_replayed(site, rows, columns):
    again = DropoutSite(site.rate, site.seed, site.step, site.site, site.row)
    np.testing.assert_array_equal(
        site.keep_matrix(np, rows, columns), again.keep_matrix(np, rows, columns)
    )


@given(site=sites, columns=st.integers(1, 20), data=st.data())
def test_the_mask_of_a_part_of_a_batch_is_that_part_of_the_mask(site, columns, data):
    rows = data.draw(st.integers(1, 12))
    start = data.draw(st.integers(0, rows))
    whole = site.keep_matrix(np, rows, columns)
    stream = DropoutStream(site.seed, site.step, site.row)
    part = stream.at_row(site.row + start).site(site.site, site.rate)
    np.testing.assert_array_equal(whole[start:], part.keep_matrix(np, rows - start, columns))


@given(site=sites, width=st.integers(1, 20), data=st.data())
def test_the_mask_of_fewer_columns_is_that_part_of_the_mask(site, width, data):
    fewer = data.draw(st.integers(1, width))
    whole = site.keep_matrix(np, 4, width)
    np.testing.assert_array_equal(whole[:, :fewer], site.keep_matrix(np, 4, fewer))


@given(site=sites, rows=st.integers(0, 5), columns=st.integers(1, 20))
def test_the_mask_of_scattered_elements_is_that_of_the_matrix(site, rows, columns):
    got = site.keep(np, np.arange(rows)[:, None], np.arange(columns)[None, :])
    np.testing.assert_array_equal(got, site.keep_matrix(np, rows, columns))


@given(site=sites)
def test_every_backend_makes_the_same_mask(site):
    strict = backend.backend("strict")
    there = site.keep_matrix(strict.xp, 5, 19)
    np.testing.assert_array_equal(to_host(there), site.keep_matrix(np, 5, 19))
    rows = strict.asarray(np.arange(5)[:, None])
    columns = strict.asarray(np.arange(19)[None, :] + HEAD_COLUMNS)
    there = site.keep(strict.xp, rows, columns)
    np.testing.assert_array_equal(to_host(there), site.keep(np, to_host(rows), to_host(columns)))


def agreement(a, b):
    """The correlation of two masks."""
    return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])


BASE = {"seed": 3, "step": 5, "site": 7, "row": 11}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"seed": 3 + 2**32},  # the key has 64 bits
        {"step": 6},
        {"site": 8},
        {"row": 11 + 100},
        {"step": 7, "site": 5},
    ],
    ids=str,
)
def test_masks_of_different_seeds_steps_sites_and_rows_are_independent(change):
    a = DropoutSite(0.5, **BASE).keep_matrix(np, 100, 200)
    b = DropoutSite(0.5, **{**BASE, **change}).keep_matrix(np, 100, 200)
    assert agreement(a, b) < 5 / np.sqrt(a.size)


def test_neighbouring_elements_are_independent():
    a = DropoutSite(0.5, **BASE).keep_matrix(np, 200, 200)
    for rows, columns in [(0, 1), (0, 2), (0, 7), (0, 8), (1, 0), (1, 1)]:
        shifted = a[rows:, columns:]
        assert agreement(a[: len(shifted), : shifted.shape[1]], shifted) < 5 / np.sqrt(a.size)


def test_heads_of_attention_have_independent_masks():
    site = DropoutSite(0.5, **BASE)
    rows, columns = np.arange(64)[:, None], np.arange(64)[None, :]
    a, b = (site.keep(np, rows, columns + head * HEAD_COLUMNS) for head in (0, 1))
    assert agreement(a, b) < 5 / 64


def test_without_a_site_nothing_is_dropped():
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(ops.dropout(x, site=None), x)


def test_a_rate_of_zero_gives_no_site():
    assert DropoutStream(seed=1, step=2).site(3, 0.0) is None


def test_a_stream_passes_seed_step_and_row_to_its_sites():
    stream = DropoutStream(seed=1, step=2, row=3)
    assert stream.site(4, 0.5) == DropoutSite(0.5, seed=1, step=2, site=4, row=3)
    assert stream.at_row(9).site(4, 0.5) == DropoutSite(0.5, seed=1, step=2, site=4, row=9)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"dropout rate must be in \[0, 1\), got"):
        DropoutStream(seed=0, step=0).site(0, rate)
    with pytest.raises(ValueError, match=r"dropout rate must be in \[0, 1\), got"):
        DropoutSite(rate, seed=0, step=0, site=0)


def test_the_largest_rate_below_one_keeps_some_elements():
    site = DropoutStream(seed=0, step=0).site(0, float(np.nextafter(1, 0)))
    assert np.isfinite(site.scale)
    assert 0 < site.keep_matrix(np, 1000, 1000).mean() < 1e-3


@pytest.mark.parametrize("name", ["seed", "step", "site", "row"])
def test_numbers_of_a_site_may_be_numpy_integers(name):
    one = DropoutSite(0.5, **{"seed": 1, "step": 2, "site": 3, "row": 4, name: np.int64(5)})
    assert one == DropoutSite(0.5, **{"seed": 1, "step": 2, "site": 3, "row": 4, name: 5})
    assert type(getattr(one, name)) is int
    with pytest.raises(TypeError):
        DropoutSite(0.5, **{"seed": 1, "step": 2, "site": 3, name: 2.5})


@pytest.mark.parametrize("name", ["step", "site", "row"])
@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_numbers_beyond_32_bits_are_refused(name, number):
    with pytest.raises(ValueError, match=f"a dropout's {name} must be 0 to 4,294,967,295, got"):
        DropoutSite(0.5, **{"seed": 1, "step": 2, "site": 3, name: number})


# Rows are numbers of 32 bits, which wrap around, wherever a mask is generated.


@pytest.mark.parametrize("rows_from_the_end", [0, 1, 3])
def test_rows_wrap_around_after_32_bits(rows_from_the_end):
    start = 2**32 - rows_from_the_end - 1
    site = DropoutSite(0.5, seed=3, step=5, site=7, row=start)
    from_zero = DropoutSite(0.5, seed=3, step=5, site=7)
    whole = site.keep_matrix(np, 40, 24)
    before = rows_from_the_end + 1
    np.testing.assert_array_equal(whole[before:], from_zero.keep_matrix(np, 40 - before, 24))
    rows, columns = np.arange(40)[:, None], np.arange(24)[None, :]
    np.testing.assert_array_equal(whole, site.keep(np, rows, columns))
    np.testing.assert_array_equal(whole, from_zero.keep(np, rows + start, columns))
    for i, row in enumerate(whole):
        alone = DropoutSite(0.5, seed=3, step=5, site=7, row=(start + i) % 2**32)
        np.testing.assert_array_equal(row, alone.keep_matrix(np, 1, 24)[0])


def on_strict(number: int, dtype: type = np.uint32) -> object:
    return backend.backend("strict").asarray(np.array(number, dtype))


@pytest.mark.parametrize("row", [7, 2**32 - 2])
def test_masks_read_step_and_row_from_arrays_on_a_device(row):
    x = backend.backend("strict").asarray(np.ones((5, 24)))
    expected = ops.dropout(x, site=DropoutStream(3, 11, row).site(4, 0.3))
    step, first = on_strict(0), on_strict(0)
    site = DropoutStream(3, step).at_row(first).site(4, 0.3)
    step[...], first[...] = 11, row  # they count as they are when the mask is made
    np.testing.assert_array_equal(to_host(ops.dropout(x, site=site)), to_host(expected))
    kept = DropoutSite(0.3, 3, 11, 4, row).keep(np, np.arange(5)[:, None], np.arange(24)[None])
    rows, columns = (backend.backend("strict").asarray(np.arange(n)) for n in (5, 24))
    found = site.keep(backend.backend("strict").xp, rows[:, None], columns[None])
    np.testing.assert_array_equal(to_host(found), kept)


@pytest.mark.parametrize("name", ["step", "row"])
def test_a_step_or_row_on_a_device_that_kernels_would_misread_is_refused(name):
    for wrong in (on_strict(1, np.int64), on_strict(1, np.float32)):
        with pytest.raises(TypeError, match=f"{name} on a device must be one 32-bit integer"):
            DropoutStream(**{"seed": 3, "step": 1, name: wrong}).site(4, 0.3)
