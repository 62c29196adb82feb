"""Every operation's reference on CuPy, compared with NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Sentences, check_gradients, ops, references
from autograd.backend import backend, bfloat16
from tests.autograd.cases import CASES
from tests.autograd.drawing import values_and_gradients


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=20)
@given(data=st.data())
def test_references_give_the_same_results_on_a_gpu(operation, data):
    case = data.draw(CASES[operation])
    there = case.on(backend("cupy"))
    with references():
        expected = values_and_gradients(case.run, case.arrays)
        got = values_and_gradients(there.run, there.arrays)
    for x, y in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=3)
@given(data=st.data())
def test_references_compute_bfloat16_on_a_gpu(operation, data):
    case = data.draw(CASES[operation])
    narrow = replace(case, arrays=tuple(a.astype(bfloat16()) for a in case.arrays))
    wide = [a.astype(np.float32) for a in narrow.arrays]
    there = narrow.on(backend("cupy"))
    with references():
        expected = values_and_gradients(case.run, wide)
        found = values_and_gradients(there.run, there.arrays)
    for x, y in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        error = np.linalg.norm(x.astype(np.float32) - y)
        assert error <= 0.05 * np.linalg.norm(y) + 1e-2


def test_gradients_can_be_checked_on_a_gpu():
    inputs = np.random.default_rng(0).random((2, 3, 3))
    asarray = backend("cupy").asarray
    check_gradients(lambda x, w: ops.softmax(x @ w), *map(asarray, inputs))


def test_adam_and_the_operations_of_decoding_run_on_a_gpu():
    rng = np.random.default_rng(0)
    target = backend("cupy")
    state = [rng.uniform(0.1, 1, 8) for _ in range(4)]
    moved = [target.asarray(x) for x in state]
    chosen = {"rate": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 3, "scale": 0.5}
    x, weight = rng.standard_normal((5, 8)), rng.standard_normal((30, 8))
    q, kv = rng.standard_normal((3, 2, 8)), rng.standard_normal((4, 6, 16))
    slots, qkv = rng.integers(0, 4, (3, 5)), rng.standard_normal((7, 24))
    heads = {"heads": 2, "d_k": 4}
    sentences = Sentences([3, 0, 4])
    with references():
        ops.adam_step(*state, **chosen)
        ops.adam_step(*moved, **chosen)
        here = ops.top_k(x, weight, k=4)
        there = ops.top_k(target.asarray(x), target.asarray(weight), k=4)
        for into, array in ((state, np.asarray), (moved, target.asarray)):
            kept = array(kv.copy())
            lengths = array(np.full(3, 5))
            ops.append_to_cache(array(qkv[:3]), kept, slots=array(np.arange(3)), lengths=lengths)
            attended = ops.cached_attention(
                array(q), kept, **heads, slots=array(slots), lengths=lengths
            )
            weights = ops.attention_weights(array(qkv), **heads, sentences=sentences, causal=True)
            into += [kept, attended, *weights, ops.squared_norm(array(q.reshape(-1)))]
    for a, b in zip((*state, *here), (*moved, *there), strict=True):
        np.testing.assert_allclose(a, target.to_host(b), rtol=1e-10)
