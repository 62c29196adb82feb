"""Compiled loops agree with their references, at any shape and on any number of threads."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import Sentences, Tape, Tensor, ops, references, watching  # noqa: E402
from autograd.cpu import cross_entropy, pool  # noqa: E402
from tests.autograd.cpu_cases import FAST, compare, fast, results, rows, widths  # noqa: E402
from tests.autograd.drawing import Case, normal32, seeds, sites  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("fresh_memory_is_full_of_garbage"),
    pytest.mark.limit(600),  # the first tests compile loops
]
every_op = pytest.mark.parametrize("operation", FAST, ids=lambda o: o.name)


@contextmanager
def no_pool():
    """Loops run on the calling thread only, as they do while another thread uses the pool."""
    with patch.object(pool, "address", lambda watch: 0):
        yield


@every_op
@settings(max_examples=40)
@given(data=st.data())
def test_every_loop_agrees_with_its_reference(operation, data):
    compare(data.draw(FAST[operation]))


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_loops_on_one_thread_agree_with_their_references(operation, data):
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
def test_loops_accept_arrays_of_any_layout(operation, layout, data):
    case = data.draw(FAST[operation])
    moved = {k: layout(v) if isinstance(v, np.ndarray) else v for k, v in case.settings.items()}
    contiguous = results(operation, fast(operation), case.arrays, case.settings)
    for got, expected in zip(
        results(operation, fast(operation), tuple(map(layout, case.arrays)), moved),
        contiguous,
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_writers_add_to_an_existing_gradient(operation, data):
    case = data.draw(FAST[operation])

    def gradients():
        with Tape():
            value, vjp = fast(operation)(*case.arrays, **case.settings)
        got = vjp(np.ones_like(value[0] if operation.auxiliary else value))
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
            got.append(results(operation, fast(operation), case.arrays, case.settings))
    for other in got[1:]:
        for one, many in zip(got[0], other, strict=True):
            np.testing.assert_array_equal(one, many)


@st.composite
def losses_of_large_vocabularies(draw):
    """Several panels of the vocabulary, the last one perhaps incomplete; logits far apart."""
    rng, n, d = np.random.default_rng(draw(seeds)), draw(st.integers(1, 600)), draw(widths)
    vocabulary = draw(st.sampled_from([1023, 1024, 1025, 2048, 2500]))
    x, weight = normal32(rng, n, d), normal32(rng, vocabulary, d)
    if draw(st.booleans()):  # the largest logits of two panels differ by about 60
        x[:, 0], weight[:, 0] = 1, 0
        weight[:1024, 0] += draw(st.sampled_from([-60, 60]))
    chosen = {"targets": rng.integers(-1, vocabulary, n), "smoothing": 0.1}
    return Case(ops.projected_cross_entropy, (x, weight), chosen)


@settings(max_examples=15)
@given(data=st.data())
def test_the_loss_over_several_panels_agrees_with_its_reference(data):
    compare(data.draw(losses_of_large_vocabularies()))


@pytest.mark.parametrize("rows", [4, 20])
def test_arguments_of_mixed_dtypes_give_right_results_or_an_error(rows):
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
            *(x[:, None, :4], np.ones((rows, 3, 8))),
            heads=1,
            d_k=4,
            slots=targets[:, None],
            lengths=targets + 3,
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
@pytest.mark.parametrize("which", range(4))
def test_a_norm_of_mixed_dtypes_is_that_of_the_reference(dtype, which):
    rng = np.random.default_rng(0)
    shapes = [(5, 8), (5, 8), (8,), (8,)]
    arrays = [(3 * normal32(rng, *shape)) for shape in shapes]
    arrays[which] = arrays[which].astype(dtype)
    x, _, gain, bias = arrays
    for got, (expected, _) in (
        (ops.add_dropout_norm(*arrays), ops.add_dropout_norm.reference(*arrays)),
        (ops.layer_norm(x, gain, bias), ops.layer_norm.reference(x, gain, bias)),
    ):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(
            got, expected, rtol=1e-4, atol=1e-3 if dtype == np.float16 else 1e-5
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_positions_of_another_dtype_give_the_references_embedding(dtype):
    rng = np.random.default_rng(0)
    arrays = normal32(rng, 4, 3), (3 * normal32(rng, 2, 3)).astype(dtype)
    chosen = {"ids": np.array([3, 0, -1]), "position_ids": np.array([1, 0, 1])}
    expected, _ = ops.embedding.reference(*arrays, **chosen)
    got = ops.embedding(*arrays, **chosen)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@every_op
def test_float64_runs_the_reference(operation):
    assert operation.implementation(np.zeros(1)) is operation.reference


@given(n=rows, d=widths, site=sites.filter(bool))
def test_dropout_masks_equal_the_references_bit_by_bit(n, d, site):
    y, vjp = fast(ops.dropout)(np.ones((n, d), np.float32), site=site)
    expected = np.where(site.keep_matrix(np, n, d), np.float32(site.scale), np.float32(0))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(vjp(np.ones((n, d), np.float32)), expected)


@given(heads=st.integers(1, 3), m=st.integers(1, 40), site=sites.filter(bool))
def test_attention_drops_the_weights_that_the_reference_drops(heads, m, site):
    # All scores are equal, and each value is a one-hot row: y shows which keys were kept.
    arrays = np.zeros((1, heads), np.float32), np.zeros((m, heads * (1 + m)), np.float32)
    arrays[1][:, heads:] = np.tile(np.eye(m), heads)
    chosen = {"sentences": Sentences([1]), "key_sentences": Sentences([m])}
    chosen |= {"heads": heads, "d_k": 1}
    got = ops.attention(*arrays, **chosen, site=site)
    expected, _ = ops.attention.reference(*arrays, **chosen, site=site)
    np.testing.assert_array_equal(got > 0, expected > 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_in_a_sentence_does_not_depend_on_other_sentences(causal, bad):
    # A thread reuses one matrix of scores for all its sentences. Scores of an earlier one, above
    # the diagonal or in the padding to full vectors, must not count.
    rng = np.random.default_rng(0)
    lengths, heads, d_k = np.tile([5, 3, 18], 40), 2, 20
    tokens, spoilt = lengths.sum(), np.repeat(np.arange(len(lengths)) % 3 == 1, lengths)
    qkv, dy = normal32(rng, tokens, 3 * heads * d_k), normal32(rng, tokens, heads * d_k)
    chosen = {"heads": heads, "d_k": d_k, "sentences": Sentences(lengths), "causal": causal}

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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 40])
def test_nan_and_infinity_propagate_to_the_result(bad, row):
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
        np.concatenate([x, x, x], axis=1), heads=1, d_k=40, sentences=Sentences([20, 20, 1])
    )
    assert not np.isfinite(y[row]).all()
    assert np.isfinite(y[20:40]).all()


def test_without_a_tape_the_loss_is_the_same_and_gradients_are_refused():
    rng = np.random.default_rng(0)
    tokens = 2 * cross_entropy.ROWS + 3
    arrays, chosen = (normal32(rng, tokens, 8), normal32(rng, 30, 8)), {"smoothing": 0.1}
    chosen["targets"] = rng.integers(0, 30, tokens)
    losses, vjp = fast(ops.projected_cross_entropy)(*arrays, **chosen)
    with Tape():
        recorded, _ = fast(ops.projected_cross_entropy)(*arrays, **chosen)
    np.testing.assert_allclose(losses, recorded, rtol=1e-6)
    with pytest.raises(RuntimeError, match="no tape"):
        vjp(np.float32(1))
    _, vjp = fast(ops.attention)(normal32(rng, 3, 6), heads=1, d_k=2, sentences=Sentences([3]))
    with pytest.raises(RuntimeError, match="no tape"):
        vjp(normal32(rng, 3, 2))


def test_an_index_outside_a_table_is_an_error():
    table = np.zeros((3, 4), np.float32)
    with pytest.raises(IndexError, match="embedding: ids: index 3 is out of range for 3 rows"):
        ops.embedding(table, ids=np.array([0, 3]))
    with pytest.raises(
        IndexError, match="embedding: position_ids: index 5 is out of range for 3 rows"
    ):
        ops.embedding(table, table, ids=np.array([0]), position_ids=np.array([5]))
    with pytest.raises(IndexError, match="targets: index 3 is out of range for 3 rows"):
        ops.projected_cross_entropy(table, table, targets=np.array([0, 1, 3]))
    with pytest.raises(ValueError, match="sentences must have 3 rows in all, got 4"):
        ops.attention(np.zeros((3, 6), np.float32), heads=1, d_k=2, sentences=Sentences([4]))


def test_a_training_step_runs_only_fast_implementations_of_large_operations():
    rng = np.random.default_rng(0)
    x, w, b = Tensor(normal32(rng, 6, 8)), Tensor(normal32(rng, 8, 24)), Tensor(normal32(rng, 24))
    kinds = (*FAST, ops.adam_step, ops.squared_norm)
    with watching(*kinds) as calls, Tape() as tape:
        e = ops.embedding(x, ids=np.arange(6))
        a = ops.attention(ops.linear(e, w, b), heads=2, d_k=4, sentences=Sentences([4, 2]))
        a = ops.swish(ops.gelu(ops.feed_forward(a, w, b, normal32(rng, 24, 8))))
        n = ops.layer_norm(ops.add_dropout_norm(a, e, w.value[0, :8], b.value[:8]), b[:8], b[8:16])
        loss, _ = ops.projected_cross_entropy(ops.dropout(n, site=None), x, targets=np.arange(6))
        ops.adam_step(*np.ones((4, 8), np.float32), rate=1, beta1=0, beta2=0, epsilon=1, step=1)
        ops.squared_norm(np.ones(8, np.float32))
    tape.backward(loss)
    for kernel in kinds:
        assert [chosen for *_, chosen in calls[kernel]] == ["fast"], kernel


def filled(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7


# Shapes that the loops do not cover. They check no bounds, and would read past the end of an array.
UNCOVERED = [
    (ops.linear, (filled(5, 4), filled(4, 8), filled(1)), {}),
    (ops.layer_norm, (filled(5, 4), filled(1), filled(4)), {}),
    (ops.layer_norm, (filled(2, 5, 4), filled(4), filled(4)), {}),
    (ops.add_dropout_norm, (filled(1, 4), filled(5, 4), filled(4), filled(4)), {}),
    (ops.add_dropout_norm, (filled(5, 4), filled(1, 4), filled(4), filled(4)), {}),
    (ops.attention, (filled(5, 4), filled(6, 16)), {"sentences": [5], "key_sentences": [6]}),
    (ops.attention, (filled(5, 8), filled(6, 15)), {"sentences": [5], "key_sentences": [6]}),
    (ops.attention, (filled(5, 8), filled(6, 16)), {"sentences": [3, 3], "key_sentences": [3, 3]}),
    (ops.attention, (filled(5, 8), filled(6, 16)), {"sentences": [3, 2], "key_sentences": [6]}),
    (ops.projected_cross_entropy, (filled(5, 4), filled(7, 4)), {"targets": [1, 2]}),
    (ops.embedding, (filled(5, 4), filled(9, 4)), {"ids": [1, 2, 3, 4], "position_ids": [0, 1]}),
    (ops.embedding, (filled(5, 4), filled(9, 2)), {"ids": [1, 2], "position_ids": [0, 1]}),
]


@pytest.mark.parametrize("case", UNCOVERED, ids=range(len(UNCOVERED)))
def test_shapes_that_loops_do_not_cover_run_the_reference_or_are_refused(case):
    operation, arrays, settings = case
    kinds = {"sentences": Sentences, "key_sentences": Sentences}
    settings = {name: kinds.get(name, np.array)(value) for name, value in settings.items()}
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
