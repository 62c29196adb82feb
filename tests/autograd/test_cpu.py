"""The compiled loops do what the references do, at any shape, and on any number of threads."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import Tape, Tensor, dropout, ops, references, watching  # noqa: E402
from autograd.cpu import (  # noqa: E402
    cross_entropy,
    loops,
    philox,
    pool,
    products,
    thin,
    vector,
)
from tests.autograd.cases import Case, normal32, seeds, sites  # noqa: E402
from tests.autograd.contract import check_contract  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("fresh_memory_is_full_of_garbage"),
    pytest.mark.limit(600),  # the first of them compile
]

rows = st.integers(0, 3 * loops.ROWS)  # up to some blocks of rows
widths = st.integers(1, 70)  # whole vector registers and others
normed_widths = st.integers(3, 70)  # a row of one has no variance, and of two perhaps hardly any


@st.composite
def dropouts(draw):
    rng = np.random.default_rng(draw(seeds))
    return Case(ops.dropout, (normal32(rng, draw(rows), draw(widths)),), {"site": draw(sites)})


@st.composite
def layer_norms(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(normed_widths)
    return Case(
        ops.layer_norm,
        (normal32(rng, n, d), normal32(rng, d), normal32(rng, d)),
        {"epsilon": draw(st.sampled_from([1e-6, 1e-2]))},
    )


@st.composite
def residual_norms(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(normed_widths)
    arrays = normal32(rng, n, d), normal32(rng, n, d), normal32(rng, d), normal32(rng, d)
    return Case(ops.add_dropout_norm, arrays, {"site": draw(sites), "epsilon": 1e-2})


@st.composite
def affine_maps(draw):
    rng, n = np.random.default_rng(draw(seeds)), draw(rows)
    d_in, d_out = draw(widths), draw(widths)
    arrays = normal32(rng, n, d_in), normal32(rng, d_in, d_out), normal32(rng, d_out)
    with_bias = draw(st.booleans())
    return Case(ops.linear, arrays if with_bias else arrays[:2], {"relu": draw(st.booleans())})


@st.composite
def embeddings(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(widths)
    vocabulary, length = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    arrays = (normal32(rng, vocabulary, d),)
    some_kind = draw(st.sampled_from([np.int64, np.int32]))
    chosen = {
        "ids": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n, some_kind),
        "scale": draw(st.sampled_from([1.0, 3.0])),
        "site": draw(sites),
    }
    if draw(st.booleans()):
        arrays += (normal32(rng, length, d),)
        chosen["places"] = rng.integers(0, length, n, some_kind)
    return Case(ops.embedding, arrays, chosen)


@st.composite
def attentions(draw):
    rng = np.random.default_rng(draw(seeds))
    heads, d_k, d_v = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lengths = np.array(draw(st.lists(st.integers(0, 40), max_size=5)), np.int64)
    chosen = {"heads": heads, "d_k": d_k, "lengths": lengths}
    chosen |= {"causal": draw(st.booleans()), "site": draw(sites)}
    if draw(st.booleans()):
        arrays = (normal32(rng, lengths.sum(), heads * (2 * d_k + d_v)),)
    else:
        chosen["key_lengths"] = rng.permutation(rng.integers(0, 40, len(lengths)))
        keys = chosen["key_lengths"].sum()
        arrays = normal32(rng, lengths.sum(), heads * d_k), normal32(rng, keys, heads * (d_k + d_v))
    return Case(ops.attention, arrays, chosen)


@st.composite
def cross_entropies(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(widths)
    vocabulary = draw(st.integers(2, 200))
    chosen = {
        "targets": rng.integers(0, vocabulary, n),
        "smoothing": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "spread": draw(st.sampled_from(["vocabulary", "others"])),
    }
    return Case(
        ops.projected_cross_entropy, (normal32(rng, n, d), normal32(rng, vocabulary, d)), chosen
    )


FAST = {
    ops.dropout: dropouts(),
    ops.layer_norm: layer_norms(),
    ops.add_dropout_norm: residual_norms(),
    ops.linear: affine_maps(),
    ops.embedding: embeddings(),
    ops.attention: attentions(),
    ops.projected_cross_entropy: cross_entropies(),
}
every_op = pytest.mark.parametrize("operation", FAST, ids=lambda o: o.name)


def fast(op):
    """The implementation that runs for float32."""
    return op.implementation(np.zeros(1, np.float32))


@contextmanager
def no_pool():
    """Loops run on the calling thread alone, as they do while another thread has the pool."""
    with patch.object(pool, "address", lambda watch: 0):
        yield


def results(implementation, arrays, chosen):
    with Tape():  # without one, no gradient can be asked for, and so none is prepared
        outputs, gradients = check_contract(implementation, *arrays, **chosen)
    return outputs + gradients


def assert_as_exact(got, reference, truth):
    """Within 1e-5 of the norm, or as close to the float64 result as the float32 reference is."""
    for x, r, t in zip(got, reference, truth, strict=True):
        assert x.shape == r.shape
        error, size = np.linalg.norm(x - t), np.linalg.norm(t)
        assert error <= 1e-5 * size + 4 * np.linalg.norm(r - t) + 1e-6


def compare(case):
    wide = tuple(x.astype(np.float64) for x in case.arrays)
    assert_as_exact(
        results(fast(case.op), case.arrays, case.settings),
        results(case.op.reference, case.arrays, case.settings),
        results(case.op.reference, wide, case.settings),
    )


@every_op
@settings(max_examples=40)
@given(data=st.data())
def test_every_loop_agrees_with_its_reference(operation, data):
    compare(data.draw(FAST[operation]))


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_loops_that_run_alone_agree_too(operation, data):
    with no_pool():
        compare(data.draw(FAST[operation]))


def every_second(x):
    between = np.nan if x.dtype.kind == "f" else -9
    wide = np.full(tuple(2 * n for n in x.shape), between, x.dtype)
    view = wide[(..., *(slice(None, None, 2) for _ in x.shape))]
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@every_op
@pytest.mark.parametrize("layout", [every_second, read_only])
@settings(max_examples=5)
@given(data=st.data())
def test_the_layout_of_inputs_does_not_matter(operation, layout, data):
    case = data.draw(FAST[operation])
    moved = {k: layout(v) if isinstance(v, np.ndarray) else v for k, v in case.settings.items()}
    plain = results(fast(operation), case.arrays, case.settings)
    for got, expected in zip(
        results(fast(operation), tuple(map(layout, case.arrays)), moved), plain, strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_a_writer_adds_to_what_is_there(operation, data):
    case = data.draw(FAST[operation])

    def gradients():
        with Tape():
            value, vjp = fast(operation)(*case.arrays, **case.settings)
        ones = tuple(map(np.ones_like, value)) if isinstance(value, tuple) else np.ones_like(value)
        got = vjp(ones)
        return got if isinstance(got, tuple) else (got,)

    for x, write, add in zip(case.arrays, gradients(), gradients(), strict=True):
        if callable(write):
            written, added = np.full_like(x, np.nan), np.full_like(x, 3)
            write(written, False)
            add(added, True)
            np.testing.assert_allclose(added, written + 3, rtol=1e-5, atol=1e-4)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_results_do_not_depend_on_the_number_of_threads(operation, data):
    case = data.draw(FAST[operation])
    ops.linear(np.ones((64, 64), np.float32), np.ones((64, 64), np.float32))  # there is a pool now
    got = []
    for threads in (1, 2, 7):
        with patch.object(pool, "threads", lambda n=threads: n):
            got.append(results(fast(operation), case.arrays, case.settings))
    for other in got[1:]:
        for one, many in zip(got[0], other, strict=True):
            np.testing.assert_array_equal(one, many)


@st.composite
def affine_maps_of_any_size(draw):
    """Up to some blocks of rows, columns and terms; few rows, too."""
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.one_of(st.integers(1, 2 * thin.MOST_ROWS), st.integers(1, 1200)))
    d_in, d_out = draw(st.integers(1, 1200)), draw(st.integers(1, 600))
    arrays = normal32(rng, n, d_in), normal32(rng, d_in, d_out), normal32(rng, d_out)
    return Case(ops.linear, arrays, {"relu": draw(st.booleans())})


@settings(max_examples=25)
@given(data=st.data())
def test_products_larger_than_the_caches_agree_too(data):
    case = data.draw(affine_maps_of_any_size())
    compare(case)
    got = []
    for threads in (1, 64):
        with patch.object(pool, "threads", lambda n=threads: n):
            got.append(results(fast(case.op), case.arrays, case.settings))
    for one, many in zip(*got, strict=True):
        np.testing.assert_array_equal(one, many)


@st.composite
def losses_of_large_vocabularies(draw):
    """Some panels of the vocabulary, the last of which may be short; logits far apart."""
    rng, n, d = np.random.default_rng(draw(seeds)), draw(st.integers(1, 600)), draw(widths)
    vocabulary = draw(st.sampled_from([1023, 1024, 1025, 2048, 2500]))
    x, weight = normal32(rng, n, d), normal32(rng, vocabulary, d)
    if draw(st.booleans()):  # the largest logits of two panels, e^60 apart
        x[:, 0], weight[:, 0] = 1, 0
        weight[:1024, 0] += draw(st.sampled_from([-60, 60]))
    chosen = {"targets": rng.integers(0, vocabulary, n), "smoothing": 0.1}
    return Case(ops.projected_cross_entropy, (x, weight), chosen)


@settings(max_examples=15)
@given(data=st.data())
def test_the_loss_goes_over_panels_of_the_vocabulary(data):
    compare(data.draw(losses_of_large_vocabularies()))


@pytest.mark.parametrize("shape", [(64, 8192), (8192, 64), (520, 1024)])
def test_results_written_past_the_caches_are_whole(shape):
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
def test_few_rows_and_fewer_columns_are_each_written_once(rows):
    rng = np.random.default_rng(0)
    x, w, b = normal32(rng, rows, 3000), normal32(rng, 3000, 4), normal32(rng, 4)
    expected = x @ w + b
    for _ in range(50):
        np.testing.assert_allclose(ops.linear(x, w, b), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(300, 400), (30, 40)])
def test_a_writer_writes_to_any_layout_and_nowhere_else(shape):
    rng = np.random.default_rng(0)
    x, w, dy = normal32(rng, 20, shape[0]), normal32(rng, *shape), normal32(rng, 20, shape[1])
    _, dw = fast(ops.linear)(x, w)[1](dy.copy())
    around = np.full((2 * shape[0], 2 * shape[1]), 7, np.float32)
    places = [
        around[: shape[0], : shape[1]],
        around[::2, ::2],
        around[shape[0] - 1 :: -1, : shape[1]],
        np.full(shape[::-1], 7, np.float32).T,
        np.full(shape, 7, np.float64),
    ]
    for out in places:
        around[...] = 7
        out[...] = 7
        dw(out, True)
        np.testing.assert_allclose(out, x.T @ dy + 7, rtol=1e-3, atol=1e-3)
        if out.base is around:
            out[...] = 7
            np.testing.assert_array_equal(around, 7)


@pytest.mark.parametrize("rows", [4, 20])
def test_dtypes_are_not_mixed_up(rows):
    rng = np.random.default_rng(0)
    x, w = normal32(rng, rows, 64), rng.standard_normal((64, 96))
    np.testing.assert_allclose(ops.linear(x, w), x @ w)
    whole = ops.linear(x, np.ones((64, 96), np.int8))
    np.testing.assert_allclose(whole[:, 0], x.sum(axis=1), rtol=1e-5)
    targets = np.zeros(rows, int)
    got = ops.projected_cross_entropy(x, w.T, targets=targets)
    expected, _ = ops.projected_cross_entropy.reference(x, w.T, targets=targets)
    np.testing.assert_allclose(got, expected)
    with pytest.raises(TypeError, match="float64"):
        ops.cached_attention(
            x[:, None, :4], np.ones((rows, 3, 8)), heads=1, d_k=4, slots=targets[:, None], length=3
        )


def test_a_product_of_what_is_not_finite_spoils_its_own_row_alone():
    # The last tile repeats rows and fills up columns; what it makes of them must go nowhere.
    rng = np.random.default_rng(0)
    x, w = normal32(rng, 13, 37), normal32(rng, 37, 41)
    x[12, 0] = np.inf
    y = ops.linear(x, w)
    assert np.isfinite(y[:12]).all()
    assert not np.isfinite(y[12]).any()


@every_op
def test_float64_runs_the_reference(operation):
    assert operation.implementation(np.zeros(1)) is operation.reference


words = st.integers(0, 2**32 - 1)


@given(counter=st.tuples(words, words, words, words), key=st.tuples(words, words))
def test_philox_is_the_references(counter, key):
    expected = dropout.philox(tuple(np.array([c], np.uint64) for c in counter), key)
    got = philox.philox(*map(np.uint64, (*counter, *key)))
    assert [int(w) for w in got] == [int(w[0]) for w in expected]


@given(n=rows, d=widths, site=sites.filter(bool))
def test_dropout_masks_are_the_references_bit_for_bit(n, d, site):
    y, vjp = fast(ops.dropout)(np.ones((n, d), np.float32), site=site)
    expected = np.where(site.keep_matrix(np, n, d), np.float32(site.scale), np.float32(0))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(vjp(np.ones((n, d), np.float32)), expected)


@given(heads=st.integers(1, 3), m=st.integers(1, 40), site=sites.filter(bool))
def test_attention_drops_the_weights_that_the_reference_drops(heads, m, site):
    # Equal scores and one value a key that is 1: y tells which keys were kept.
    arrays = np.zeros((1, heads), np.float32), np.zeros((m, heads * (1 + m)), np.float32)
    arrays[1][:, heads:] = np.tile(np.eye(m), heads)
    chosen = {"heads": heads, "d_k": 1, "lengths": np.array([1]), "key_lengths": np.array([m])}
    got = ops.attention(*arrays, **chosen, site=site)
    expected, _ = ops.attention.reference(*arrays, **chosen, site=site)
    np.testing.assert_array_equal(got > 0, expected > 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sentence_does_not_see_its_neighbours(causal, bad):
    # A thread goes from sentence to sentence with one matrix for the scores: what it still holds of
    # an earlier one, right of the diagonal or up to whole vectors, must not count.
    rng = np.random.default_rng(0)
    lengths, heads, d_k = np.tile([5, 3, 18], 40), 2, 20
    tokens, spoilt = lengths.sum(), np.repeat(np.arange(len(lengths)) % 3 == 1, lengths)
    qkv, dy = normal32(rng, tokens, 3 * heads * d_k), normal32(rng, tokens, heads * d_k)
    chosen = {"heads": heads, "d_k": d_k, "lengths": lengths, "causal": causal}

    def passes():
        with Tape():
            y, vjp = fast(ops.attention)(qkv, **chosen)
        return y, vjp(dy)

    y, dqkv = passes()
    qkv[spoilt], dy[spoilt] = bad, bad
    spoilt_y, spoilt_dqkv = passes()
    np.testing.assert_array_equal(spoilt_y[~spoilt], y[~spoilt])
    np.testing.assert_array_equal(spoilt_dqkv[~spoilt], dqkv[~spoilt])
    assert not np.isfinite(spoilt_y[spoilt]).any()


def test_exp_is_within_three_units_in_the_last_place():
    x = np.linspace(-86.9, 88, 100_001, dtype=np.float32)
    np.testing.assert_allclose(
        [vector.exp(v) for v in x], np.exp(x.astype(np.float64)), rtol=3 * 2**-23
    )
    assert vector.exp(np.float32(-np.inf)) == 0
    assert np.isnan(vector.exp(np.float32(np.nan)))


@given(seed=seeds, size=st.integers(1, 100), scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_the_largest_number_of_a_row(seed, size, scale):
    x = normal32(np.random.default_rng(seed), size) * np.float32(scale)
    for row in (x, abs(x), -abs(x)):
        assert vector.largest(row) == row.max()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 40])
def test_what_is_not_finite_is_not_hidden(bad, row):
    rng = np.random.default_rng(0)
    x, w = normal32(rng, 41, 40), normal32(rng, 40, 40)
    x[row, 7] = bad
    loss, _ = ops.projected_cross_entropy(x, w, targets=np.zeros(41, int))
    assert not np.isfinite(loss)
    assert np.isnan(ops.layer_norm(x, w[0], w[0])[row]).all()
    hidden = ops.linear(x, w, w[0], relu=True)
    assert not np.isfinite(hidden[row]).all()
    assert np.isfinite(hidden[:row]).all()
    y = ops.attention(
        np.concatenate([x, x, x], axis=1), heads=1, d_k=40, lengths=np.array([20, 20, 1])
    )
    assert not np.isfinite(y[row]).all()
    assert np.isfinite(y[20:40]).all()


def test_the_loss_is_the_same_without_a_tape_and_its_gradient_is_refused():
    rng = np.random.default_rng(0)
    tokens = 2 * cross_entropy.ROWS + 3
    arrays, chosen = (normal32(rng, tokens, 8), normal32(rng, 30, 8)), {"smoothing": 0.1}
    chosen["targets"] = rng.integers(0, 30, tokens)
    losses, vjp = fast(ops.projected_cross_entropy)(*arrays, **chosen)
    with Tape():
        recorded, _ = fast(ops.projected_cross_entropy)(*arrays, **chosen)
    np.testing.assert_allclose(losses, recorded, rtol=1e-6)
    with pytest.raises(RuntimeError, match="no tape"):
        vjp((np.float32(1), np.float32(0)))
    _, vjp = fast(ops.attention)(normal32(rng, 3, 6), heads=1, d_k=2, lengths=np.array([3]))
    with pytest.raises(RuntimeError, match="no tape"):
        vjp(normal32(rng, 3, 2))


def test_a_row_that_a_table_has_not_got_is_an_error():
    table = np.zeros((3, 4), np.float32)
    with pytest.raises(IndexError, match="embedding: ids has 3, and there are 3 rows"):
        ops.embedding(table, ids=np.array([0, 3]))
    with pytest.raises(IndexError, match="embedding: places has 5, and there are 3 rows"):
        ops.embedding(table, table, ids=np.array([0]), places=np.array([5]))
    with pytest.raises(IndexError, match="targets has 3, and there are 3 rows"):
        ops.projected_cross_entropy(table, table, targets=np.array([0, 1, 3]))
    with pytest.raises(ValueError, match="lengths add up to 4, and there are 3 rows"):
        ops.attention(np.zeros((3, 6), np.float32), heads=1, d_k=2, lengths=np.array([4]))


@given(seed=seeds, size=st.integers(0, 50_000), scale=st.sampled_from([1.0, 0.1]))
def test_adam_is_the_references(seed, size, scale):
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


def test_a_step_runs_no_reference_of_a_large_operation():
    rng = np.random.default_rng(0)
    x, w, b = Tensor(normal32(rng, 6, 8)), Tensor(normal32(rng, 8, 24)), Tensor(normal32(rng, 24))
    kinds = (*FAST, ops.adam_step, ops.squared_norm)
    with watching(*kinds) as calls, Tape() as tape:
        e = ops.embedding(x, ids=np.arange(6))
        a = ops.attention(ops.linear(e, w, b), heads=2, d_k=4, lengths=np.array([4, 2]))
        n = ops.layer_norm(ops.add_dropout_norm(a, e, w.value[0, :8], b.value[:8]), b[:8], b[8:16])
        loss, _ = ops.projected_cross_entropy(ops.dropout(n, site=None), x, targets=np.arange(6))
        ops.adam_step(*np.ones((4, 8), np.float32), rate=1, beta1=0, beta2=0, epsilon=1, step=1)
        ops.squared_norm(np.ones(8, np.float32))
    tape.backward(loss)
    for kernel in kinds:
        assert [chosen for *_, chosen in calls[kernel]] == ["fast"], kernel


def filled(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7


# What the loops do not cover: they check no bounds, and would read beyond the end of an array.
UNCOVERED = [
    (ops.linear, (filled(5, 4), filled(4, 8), filled(1)), {}),
    (ops.layer_norm, (filled(5, 4), filled(1), filled(4)), {}),
    (ops.layer_norm, (filled(2, 5, 4), filled(4), filled(4)), {}),
    (ops.add_dropout_norm, (filled(1, 4), filled(5, 4), filled(4), filled(4)), {}),
    (ops.add_dropout_norm, (filled(5, 4), filled(1, 4), filled(4), filled(4)), {}),
    (ops.attention, (filled(5, 4), filled(6, 16)), {"lengths": [5], "key_lengths": [6]}),
    (ops.attention, (filled(5, 8), filled(6, 15)), {"lengths": [5], "key_lengths": [6]}),
    (ops.attention, (filled(5, 8), filled(6, 16)), {"lengths": [7, -2], "key_lengths": [3, 3]}),
    (ops.attention, (filled(5, 8), filled(6, 16)), {"lengths": [3, 2], "key_lengths": [6]}),
    (ops.projected_cross_entropy, (filled(5, 4), filled(7, 4)), {"targets": [1, 2]}),
    (ops.embedding, (filled(5, 4), filled(9, 4)), {"ids": [1, 2, 3, 4], "places": [0, 1]}),
    (ops.embedding, (filled(5, 4), filled(9, 2)), {"ids": [1, 2], "places": [0, 1]}),
]


@pytest.mark.parametrize("case", UNCOVERED, ids=range(len(UNCOVERED)))
def test_shapes_that_loops_do_not_cover_are_the_references_or_an_error(case):
    operation, arrays, settings = case
    settings = {name: np.array(value) for name, value in settings.items()}
    if operation is ops.attention:
        settings |= {"heads": 2, "d_k": 4}

    def result():
        try:
            with Tape():
                value, vjp = operation._run(arrays, dict(settings))
            return value, vjp(np.ones_like(value))
        except (ValueError, IndexError):
            return None

    fast = result()
    with references():
        expected = result()
    assert (fast is None) == (expected is None)
    if fast is not None:
        np.testing.assert_allclose(fast[0], expected[0], rtol=1e-5)
        for one, other in zip(fast[1], expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
