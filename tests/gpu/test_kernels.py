"""Every kernel on a real GPU: the tests of the emulator, and larger ones.

Sentences of real lengths, vocabularies and widths of the paper are too large to be emulated.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

from autograd import Sentences, Tape, array_module, ops
from autograd.cuda.products import allow_tf32
from autograd.writers import parted
from tests.autograd import on_device
from tests.autograd.drawing import seeds, sites
from tests.autograd.on_device import (
    BFLOAT16,
    FLOAT32,
    Random,
    check,
    dtypes,
    fresh_arrays,
    full_of_nan,
    moved,
)
from tests.autograd.test_cuda import *  # noqa: F403 (every test of the emulator, here on the GPU)
from tests.autograd.test_cuda_decoding import *  # noqa: F403

pytestmark = []  # not the emulator's fixtures
del test_a_deadlock_of_threads_is_an_error  # noqa: F821 (for the emulator only)


@pytest.fixture(scope="module", autouse=True)
def on_the_gpu():
    before, on_device.BACKEND = on_device.BACKEND, "cupy"
    yield
    on_device.BACKEND = before


@pytest.fixture(autouse=True)
def fresh_arrays_hold_nan():
    with fresh_arrays(full_of_nan):
        yield


ragged = st.lists(st.integers(0, 300), max_size=40)  # perhaps no sentence


@settings(max_examples=60)
@given(
    dtypes,
    st.sampled_from([(8, 64, 64), (4, 128, 128), (1, 32, 512)]),  # each is compiled often
    ragged,
    st.sampled_from(["causal", "self", "cross"]),
    sites,
    seeds,
)
def test_attention_of_ragged_sentences(dtype, sizes, lengths, kind, site, seed):
    heads, d_k, d_v = sizes
    normal, lengths = Random(seed, dtype), np.array(lengths, np.int64)
    chosen = {"heads": heads, "d_k": d_k, "sentences": Sentences(lengths), "site": site}
    if kind == "cross":
        chosen["key_sentences"] = Sentences(normal.rng.permutation(lengths))
        keys = int(lengths.sum())
        arrays = normal(keys, heads * d_k), normal(keys, heads * (d_k + d_v))
    else:
        chosen["causal"] = kind == "causal"
        arrays = (normal(int(lengths.sum()), heads * (2 * d_k + d_v)),)
    check(ops.attention, arrays, seed, scale=0.3, **chosen)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_a_sentence_of_4096(dtype, causal):
    arrays = (Random(0, dtype)(4096, 2 * 3 * 64),)
    chosen = {"heads": 2, "d_k": 64, "sentences": Sentences([4096]), "causal": causal}
    check(ops.attention, arrays, 0, scale=0.3, site=None, **chosen)


@pytest.mark.parametrize("sizes", [(48, 48), (48, 64), (64, 48)])
def test_attention_may_use_more_than_the_default_shared_memory(sizes):
    """48 KB: a block of 64 queries and keys needs 45, or 49 if either is wider."""
    d_k, d_v = sizes
    arrays = (Random(0, BFLOAT16)(64, 2 * d_k + d_v),)
    chosen = {"heads": 1, "d_k": d_k, "sentences": Sentences([64])}
    check(ops.attention, arrays, 0, scale=0.3, site=None, **chosen)


@settings(max_examples=6)
@given(dtypes, st.sampled_from([(37_000, 64), (10_001, 48)]), st.integers(1, 400), seeds)
def test_cross_entropy_of_a_real_vocabulary(dtype, sizes, tokens, seed):
    vocabulary, d = sizes
    normal = Random(seed, dtype)
    weight = normal(vocabulary, d) / dtype.type(np.sqrt(d))
    targets = normal.integers(-1, vocabulary, tokens)
    check(
        ops.projected_cross_entropy,
        (normal(tokens, d), weight.astype(dtype)),
        seed,
        scale=1.0,
        targets=targets,
        smoothing=0.1,
    )


@settings(max_examples=10)
@given(
    dtypes,
    st.sampled_from([128, 512, 1024, 2048]),
    st.integers(1, 5000),
    sites,
    seeds,
)
def test_norms_of_real_widths(dtype, columns, rows, site, seed):
    normal = Random(seed, dtype)
    arrays = normal(rows, columns), normal(rows, columns)
    gains = normal(columns, dtype=FLOAT32), normal(columns, dtype=FLOAT32)
    check(ops.add_dropout_norm, (*arrays, *gains), seed, scale=1.0, site=site)


@settings(max_examples=10)
@given(dtypes, st.integers(1, 3000), seeds)
def test_embeddings_with_frequent_tokens(dtype, tokens, seed):
    normal = Random(seed, dtype)
    ids = np.minimum(normal.rng.zipf(1.3, tokens), 999).astype(np.int32)
    position_ids = normal.integers(0, 256, tokens)
    arrays = normal(1000, 512), normal(256, 512)
    check(ops.embedding, arrays, seed, ids=ids, position_ids=position_ids, scale=22.6, site=None)


def test_tf32_rounds_the_factors_only_if_it_is_allowed():
    normal = Random(0, FLOAT32)
    x, weight = normal(256, 512), normal(512, 256)
    expected = x.astype(np.float64) @ weight.astype(np.float64)

    def error() -> float:
        found = ops.linear._run((moved(x), moved(weight)), {})[0].get()
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    assert error() < 1e-5
    try:
        allow_tf32(True)
        assert 1e-5 < error() < 1e-2
    finally:
        allow_tf32(False)
    assert error() < 1e-5


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_operations_give_the_same_bits_every_time(dtype):
    """Gradients are summed in a fixed order, whichever blocks run first."""
    normal = Random(3, dtype)
    x, weight, bias = normal(3000, 512), normal(512, 512), normal(512, dtype=FLOAT32)
    qkv, dy, own_bias = normal(3000, 3 * 512), normal(3000, 512), normal(512)
    ids = np.minimum(normal.rng.zipf(1.3, 3000), 999).astype(np.int32)
    lengths = np.array([250] * 10 + [100, 60, 30, 10] * 2 + [100])

    def results() -> list[bytes]:
        found = []
        with Tape():
            for operation, arrays, chosen in (
                (ops.linear, (x, weight, own_bias), {"relu": True}),
                (ops.feed_forward, (x, weight, own_bias, weight, own_bias), {}),
                (ops.attention, (qkv,), {"heads": 8, "d_k": 64, "sentences": Sentences(lengths)}),
                (ops.embedding, (normal_table,), {"ids": moved(ids), "site": None}),
                (ops.add_dropout_norm, (x, dy, bias, bias), {"site": None}),
                (ops.projected_cross_entropy, (x, normal_table), {"targets": moved(ids)}),
            ):
                y, vjp = operation._run(tuple(map(moved, arrays)), chosen)
                several = isinstance(y, tuple)
                gradients = vjp(array_module(y[0]).ones_like(y[0]) if several else moved(dy))
                gradients = gradients if isinstance(gradients, tuple) else (gradients,)
                found += [part.get().tobytes() for part in (y if several else (y,))]
                for g, a in zip(gradients, arrays, strict=True):
                    g, write_sum = parted(g)
                    if write_sum is not None:
                        total = moved(np.zeros(a.shape[1:], np.float32))
                        write_sum(total, False)
                        found.append(total.get().tobytes())
                    if callable(g):
                        out = moved(np.zeros(a.shape, np.float32))
                        g(out, False)
                        g = out
                    found.append(g.get().tobytes())
        return found

    normal_table = normal(1000, 512)
    first = results()
    assert len(first) == (5 + 2) + (3 + 5 + 1 + 1 + 5 + 2)  # outputs and gradients
    for _ in range(5):
        assert results() == first
