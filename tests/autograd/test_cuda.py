"""The GPU's operations, run by an emulator: each meets its reference on ragged shapes.

Every kernel and every launcher runs as it stands; what is missing is the GPU. Fresh arrays and
shared memory hold NaN, so that whatever is left out shows. float32 must agree within 1e-5 of the
norm, bfloat16 within 1e-2.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

from autograd import Tape, ops, watching  # noqa: E402
from autograd.backend import backend  # noqa: E402
from autograd.op import Op  # noqa: E402
from tests import emulator  # noqa: E402
from tests.autograd.cases import seeds, sites  # noqa: E402

pytestmark = pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {FLOAT32: 1e-5, BFLOAT16: 1e-2}

dtypes = st.sampled_from([FLOAT32, BFLOAT16])
ON_THE_HOST = {"lengths", "key_lengths"}

OWNER = "strict"  # whose kernels are tested: emulated here, and by tests/gpu those of CuPy


@pytest.fixture(scope="module", autouse=True)
def emulated_gpu():
    with emulator.on_strict_arrays():
        yield


@pytest.fixture(autouse=True)
def fresh_arrays_hold_nan():
    def filled(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return moved(np.full(shape, 1 << 30 if dtype.kind in "iu" else np.nan, dtype))

    with fresh_arrays(filled):
        yield


@contextmanager
def fresh_arrays(empty: Any) -> Iterator[None]:
    """Let the backend's fresh arrays come from `empty` inside a `with`."""
    owner = backend(OWNER)
    before = owner.empty
    object.__setattr__(owner, "empty", empty)
    try:
        yield
    finally:
        object.__setattr__(owner, "empty", before)


def moved(x: np.ndarray) -> Any:
    """An array on the device."""
    return backend(OWNER).from_host(x)


class Random:
    """Normally distributed numbers in a dtype."""

    def __init__(self, seed: int, dtype: np.dtype) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def __call__(self, *shape: int, dtype: Any = None) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(dtype or self.dtype)

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        return self.rng.integers(low, high, count).astype(np.int32)


def on_the_device(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        k: moved(v) if isinstance(v, np.ndarray) and k not in ON_THE_HOST else v
        for k, v in settings.items()
    }


def check(operation: Op, arrays: tuple, seed: int, scale: float = 0.0, **settings: Any) -> None:
    """Run forward and backward, and compare with the reference in float64.

    A gradient's error is measured by its norm and, where it nearly cancels, `scale` times that of
    the gradient that comes in.
    """
    rng = np.random.default_rng(seed)
    tolerance = TOLERANCE[arrays[0].dtype]
    expected, reference_vjp = operation.reference(
        *(x.astype(np.float64) for x in arrays), **settings
    )
    with watching(operation) as calls, Tape():
        value, vjp = operation._run(tuple(map(moved, arrays)), on_the_device(settings))
    assert [call[2] for call in calls[operation]] == ["fast"]
    several = isinstance(value, tuple)
    outputs, wanted = (value, expected) if several else ((value,), (expected,))
    for y, y64 in zip(outputs, wanted, strict=True):
        assert y.dtype == (FLOAT32 if y.ndim == 0 else arrays[0].dtype)
        assert_close(y.get(), y64, tolerance)

    dy = [rng.standard_normal(y.shape).astype(y.dtype) for y in outputs]
    size = scale * np.sqrt(sum(np.sum(d.astype(np.float64) ** 2) for d in dy))
    dy64 = [d.astype(np.float64) for d in dy]
    given = tuple(moved(np.asarray(d)) for d in dy)
    results = vjp(given if several else given[0])
    references = reference_vjp(tuple(dy64) if several else dy64[0])
    if len(arrays) == 1:
        results, references = (results,), (references,)
    for x, g, g64 in zip(arrays, results, references, strict=True):
        if callable(g):
            out = moved(np.full(x.shape, np.nan, np.float32))
            g(out, False)
            assert_close(out.get(), g64, tolerance, size)
            g(out, True)
            assert_close(out.get(), 2 * g64, tolerance, size)
            out = moved(np.full(x.shape, np.nan, x.dtype))  # where a value is no Parameter
            g(out, False)
            assert_close(out.get(), g64, tolerance, size)
        else:
            assert g.dtype == x.dtype
            assert_close(g.get(), g64, tolerance, size)


def assert_close(found: np.ndarray, expected: Any, tolerance: float, size: float = 0.0) -> None:
    found, expected = found.astype(np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected)
    assert error <= tolerance * (np.linalg.norm(expected) + size)


@given(dtypes, st.sampled_from([24, 264, 512]), st.integers(1, 30), sites, st.booleans(), seeds)
def test_add_dropout_norm(dtype, columns, rows, site, alone, seed):
    normal = Random(seed, dtype)
    x, residual = normal(rows, columns), normal(rows, columns)
    gain, bias = normal(columns, dtype=FLOAT32), normal(columns, dtype=FLOAT32)
    if alone:
        check(ops.layer_norm, (x, gain, bias), seed, scale=1.0)
    else:
        check(ops.add_dropout_norm, (x, residual, gain, bias), seed, scale=1.0, site=site)


@given(dtypes, st.sampled_from([8, 264]), st.integers(1, 30), sites.filter(bool), seeds)
def test_dropout(dtype, columns, rows, site, seed):
    check(ops.dropout, (Random(seed, dtype)(rows, columns),), seed, site=site)


@given(
    dtypes,
    st.sampled_from([(3, 5), (257, 16), (1003, 8)]),
    st.integers(1, 40),
    st.sampled_from(["vocabulary", "others"]),
    st.floats(0, 0.5),
    seeds,
)
def test_cross_entropy(dtype, sizes, tokens, spread, smoothing, seed):
    vocabulary, d = sizes
    normal = Random(seed, dtype)
    check(
        ops.projected_cross_entropy,
        (normal(tokens, d), normal(vocabulary, d)),
        seed,
        scale=1.0,
        targets=normal.integers(0, vocabulary, tokens),
        smoothing=smoothing,
        spread=spread,
    )


@pytest.mark.parametrize("used", [0, 1])
def test_the_gradient_of_one_loss_alone(used):
    normal = Random(7, FLOAT32)
    x, weight, targets = normal(20, 8), normal(257, 8), normal.integers(0, 257, 20)
    chosen = {"targets": targets, "smoothing": 0.1}
    with Tape():
        _, vjp = ops.projected_cross_entropy._run((moved(x), moved(weight)), on_the_device(chosen))
    _, reference = ops.projected_cross_entropy.reference(x, weight, **chosen)
    dy = [0.0, 0.0]
    dy[used] = 0.3
    dx, dweight = reference(tuple(dy))
    dy[used] = moved(np.array(0.3, np.float32))
    found, write = vjp(tuple(dy))
    out = moved(np.full(weight.shape, np.nan, np.float32))
    write(out, False)
    assert_close(found.get(), dx, 1e-5)
    assert_close(out.get(), dweight, 1e-5)


@given(
    dtypes,
    st.sampled_from([8, 40, 264, 520]),
    st.integers(1, 90),
    st.integers(0, 10),
    sites,
    st.booleans(),
    seeds,
)
def test_embedding(dtype, columns, tokens, last, site, placed, seed):
    """Of up to 11 symbols; where they are few, each is used by many tokens."""
    normal = Random(seed, dtype)
    arrays = (normal(11, columns), normal(9, columns))[: 1 + placed]
    check(
        ops.embedding,
        arrays,
        seed,
        ids=normal.integers(-1, last + 1, tokens),
        places=normal.integers(0, 9, tokens) if placed else None,
        scale=2.5,
        site=site,
    )


@given(
    dtypes,
    st.sampled_from([(8, 8), (24, 248), (16, 520)]),
    st.integers(1, 300),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_linear(dtype, sizes, rows, biased, relu, seed):
    d_in, d_out = sizes
    normal = Random(seed, dtype)
    arrays = (normal(rows, d_in), normal(d_in, d_out), normal(d_out))
    if relu:
        # Where a sum is all but zero, its rounding decides what passes: let it be exact, and not 0.
        x, weight, bias = (np.clip(np.rint(a.astype(FLOAT32)), -2, 2) for a in arrays)
        arrays = tuple(a.astype(dtype) for a in (x, weight, bias + 0.5))
    check(ops.linear, arrays[: 2 + biased], seed, scale=1.0, relu=relu)


some_lengths = st.lists(
    st.sampled_from([0, 1, 2, 15, 16, 17, 30, 32, 33, 48, 49, 64, 65, 130]), min_size=1, max_size=3
)


@given(
    dtypes,
    st.sampled_from([(16, 16), (64, 64), (32, 48), (5, 40)]),
    some_lengths,
    some_lengths,
    st.sampled_from(["causal", "self", "cross"]),
    sites,
    st.sampled_from([1.0, 3.0]),
    seeds,
)
def test_attention(dtype, sizes, lengths, key_lengths, kind, site, sharpness, seed):
    d_k, d_v = sizes
    heads = 2
    lengths = np.array(lengths)
    normal, tokens = Random(seed, dtype), int(lengths.sum())
    chosen = {"heads": heads, "d_k": d_k, "lengths": lengths, "site": site}
    if kind == "cross":
        chosen["key_lengths"] = np.resize(np.array(key_lengths), len(lengths))
        keys = int(chosen["key_lengths"].sum())
        arrays = normal(tokens, heads * d_k), normal(keys, heads * (d_k + d_v))
    else:
        chosen["causal"] = kind == "causal"
        arrays = (normal(tokens, heads * (2 * d_k + d_v)),)
    arrays[0][:, : heads * d_k] *= dtype.type(sharpness)
    # p (dp - Σ p dp) cancels where one weight is nearly all: what is left is the rounding of terms
    # that are some times dy times what the queries were multiplied by.
    check(ops.attention, arrays, seed, scale=0.3 * sharpness, **chosen)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_attention_needs_memory_for_tokens_and_not_for_pairs_of_them(dtype):
    """So the budget of tokens that a batch has counts what attention needs."""
    made: list[int] = []
    empty = backend(OWNER).empty

    def counted(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        made.append(int(np.prod(shape)) * dtype.itemsize)
        return empty(shape, dtype)

    def needed(tokens: int) -> int:
        made.clear()
        q = moved(Random(0, dtype)(tokens, 2 * 48))
        _, vjp = ops.attention._run((q,), {"heads": 2, "d_k": 16, "lengths": np.array([tokens])})
        vjp(moved(Random(1, dtype)(tokens, 2 * 16)))
        return sum(made)

    with fresh_arrays(counted):
        assert needed(192) == 2 * needed(96)


@given(st.integers(1, 600), seeds)
def test_adam(fours, seed):
    normal = Random(seed, FLOAT32)
    arrays = [normal(4 * fours) for _ in range(4)]
    arrays[3] = abs(arrays[3])
    expected = [a.astype(np.float64) for a in arrays]
    there = [moved(a) for a in arrays]
    numbers = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 7, "scale": 0.3}
    with watching(ops.adam_step, ops.squared_norm) as calls:
        norm = ops.squared_norm(there[1])
        ops.adam_step(*there, **numbers)
    assert calls[ops.adam_step][0][2] == calls[ops.squared_norm][0][2] == "fast"
    assert np.isclose(float(norm), (expected[1] ** 2).sum(), rtol=1e-6)
    ops.adam_step.reference(*expected, **numbers)
    for found, wanted in zip(there, expected, strict=True):
        assert_close(found.get(), wanted, 1e-6)


def test_adam_rounds_a_copy_and_takes_its_scale_from_the_device():
    normal = Random(0, FLOAT32)
    values, grads = moved(normal(40)), moved(normal(40))
    moments = moved(np.zeros(40, np.float32)), moved(np.zeros(40, np.float32))
    rounded = moved(np.full(40, np.nan, BFLOAT16))
    numbers = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 1}

    def step(scale: float) -> None:
        device_scale = moved(np.array(scale, np.float32))
        ops.adam_step(values, grads, *moments, **numbers, scale=device_scale, rounded=rounded)

    step(0.5)
    assert_close(moments[0].get(), 0.05 * grads.get(), 1e-6)
    assert np.array_equal(rounded.get(), values.get().astype(BFLOAT16))
    before = [x.get() for x in (values, *moments, rounded)]
    for scale in (np.nan, np.inf):
        step(scale)
    for x, y in zip((values, *moments, rounded), before, strict=True):
        assert np.array_equal(x.get(), y)


@pytest.mark.parametrize("name", ["linear", "add_dropout_norm", "embedding", "attention", "loss"])
def test_what_no_kernel_covers_is_computed_in_float32_and_rounded(name, monkeypatch):
    """CuPy has no stacked products and no sorting of bfloat16."""
    normal = Random(0, BFLOAT16)
    lengths, ids = np.array([3, 4]), normal.integers(0, 4, 7)
    gains = normal(5, dtype=FLOAT32), normal(5, dtype=FLOAT32)
    operation, arrays, chosen = {
        "linear": (ops.linear, (normal(7, 5), normal(5, 3), normal(3)), {}),
        "add_dropout_norm": (
            ops.add_dropout_norm, (normal(7, 5), normal(7, 5), *gains), {"site": None},
        ),
        "embedding": (ops.embedding, (normal(9, 5), normal(4, 5)), {"ids": ids, "places": ids}),
        "attention": (ops.attention, (normal(7, 9),), {"heads": 1, "d_k": 3, "lengths": lengths}),
        "loss": (ops.projected_cross_entropy, (normal(7, 5), normal(9, 5)), {"targets": ids}),
    }[name]  # fmt: skip
    for module in ("attention", "cross_entropy"):
        found = importlib.import_module(f"autograd.cuda.{module}")
        monkeypatch.setattr(found, "_is_covered", lambda *_: False)
    check(operation, arrays, 0, scale=1.0, **chosen)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_symbols_of_a_vocabulary_that_no_kernel_covers(dtype, monkeypatch):
    monkeypatch.setattr(importlib.import_module("autograd.cuda.likeliest"), "_MOST_NUMBERS", 0)
    normal = Random(1, dtype)
    x, weight = normal(4, 8), normal(50, 8)
    log_p, symbols = ops.likeliest_symbols(moved(x), moved(weight), count=3)
    expected, which = ops.likeliest_symbols.reference(
        x.astype(np.float32), weight.astype(np.float32), count=3
    )
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p.get(), expected, rtol=1e-5)
    np.testing.assert_array_equal(symbols.get(), which)


def test_a_kernel_whose_threads_wait_for_ever_is_an_error():
    kernels = emulator.load_text(
        'extern "C" __global__ void stuck() '
        "{ if (threadIdx.x) __syncthreads(); else __syncwarp(); }"
    )
    with pytest.raises(emulator.KernelError, match="wait for others that never come"):
        kernels.launch("stuck", (1,), (32,), [])


def test_a_gradient_is_added_to_any_matrix():
    """Where cuBLAS and kernels cannot write, too: in an array that lies another way."""
    normal = Random(3, FLOAT32)
    arrays = normal(9, 16), normal(16, 8), normal(8)
    _, vjp = ops.linear._run(tuple(map(moved, arrays)), {})
    dy, before = normal(9, 8), normal(16, 9)
    dx, dweight, dbias = vjp(moved(dy))
    out = moved(before).T
    dx(out, True)
    assert_close(out.get(), before.T + dy @ arrays[1].T, 1e-5)
    for writer, expected in ((dweight, arrays[0].T @ dy), (dbias, dy.sum(axis=0))):
        out = moved(np.full((*expected.shape, 2), np.nan, np.float32))[..., 1]
        writer(out, False)
        assert_close(out.get(), expected, 1e-5)


@given(
    dtypes,
    st.sampled_from([(8, 8), (16, 16), (64, 64), (256, 256), (5, 40), (24, 24)]),
    st.sampled_from([0, 4, 16]),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_cached_attention(dtype, sizes, beside, length, scattered, limited, seed):
    """Where queries have what is no query beside them, as in Q‖K‖V."""
    d_k, d_v = sizes
    heads, groups, n, capacity = 2, 5, 3, 41
    normal = Random(seed, dtype)
    q, kv = normal(groups, n, heads * d_k + beside), normal(7, capacity, heads * (d_k + d_v))
    slots = normal.rng.integers(0, 7, (groups, capacity if scattered else 1))
    lengths = normal.rng.integers(1, length + 1, groups) if limited else None
    chosen = {"heads": heads, "d_k": d_k, "slots": slots, "length": length, "key_lengths": lengths}
    on_device = {k: moved(v) if isinstance(v, np.ndarray) else v for k, v in chosen.items()}
    with watching(ops.cached_attention) as calls:
        found = ops.cached_attention(moved(q), moved(kv), **on_device)
    assert calls[ops.cached_attention][0][2] == "fast"
    assert found.dtype == dtype
    expected = ops.cached_attention.reference(q.astype(np.float64), kv.astype(np.float64), **chosen)
    assert_close(found.get(), expected, TOLERANCE[dtype])


@given(dtypes, seeds)
def test_append_to_cache(dtype, seed):
    normal = Random(seed, dtype)
    new, kv = normal(4, 70), normal(6, 9, 50)
    slots, expected = normal.rng.permutation(6)[:4], kv.copy()
    ops.append_to_cache.reference(new, expected, slots=slots, length=5)
    found = moved(kv)
    ops.append_to_cache(moved(new), found, slots=moved(slots), length=5)
    assert np.array_equal(found.get(), expected)


@given(dtypes, st.sampled_from([3, 257, 1003]), st.integers(1, 6), st.integers(1, 9), seeds)
def test_likeliest_symbols(dtype, vocabulary, rows, count, seed):
    normal = Random(seed, dtype)
    x, weight = normal(rows, 8), normal(vocabulary, 8)
    count = min(count, vocabulary)
    with watching(ops.likeliest_symbols) as calls:
        log_p, symbols = ops.likeliest_symbols(moved(x), moved(weight), count=count)
    assert calls[ops.likeliest_symbols][0][2] == "fast"
    logits = (x.astype(np.float32) @ weight.astype(np.float32).T).astype(dtype).astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    all_log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    order = np.lexsort((np.broadcast_to(np.arange(vocabulary), logits.shape), -logits))
    expected = np.take_along_axis(all_log_p, order[:, :count], axis=1)
    if OWNER == "strict":
        assert np.array_equal(symbols.get(), order[:, :count])
    # A GPU may round a product of its own another way, and so see two in the other order.
    within = 1e-5 if OWNER == "strict" or dtype == FLOAT32 else 0.05
    of_symbols = np.take_along_axis(all_log_p, symbols.get(), axis=1)
    assert np.allclose(of_symbols, expected, rtol=within, atol=within)
    assert np.allclose(log_p.get(), expected, rtol=within, atol=within)
