"""The GPU's operations of decoding, emulated, agree with their references."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import ops, watching
from autograd.ops.large.beam import Trace, count_of_best
from tests.autograd import on_device
from tests.autograd.drawing import seeds
from tests.autograd.on_device import (
    BFLOAT16,
    EMULATED,
    FLOAT32,
    TOLERANCE,
    Random,
    assert_close,
    dtypes,
    misaligned,
    moved,
    strided,
)

pytestmark = EMULATED


@given(
    dtypes,
    st.sampled_from([(8, 8), (16, 16), (64, 64), (256, 256), (5, 40), (24, 24)]),
    st.sampled_from([0, 4, 16]),
    st.integers(1, 40),
    st.sampled_from([1, 3, 5]),
    st.booleans(),
    st.sampled_from([1, 1, 3]),
    seeds,
)
def test_cached_attention_agrees_with_its_reference(
    dtype, sizes, beside, capacity, n, scattered, turns, seed
):
    """Queries may be the first columns of a wider array, as in Q‖K‖V."""
    d_k, d_v = sizes
    heads, groups, longest = 2, 5, capacity * (turns if scattered else 1)
    normal = Random(seed, dtype)
    q, kv = normal(groups, n, heads * d_k + beside), normal(7, capacity, heads * (d_k + d_v))
    slots = normal.rng.integers(0, 7, (groups, longest if scattered else 1))
    lengths = normal.rng.integers(0, longest + 1, groups)
    chosen = {"heads": heads, "d_k": d_k, "slots": slots, "lengths": lengths}
    there = {k: moved(v) if isinstance(v, np.ndarray) else v for k, v in chosen.items()}
    with watching(ops.cached_attention) as calls:
        found = ops.cached_attention(moved(q), moved(kv), **there)
    assert calls[ops.cached_attention][0][2] == "fast"
    assert found.dtype == dtype
    expected = ops.cached_attention.reference(q.astype(np.float64), kv.astype(np.float64), **chosen)
    assert_close(found.get(), expected, TOLERANCE[dtype])


@given(dtypes, seeds)
def test_append_to_cache_agrees_with_its_reference(dtype, seed):
    normal = Random(seed, dtype)
    new, kv = normal(4, 70), normal(6, 9, 50)
    slots, lengths = normal.rng.permutation(6)[:4], normal.rng.integers(1, 20, 4)
    expected, found = kv.copy(), moved(kv)
    ops.append_to_cache.reference(new, expected, slots=slots, lengths=lengths)
    ops.append_to_cache(moved(new), found, slots=moved(slots), lengths=moved(lengths))
    assert np.array_equal(found.get(), expected)


@given(
    dtypes,
    st.sampled_from([3, 257, 1003]),
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from(["no bias", "bias", "bias in float32"]),
    seeds,
)
def test_top_k_agrees_with_its_reference(dtype, vocabulary, rows, k, kind, seed):
    normal = Random(seed, dtype)
    x, weight = normal(rows, 8), normal(vocabulary, 8)
    bias = normal(vocabulary)
    bias[normal.rng.random(vocabulary) < 0.2] = -np.inf
    bias[0] = 0
    k = min(k, np.isfinite(bias.astype(np.float32)).sum() if kind != "no bias" else vocabulary)
    bias = bias.astype(np.float32) if kind == "bias in float32" else bias
    with watching(ops.top_k) as calls:
        given_bias = [] if kind == "no bias" else [moved(bias)]
        log_p, ids = ops.top_k(moved(x), moved(weight), *given_bias, k=k)
    assert calls[ops.top_k][0][2] == "fast"
    logits = (x.astype(np.float32) @ weight.astype(np.float32).T).astype(dtype)
    if kind != "no bias":
        logits = (logits.astype(np.float32) + bias.astype(np.float32)).astype(dtype)
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    all_log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    order = np.lexsort((np.broadcast_to(np.arange(vocabulary), logits.shape), -logits))
    expected = np.take_along_axis(all_log_p, order[:, :k], axis=1)
    if on_device.BACKEND == "strict":
        assert np.array_equal(ids.get(), order[:, :k])
    # A GPU may round products differently, and so exchange two nearly equal tokens.
    within = 1e-5 if on_device.BACKEND == "strict" or dtype == FLOAT32 else 0.05
    of_ids = np.take_along_axis(all_log_p, ids.get(), axis=1)
    assert np.allclose(of_ids, expected, rtol=within, atol=within)
    assert np.allclose(log_p.get(), expected, rtol=within, atol=within)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_groups_of_rows_have_a_bias_each(dtype):
    normal = Random(0, dtype)
    x, weight = normal(6, 8), normal(257, 8)
    bias = np.where(normal.rng.random((3, 257)) < 0.5, -np.inf, 0).astype(np.float32)
    with watching(ops.top_k) as calls:
        log_p, ids = ops.top_k(moved(x), moved(weight), moved(bias), k=4)
    assert calls[ops.top_k][0][2] == "fast"
    names = normal.rng.permutation(300)[:257]
    _, named = ops.top_k(moved(x), moved(weight), moved(bias), k=4, ids=moved(names))
    np.testing.assert_array_equal(named.get(), names[ids.get()])
    for g in range(3):
        rows = slice(2 * g, 2 * g + 2)
        expected = ops.top_k(moved(x[rows]), moved(weight), moved(bias[g]), k=4)
        np.testing.assert_array_equal(log_p[rows].get(), expected[0].get())
        np.testing.assert_array_equal(ids[rows].get(), expected[1].get())


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("vocabulary", [1003, 8203])
@pytest.mark.parametrize("k", [1, 8, 20, 300])
def test_top_k_of_unusual_rows_is_exact(dtype, vocabulary, k):
    """Where many logits are equal, or the largest are in few threads or in all."""
    normal, places = Random(0, dtype), np.arange(vocabulary)
    x, weight = np.eye(8, dtype=dtype), normal(vocabulary, 8)  # row i of the logits is column i
    weight[:, 1] = 3  # all are equal, and more than the list has room for
    weight[:, 2] = np.round(weight[:, 2].astype(np.float32))
    weight[:40, 3] += dtype.type(20)
    weight[8:16, 4] += dtype.type(20)
    weight[:, 5] = places / dtype.type(vocabulary)
    weight[:, 6] = -places / dtype.type(vocabulary)
    weight[:, 7] = np.where(places % 300 == 0, 0, -1e30)
    log_p, ids = ops.top_k(moved(x), moved(weight), k=k)
    logits = weight.T.astype(np.float64)
    order = np.lexsort((np.broadcast_to(places, logits.shape), -logits))[:, :k]
    assert np.array_equal(ids.get(), order)
    top = logits.max(axis=1, keepdims=True)
    log_sum_exp = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    expected = np.take_along_axis(logits, order, axis=1) - log_sum_exp
    np.testing.assert_allclose(log_p.get(), expected, rtol=1e-5, atol=1e-5)


@given(st.sampled_from([5, 64, 257, 1003, 4200]), st.integers(1, 5), st.integers(1, 20), seeds)
def test_largest_agrees_with_its_reference(n, rows, k, seed):
    x = Random(seed, FLOAT32)(rows, n)
    x[:, ::3] = -np.inf
    with watching(ops.largest) as calls:
        found = ops.largest(moved(x), k=k)
    assert calls[ops.largest][0][2] == "fast"
    expected = ops.largest.reference(x, k=k)
    assert [a.dtype for a in found] == [b.dtype for b in expected]
    values, where = (a.get() for a in found)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(np.take_along_axis(x, where, 1), values)
    assert all(len(set(row)) == min(k, n) for row in where.tolist())


@given(
    st.sampled_from(
        [(1, 1, 1), (4, 8, 1), (3, 6, 1), (3, 4, 1), (20, 40, 1), (4, 8, 2), (6, 5, 3)]
    ),
    st.integers(1, 5),
    st.integers(0, 3),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_beam_step_agrees_with_its_reference(
    sizes, sentences, alternatives, until_full, penalized, seed
):
    """With few different log-probabilities and tokens, so that many are equal."""
    (beam, n, groups), rng = sizes, np.random.default_rng(seed)
    alternatives = min(alternatives, beam)

    def numbers(*shape: int) -> np.ndarray:
        x = -rng.integers(0, 6, shape) / 4.0
        x[rng.random(shape) < 0.2] = -np.inf
        return x

    next_log_p = numbers(sentences * beam, n).astype(np.float32)
    next_log_p[rng.random(next_log_p.shape) < 0.1] = np.nan
    lengths = rng.integers(5, 9, sentences)
    slots = rng.integers(0, 9, (sentences * beam, 50)).astype(np.int32)
    best = 12, sentences + 3, count_of_best(beam, n, groups)
    arrays = {
        "log_p": numbers(sentences, beam),
        "next_log_p": next_log_p,
        "next_ids": rng.integers(0, 7, (sentences * beam, n)),
        "ids": np.zeros((sentences, beam), np.int32),
        "found": np.sort(numbers(sentences, alternatives)) if alternatives else None,
        "coverage": numbers(sentences, beam) if penalized else None,
        "limits": rng.integers(6, 10, sentences),
        "divisors": rng.uniform(1, 3, 10),
        "lengths": np.repeat(lengths, beam).astype(np.int32),
        "tokens": [slots[:, :41], rng.integers(0, 9, (sentences * beam, 17)), slots[:, 41:]],
        "histories": [rng.standard_normal((sentences * beam, 3))],
        "trace": Trace(
            np.zeros(best),
            np.zeros(best, np.int32),
            np.zeros(best, np.int32),
            np.zeros(best) if penalized else None,
        ),
        "sentence_ids": rng.permutation(sentences + 3)[:sentences].astype(np.int32),
    }
    settings = {"end_id": 2, "groups": groups, "diversity": 0.25, "until_full": until_full}
    there = {name: _moved(x) for name, x in arrays.items()}
    with watching(ops.beam_step) as calls:
        _step(ops.beam_step, there, settings)
    assert calls[ops.beam_step][0][2] == "fast"
    _step(ops.beam_step.reference, arrays, settings)
    for name, expected in arrays.items():
        _assert_equal(there[name], expected, name)


def _step(run: Any, arrays: dict[str, Any], settings: dict[str, Any]) -> None:
    first = [arrays[name] for name in ("log_p", "next_log_p", "next_ids")]
    others = {k: v for k, v in arrays.items() if k not in ("log_p", "next_log_p", "next_ids")}
    run(*first, **others, **settings)


def _moved(x: Any) -> Any:
    if isinstance(x, Trace):
        return Trace(*map(_moved, x))
    if isinstance(x, list):
        return [_moved(y) for y in x]
    return x if x is None else moved(x.copy())


def _assert_equal(found: Any, expected: Any, name: str) -> None:
    if isinstance(expected, tuple | list):
        for x, y in zip(found, expected, strict=True):
            _assert_equal(x, y, name)
    elif expected is not None:
        assert found.dtype == expected.dtype, name
        np.testing.assert_array_equal(found.get(), expected, err_msg=name)


def test_a_beam_that_is_too_wide_for_the_kernel_agrees_with_the_reference():
    rng, best = np.random.default_rng(0), (5, 2, 66)
    arrays = {
        "log_p": -rng.random((2, 33)),
        "next_log_p": -rng.random((66, 4), np.float32),
        "next_ids": rng.integers(0, 9, (66, 4)),
        "ids": np.zeros((2, 33), np.int32),
        "found": None,
        "limits": np.array([5, 5]),
        "divisors": np.ones(6),
        "lengths": np.ones(66, np.int32),
        "trace": Trace(np.zeros(best), np.zeros(best, np.int32), np.zeros(best, np.int32)),
        "sentence_ids": np.arange(2, dtype=np.int32),
    }
    there = {name: _moved(x) for name, x in arrays.items()}
    _step(ops.beam_step, there, {"end_id": 2})
    _step(ops.beam_step.reference, arrays, {"end_id": 2})
    for name, expected in arrays.items():
        _assert_equal(there[name], expected, name)


@pytest.mark.parametrize("lie", [strided, misaligned])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_operations_of_decoding_accept_arrays_of_any_layout(dtype, lie):
    normal = Random(0, dtype)
    q, kv, new = normal(5, 1, 64), normal(7, 20, 128), normal(7, 128)
    x, weight = normal(5, 32), normal(50, 32)
    slots, lengths = normal.integers(0, 7, 5)[:, None], normal.integers(1, 18, 5)
    heads = {"heads": 2, "d_k": 32}

    def results(place: Any, place_indices: Any) -> list[np.ndarray]:
        cache = place(kv)
        order = place_indices(np.arange(7, dtype=np.int32)[::-1].copy())
        ops.append_to_cache(place(new), cache, slots=order, lengths=place_indices(np.full(7, 18)))
        beside = {"slots": place_indices(slots), "lengths": place_indices(lengths)}
        attended = ops.cached_attention(place(q), cache, **heads, **beside)
        best = ops.top_k(place(x), place(weight), k=3)
        return [y.get() for y in (cache, attended, *best)]

    whole = results(moved, moved)
    for found in (results(lie, moved), results(moved, lie)):
        for y, expected in zip(found, whole, strict=True):
            assert_close(y, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_top_k_of_a_vocabulary_without_a_kernel_agrees_with_its_reference(dtype, monkeypatch):
    monkeypatch.setattr(importlib.import_module("autograd.cuda.logits"), "_MOST_BYTES", 0)
    normal = Random(1, dtype)
    x, weight = normal(4, 8), normal(50, 8)
    log_p, ids = ops.top_k(moved(x), moved(weight), k=3)
    expected, which = ops.top_k.reference(x.astype(np.float32), weight.astype(np.float32), k=3)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p.get(), expected, rtol=1e-5)
    np.testing.assert_array_equal(ids.get(), which)
