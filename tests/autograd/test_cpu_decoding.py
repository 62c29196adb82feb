"""The compiled loops of decoding: cached attention, the cache, and top_k."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import ops, watching  # noqa: E402
from autograd.backend import backend  # noqa: E402
from autograd.cpu import top_k  # noqa: E402
from autograd.int8 import Int8Matrix  # noqa: E402
from autograd.ops.large.beam import Trace, count_of_best  # noqa: E402
from tests.autograd.drawing import normal32, seeds  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_memory_is_full_of_garbage")

PACK = backend("numpy").pack_for_top_k


@given(
    seed=seeds,
    groups=st.integers(0, 20),
    n=st.integers(0, 3),
    heads=st.integers(1, 3),
    d_k=st.integers(1, 40),
    more=st.integers(0, 3),
    d_v=st.integers(1, 40),
    capacity=st.integers(1, 20),
    per_key=st.booleans(),
    turns=st.sampled_from([1, 1, 3]),
    dtype=st.sampled_from([np.int32, np.int64]),
)
@settings(max_examples=40)
def test_cached_attention_agrees_with_its_reference(
    seed, groups, n, heads, d_k, more, d_v, capacity, per_key, turns, dtype
):
    """Also where a group has more tokens than the cache has places for."""
    rng = np.random.default_rng(seed)
    longest = turns * capacity if per_key else capacity
    kv = normal32(rng, groups + 1, capacity, heads * (d_k + d_v))
    lengths = rng.integers(0, longest + 1, groups).astype(dtype)
    used = lengths.max(initial=0)
    kv[:, used:] = np.nan  # is not read
    chosen = {
        "heads": heads,
        "d_k": d_k,
        "slots": rng.integers(0, groups + 1, (groups, longest if per_key else 1)).astype(dtype),
        "lengths": lengths,
    }
    q = normal32(rng, groups, n, heads * d_k + more)
    with watching(ops.cached_attention) as calls:
        got = ops.cached_attention(q, kv, **chosen)
    assert calls[ops.cached_attention][0][2] == "fast"
    expected = ops.cached_attention.reference(q, kv, **chosen)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", [ops.cached_attention, ops.cached_attention.reference])
def test_cached_attention_is_to_the_last_tokens_that_there_is_room_for(run):
    """Each token has the place t % capacity, and the slot that it was written to."""
    rng, capacity, tokens = np.random.default_rng(0), 3, 8
    kv, q = np.full((2, capacity, 8), np.nan, np.float32), normal32(rng, 1, 1, 4)
    written, slots = normal32(rng, tokens, 8), rng.integers(0, 2, (1, tokens))
    for length in range(1, tokens + 1):
        one, counted = slots[:, length - 1], np.array([length])
        ops.append_to_cache(written[length - 1 : length], kv, slots=one, lengths=counted)
        y = run(q, kv, heads=1, d_k=4, slots=slots, lengths=counted)
        last = written[max(length - capacity, 0) : length]
        p = np.exp(last[:, :4] @ q[0, 0] / 2)
        np.testing.assert_allclose(y[0, 0], p @ last[:, 4:] / p.sum(), rtol=1e-5)


@given(seed=seeds, rows=st.integers(1, 40), columns=st.integers(1, 70), more=st.integers(0, 40))
def test_append_to_cache_agrees_with_its_reference(seed, rows, columns, more):
    rng = np.random.default_rng(seed)
    kv, new = normal32(rng, rows + 2, 5, columns), normal32(rng, rows, columns + more)
    got, expected = kv.copy(), kv.copy()
    chosen = {"slots": rng.permutation(rows + 2)[:rows], "lengths": rng.integers(1, 12, rows)}
    ops.append_to_cache(new, got, **chosen)
    ops.append_to_cache.reference(new, expected, **chosen)
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="lengths must be 1 to 2147483647, got 0"):
        ops.append_to_cache(new, got, **{**chosen, "lengths": np.zeros(rows, int)})
    with pytest.raises(IndexError, match="append_to_cache: slots: index"):
        ops.append_to_cache(new, got, **{**chosen, "slots": np.full(rows, rows + 2)})
    strided = kv.copy()[:, :, ::-1]
    ops.append_to_cache(new, strided, **chosen)
    places = (chosen["lengths"] - 1) % 5
    np.testing.assert_array_equal(strided[chosen["slots"], places], new[:, more:])


def test_cached_attention_checks_its_arguments():
    q, kv = np.zeros((2, 1, 4), np.float32), np.zeros((3, 5, 8), np.float32)
    lengths = np.full(2, 5)
    chosen = {"heads": 2, "d_k": 2, "slots": np.zeros((2, 1), int), "lengths": lengths}
    assert ops.cached_attention(q, kv, **chosen).shape == (2, 1, 4)
    with pytest.raises(ValueError, match="lengths must be 0 to 5, got 6"):
        ops.cached_attention(q, kv, **{**chosen, "lengths": lengths + 1})
    with pytest.raises(ValueError, match="lengths must be 0 to 3, got 5"):
        ops.cached_attention(q, kv, **{**chosen, "slots": np.zeros((2, 3), int)})
    with pytest.raises(ValueError, match=r"slots \(3, 1\) are not \[groups, 1\]"):
        ops.cached_attention(q, kv, **{**chosen, "slots": np.zeros((3, 1), int)})
    with pytest.raises(
        IndexError, match="cached_attention: slots: index 3 is out of range for 3 rows"
    ):
        ops.cached_attention(q, kv, **{**chosen, "slots": np.full((2, 1), 3)})


@given(
    seed=seeds,
    rows=st.integers(1, 20),
    d=st.integers(1, 70),
    vocabulary=st.integers(1, 2500),
    with_bias=st.booleans(),
    data=st.data(),
)
@settings(max_examples=40)
def test_top_k_agrees_with_its_reference(seed, rows, d, vocabulary, with_bias, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, min(vocabulary, 20)))
    x, weight = normal32(rng, rows, d), normal32(rng, vocabulary, d)
    bias = normal32(rng, vocabulary) if with_bias else np.zeros(vocabulary, np.float32)
    if with_bias:  # some tokens have no probability
        bias[rng.permutation(vocabulary)[: (vocabulary - k) // 2]] = -np.inf
    with watching(ops.top_k) as calls:
        log_p, ids = ops.top_k(x, weight, *[bias] * with_bias, k=k)
    assert calls[ops.top_k][0][2] == "fast"
    wide = x.astype(np.float64), weight.astype(np.float64)
    expected, _ = ops.top_k.reference(*wide, bias, k=k)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, expected, rtol=1e-4, atol=1e-4)
    # Nearly equal tokens may be exchanged, but each appears once, with its log-probability.
    logits = wide[0] @ wide[1].T + bias
    everywhere = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        np.take_along_axis(everywhere, ids, axis=1), log_p, rtol=1e-4, atol=1e-4
    )
    assert all(len(set(row)) == k for row in ids.tolist())


@given(
    seed=seeds,
    groups=st.integers(1, 7),
    of_group=st.integers(1, 5),
    vocabulary=st.integers(3, 2500),
)
@settings(max_examples=20)
def test_groups_of_rows_have_a_bias_each(seed, groups, of_group, vocabulary):
    rng = np.random.default_rng(seed)
    x, weight = normal32(rng, groups * of_group, 9), normal32(rng, vocabulary, 9)
    bias = np.where(rng.random((groups, vocabulary)) < 0.5, -np.inf, 0).astype(np.float32)
    bias[:, :3] = 1
    with watching(ops.top_k) as calls:
        log_p, ids = ops.top_k(x, weight, bias, k=3)
    assert calls[ops.top_k][0][2] == "fast"
    names = rng.permutation(2 * vocabulary)[:vocabulary]
    _, named = ops.top_k(x, weight, bias, k=3, ids=names)
    np.testing.assert_array_equal(named, names[ids])
    wide = x.astype(np.float64), weight.astype(np.float64)
    reference, _ = ops.top_k.reference(*wide, bias, k=3)
    for g in range(groups):
        rows = slice(g * of_group, (g + 1) * of_group)
        expected, tokens = ops.top_k.reference(wide[0][rows], wide[1], bias[g], k=3)
        _, of_names = ops.top_k.reference(wide[0][rows], wide[1], bias[g], k=3, ids=names)
        np.testing.assert_array_equal(of_names, names[tokens])
        np.testing.assert_allclose(reference[rows], expected, rtol=1e-12)
        np.testing.assert_allclose(log_p[rows], expected, rtol=1e-4, atol=1e-4)
        assert (bias[g, ids[rows]] > -np.inf).all()


@given(seed=seeds, rows=st.integers(1, 12), k=st.integers(1, 20), near=st.booleans())
@settings(max_examples=30)
def test_top_k_does_not_depend_on_a_bound_from_other_threads(seed, rows, k, near):
    # The bound of a row is -inf at first, and at most its k-th largest logit. Logits that are
    # nearly equal have equal log-probabilities.
    rng = np.random.default_rng(seed)
    x, weight = np.ones((rows, 1), np.float32), normal32(rng, 3 * top_k.PANEL, 1)
    if near:
        steps = rng.integers(0, 9999, weight.shape).astype(np.float32)
        weight = np.float32(0.1) + steps * np.spacing(np.float32(0.1))
    logits = np.sort(x @ weight.T, axis=1)
    nothing = top_k._found(x, weight, k, np.full(rows, -np.inf, np.float32))
    everything = top_k._found(x, weight, k, logits[:, -k].copy())
    for got, expected in zip(everything, nothing, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(weight[nothing[1], 0], logits[:, : -k - 1 : -1])


@given(
    seed=seeds,
    rows=st.sampled_from([9, 16, 31, 64, 65, 300]),
    d=st.sampled_from([1, 15, 16, 40, 128, 512, 700, 1025]),
    vocabulary=st.sampled_from([1, 31, 32, 33, 1024, 1025, 2500]),
    groups=st.sampled_from([0, 1, "rows"]),
    named=st.booleans(),
)
@settings(max_examples=40)
def test_a_packed_weight_gives_the_same_bits(seed, rows, d, vocabulary, groups, named):
    rng = np.random.default_rng(seed)
    x, weight = normal32(rng, rows, d), normal32(rng, vocabulary, d)
    shape = (vocabulary,) if groups == 1 else (rows, vocabulary)
    bias = [normal32(rng, *shape)] * bool(groups)
    chosen = {
        "k": min(vocabulary, 3),
        "ids": rng.permutation(2 * vocabulary)[:vocabulary] if named else None,
    }
    packed = PACK(weight, rows, None)
    panels = np.zeros((len(packed) // d * packed.shape[1], d), np.float32)
    panels[:vocabulary] = weight
    panels = panels.reshape(-1, packed.shape[1], d).transpose(0, 2, 1)
    np.testing.assert_array_equal(packed.reshape(panels.shape), panels)
    with watching(ops.top_k) as calls:
        got = ops.top_k(x, weight, *bias, packed=packed, **chosen)
    assert calls[ops.top_k][0][2] == "fast"
    for one, other in zip(got, ops.top_k(x, weight, *bias, **chosen), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = ops.top_k.reference(x, weight, *bias, packed=packed, **chosen)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("rows", "reads_it"), [(1, False), (8, False), (9, True), (64, True)])
def test_few_rows_read_the_weight_and_many_read_what_is_packed(rows, reads_it):
    rng = np.random.default_rng(rows)
    x, weight = normal32(rng, rows, 24), normal32(rng, 100, 24)
    packed = PACK(weight, 100, None)
    packed[:] = PACK(-weight, 100, None)
    expected = ops.top_k(x, -weight if reads_it else weight, k=3)
    for one, other in zip(ops.top_k(x, weight, k=3, packed=packed), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_weight_is_packed_where_that_serves_and_into_what_there_is():
    weight = normal32(np.random.default_rng(0), 100, 24)
    first = PACK(weight, 9, None)
    other = normal32(np.random.default_rng(1), 100, 24)
    assert PACK(other, 9, first) is first
    np.testing.assert_array_equal(first, PACK(other, 9, None))
    np.testing.assert_array_equal(first, PACK(np.asfortranarray(other), 9, None))
    assert PACK(weight, 8, None) is None
    assert PACK(weight.astype(np.float64), 9, None) is None
    assert PACK(Int8Matrix.of(weight.T).T, 9, None) is None
    x = normal32(np.random.default_rng(2), 9, 24)
    with pytest.raises(ValueError, match=r"top_k: packed is of another weight: its shape is"):
        ops.top_k(x, weight[:60], k=3, packed=first)


def test_tokens_of_probability_0_come_last_and_only_once():
    x, weight = np.ones((10, 1), np.float32), np.zeros((2 * top_k.PANEL, 1), np.float32)
    weight[: top_k.PANEL], weight[-500] = -np.inf, 3
    log_p, ids = ops.top_k(x, weight, k=3)
    wide = x.astype(float), weight.astype(float)
    np.testing.assert_allclose(log_p, ops.top_k.reference(*wide, k=3)[0], rtol=1e-5)
    assert ids.tolist() == [[2 * top_k.PANEL - 500, top_k.PANEL, top_k.PANEL + 1]] * 10
    weight[1:] = -np.inf
    weight[0] = 1
    log_p, ids = ops.top_k(x, weight, k=3)
    assert log_p.tolist() == [[0, -np.inf, -np.inf]] * 10
    assert ids.tolist() == [[0, 1, 2]] * 10


def test_equal_tokens_are_ordered_by_their_ids():
    x, weight = np.ones((2, 3), np.float32), np.ones((3000, 3), np.float32)
    log_p, ids = ops.top_k(x, weight, k=4)
    np.testing.assert_allclose(log_p, -np.log(3000), rtol=1e-6)
    assert ids.tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match="got 3001"):
        ops.top_k(x, weight, k=3001)


def test_nan_propagates_in_decoding():
    rng = np.random.default_rng(0)
    x, w = normal32(rng, 3, 8), normal32(rng, 2000, 8)
    x[1, 2] = np.nan
    log_p, ids = ops.top_k(x, w, k=3)
    assert np.isnan(log_p[1]).all()
    assert ids[1].tolist() == [0, 1, 2]
    assert np.isfinite(log_p[[0, 2]]).all()
    w[1500] = np.nan
    assert np.isnan(ops.top_k(x, w, k=3)[0]).all()
    q, kv = normal32(rng, 2, 1, 4), normal32(rng, 2, 3, 8)
    kv[1, 2, 5] = np.nan
    slots = np.arange(2)[:, None]
    y = ops.cached_attention(q, kv, heads=1, d_k=4, slots=slots, lengths=np.full(2, 3))
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1, 0, 1])


@given(
    sizes=st.sampled_from(
        [(1, 1, 1), (1, 3, 1), (2, 1, 1), (4, 8, 1), (5, 10, 1), (4, 8, 2), (6, 3, 3), (3, 40, 3)]
    ),
    sentences=st.integers(1, 5),
    alternatives=st.integers(0, 4),
    until_full=st.booleans(),
    penalized=st.booleans(),
    seed=seeds,
)
@settings(max_examples=200)
def test_beam_step_does_what_its_reference_does(
    sizes, sentences, alternatives, until_full, penalized, seed
):
    """With few different log-probabilities and tokens, so that many are equal."""
    (beam, n, groups), rng = sizes, np.random.default_rng(seed)
    alternatives, rows = min(alternatives, beam), sentences * beam

    def numbers(*shape):
        x = -rng.integers(0, 6, shape) / 3.0
        x[rng.random(shape) < 0.2] = -np.inf
        return x

    next_log_p = numbers(rows, n).astype(np.float32)
    next_log_p[rng.random(next_log_p.shape) < 0.1] = np.nan
    next_log_p -= rng.random(next_log_p.shape, np.float32) * rng.integers(0, 2)
    best = 12, sentences + 3, count_of_best(beam, n, groups)
    coverage = numbers(sentences, beam) if penalized else None
    if penalized:
        coverage[rng.random(coverage.shape) < 0.05] = np.nan
    expected = {
        "log_p": numbers(sentences, beam),
        "next_log_p": next_log_p,
        "next_ids": rng.integers(0, 7, (rows, n)),
        "ids": np.zeros((sentences, beam), np.int32),
        "found": np.sort(numbers(sentences, alternatives)) if alternatives else None,
        "coverage": coverage,
        "limits": rng.integers(6, 10, sentences),
        "divisors": rng.uniform(1, 3, 10),
        "lengths": np.repeat(rng.integers(5, 9, sentences), beam).astype(np.int32),
        "tokens": [rng.integers(0, 9, (rows, c)).astype(t) for c, t in ((41, "i4"), (9, "i8"))],
        "histories": [rng.standard_normal((rows, 3)), rng.integers(0, 9, (rows, 2, 2))],
        "trace": Trace(
            np.zeros(best),
            np.zeros(best, np.int32),
            np.zeros(best, np.int32),
            np.zeros(best) if penalized else None,
        ),
        "sentence_ids": rng.permutation(sentences + 3)[:sentences].astype(np.int32),
    }
    chosen = {"end_id": 2, "groups": groups, "diversity": 0.25, "until_full": until_full}
    got = copy.deepcopy(expected)
    with watching(ops.beam_step) as calls:
        take_step(ops.beam_step, got, chosen)
    assert calls[ops.beam_step][0][2] == "fast"
    take_step(ops.beam_step.reference, expected, chosen)
    for name, x in expected.items():
        for y, z in zip(arrays_of(got[name]), arrays_of(x), strict=True):
            np.testing.assert_array_equal(y, z, err_msg=name)


def take_step(run, arrays, chosen):
    log_p, next_log_p, next_ids, *_ = arrays.values()
    run(log_p, next_log_p, next_ids, **dict(list(arrays.items())[3:]), **chosen)


def arrays_of(x):
    return list(x) if isinstance(x, tuple | list) else [x]


def test_lengths_are_counted_up_by_a_loop():
    lengths = np.array([3, 0, 7], np.int32)
    with watching(ops.count_up) as calls:
        ops.count_up(lengths)
    assert calls[ops.count_up][0][2] == "fast"
    np.testing.assert_array_equal(lengths, [4, 1, 8])
    every_other = np.zeros(6, np.int32)
    ops.count_up(every_other[::2])
    np.testing.assert_array_equal(every_other, [1, 0, 1, 0, 1, 0])


def test_a_loop_takes_the_first_token_away():
    ids, position_ids = np.array([4, 5, 6], np.int32), np.array([0, 1, 0], np.int32)
    with watching(ops.no_token_first) as calls:
        found = ops.no_token_first(ids, position_ids)
    assert calls[ops.no_token_first][0][2] == "fast"
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [-1, 5, -1])
    np.testing.assert_array_equal(ops.no_token_first.reference(ids, position_ids), found)
    with pytest.raises(ValueError, match="no_token_first: position_ids"):
        ops.no_token_first(ids, position_ids[:2])
