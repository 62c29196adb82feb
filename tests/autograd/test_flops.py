"""Floating-point operations are counted by the references themselves, and chains by the tape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import (
    BackendError,
    Parameter,
    Sentences,
    Tape,
    Tensor,
    count_flops,
    op,
    ops,
    references,
    using,
)
from autograd.dropout import DropoutStream
from autograd.flops import SUMS
from tests.autograd.cases import CASES
from tests.autograd.drawing import values_and_gradients
from tests.without_gpu import strict_arrays

rng = np.random.default_rng(0)


def array(*shape):
    return rng.standard_normal(shape, dtype=np.float32)


def counted(operation, *arrays, **settings_):
    """The counts of an operation, forward and backward."""
    with count_flops() as flops:
        tensors = [Tensor(x) for x in arrays]
        with Tape() as tape:
            results = operation(*tensors, **settings_)
        y = results[0] if isinstance(results, tuple) else results
        tape.backward(y, np.ones(y.shape, y.dtype), wanted=tensors)
    assert set(flops.forward) | set(flops.backward) <= {operation.name, SUMS}
    return flops.forward[operation.name], flops.backward[operation.name]


n, d, m, vocabulary = 5, 8, 6, 11
SITE = DropoutStream(1, 2).site(3, 0.5)


def softmax_counts(rows, columns):
    """Largest, difference, exp, sum, quotient; y · dy, its sum, difference, y · that."""
    return 5 * rows * columns, 4 * rows * columns


# Worked out by hand from the formulas of the operations, in the order of their references.
BY_HAND = {
    "matmul": (
        lambda: counted(ops.matmul, array(n, d), array(d, m)),
        (2 * n * d * m, 4 * n * d * m),
    ),
    "linear": (
        lambda: counted(ops.linear, array(n, d), array(d, m), array(m)),
        (2 * n * d * m + n * m, 4 * n * d * m + n * m),
    ),
    "softmax": (lambda: counted(ops.softmax, array(n, d)), softmax_counts(n, d)),
    "tanh": (lambda: counted(ops.tanh, array(n)), (n, 3 * n)),
    "sum": (lambda: counted(ops.sum, array(n, d)), (n * d, 0)),
    "take": (lambda: counted(ops.take, array(n, d), index=np.array([0, 0, 2])), (0, 3 * d)),
    # Mean (and its quotient), difference, square, mean, ε, root, inverse, product; gain, bias.
    "layer_norm": (
        lambda: counted(ops.layer_norm, array(n, d), array(d), array(d)),
        (2 * (n * d + n) + 5 * n * d + 3 * n, 2 * n * d + n * d + 2 * (n * d + n) + n * d * 6),
    ),
    # Look-up, scale and known ids (and their product); positions; dropout, forward and backward.
    "embedding": (
        lambda: counted(
            ops.embedding,
            array(vocabulary, d),
            array(m, d),
            ids=np.arange(n),
            position_ids=np.arange(n),
            site=SITE,
        ),
        (n + n * d + n * d + 2 * n * d, n * d + n * d + n * d + n * d),
    ),
    # A head of width 4: products, √d_k, softmax; the same backwards, two products for each, and
    # the gradients of keys and values, which blocks of queries may share, are added up.
    "attention": (
        lambda: counted(ops.attention, array(n, 3 * d), heads=2, d_k=4, sentences=Sentences([n])),
        (
            2 * 2 * n * n * d + 2 * n * n + softmax_counts(2 * n, n)[0],
            4 * 2 * n * n * d + 2 * n * n + softmax_counts(2 * n, n)[1] + 2 * n * d,
        ),
    ),
    "projected_cross_entropy": (
        lambda: counted(
            ops.projected_cross_entropy,
            array(n, d),
            array(vocabulary, d),
            targets=np.arange(n),
            smoothing=0.1,
        ),
        (
            2 * n * d * vocabulary + 6 * n * vocabulary + n + n + 4 * n + 2 * n,
            2 * n * vocabulary + n + 4 * n * d * vocabulary,
        ),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_are_those_worked_out_by_hand(name):
    count, expected = BY_HAND[name]
    assert count() == expected


@pytest.mark.parametrize("causal", [False, True])
def test_the_work_of_restricted_attention_grows_with_the_sentence_and_with_the_window(causal):
    def total(length, window):
        shape = {"heads": 2, "d_k": 4, "sentences": Sentences([length])}
        return sum(counted(ops.attention, array(length, 24), **shape, causal=causal, window=window))

    work = [total(length, 8) for length in (64, 128, 192, 256)]
    assert np.ptp(np.diff(work)) == 0
    assert total(256, 16) < 2.2 * total(256, 8)
    assert total(256, 8) < total(256, None) / 10


MOVES = {"reshape", "transpose", "take", "concatenate", "stack", "split", "astype"}
MAY_MOVE = {"dropout", "select", "clip", "embedding"}  # depending on settings


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=8)
@given(data=st.data())
def test_every_operation_is_counted_and_computes_the_same(operation, data):
    case = data.draw(CASES[operation])
    arrays = tuple(x.astype(np.float32) for x in case.arrays)
    with references():
        expected = values_and_gradients(case.run, arrays)
    with count_flops() as flops:
        got = values_and_gradients(case.run, arrays)
    for x, y in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        np.testing.assert_array_equal(x, y)
        assert type(x) is np.ndarray
    with count_flops() as again, references():
        values_and_gradients(case.run, arrays)
    assert (again.forward, again.backward) == (flops.forward, flops.backward)

    forward = flops.forward[operation.name]
    if operation.name in MOVES:
        assert forward == 0
    elif operation.name not in MAY_MOVE:
        assert forward > 0 or not any(y.any() for y in got[0])


FUNCTIONS = {
    ops.squared_norm: (lambda: ops.squared_norm(array(n)), 2 * n),
    ops.adam_step: (
        lambda: ops.adam_step(
            *(abs(array(n)) for _ in range(4)),
            rate=0.1,
            beta1=0.9,
            beta2=0.98,
            epsilon=1e-9,
            step=1,
        ),
        14 * n + 1,  # and whether the scale is finite
    ),
    ops.append_to_cache: (
        lambda: ops.append_to_cache(
            array(2, d), array(2, 3, d), slots=np.arange(2), lengths=np.ones(2, int)
        ),
        0,
    ),
    ops.cached_attention: (
        lambda: ops.cached_attention(
            array(3, 1, d),
            array(3, m, 2 * d),
            heads=2,
            d_k=4,
            slots=np.arange(3)[:, None],
            lengths=np.full(3, m),
        ),
        3 * (2 * 2 * m * d + 2 * 2 * m) + softmax_counts(3 * 2, m)[0],  # with what hides a key
    ),
    ops.top_k: (
        lambda: ops.top_k(array(n, d), array(vocabulary, d), k=2),
        2 * n * d * vocabulary + 4 * n * vocabulary + 2 * n + 2 * 2 * n,
    ),
}


@pytest.mark.parametrize("operation", FUNCTIONS, ids=lambda o: o.name)
def test_functions_without_a_gradient_are_counted(operation):
    call, expected = FUNCTIONS[operation]
    with count_flops() as flops:
        call()
    assert flops.forward[operation.name] == flops.total == expected


def test_functions_that_write_to_their_arguments_do_so_while_they_are_counted():
    values, grads = array(n), array(n)
    before = values.copy()
    with count_flops():
        settings_ = {"rate": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 1}
        ops.adam_step(values, grads, np.zeros(n), np.zeros(n), **settings_)
    assert (values != before).all()


def test_the_tape_counts_what_it_adds_up():
    w, x = Parameter(np.ones((2, 3))), np.ones((4, 2))
    with count_flops() as flops:
        with Tape() as tape:
            y = (x @ w + x @ w).sum()
        tape.backward(y)
    assert flops.backward[SUMS] == w.size
    np.testing.assert_array_equal(w.grad, np.full((2, 3), 8.0))


def test_writers_are_counted():
    x = Tensor(np.array([2.0, 3.0]))
    exponent = Tensor(np.array([2.0, 3.0]))
    with count_flops() as flops:
        with Tape() as tape:
            y = ops.power(x, exponent)
        tape.backward(y, np.ones(2), wanted=[x])
        of_x = flops.backward["power"]
        with Tape() as tape:
            y = ops.power(x, exponent)
        tape.backward(y, np.ones(2), wanted=[x, exponent])
    assert flops.backward["power"] - of_x > of_x


def test_nothing_is_counted_outside():
    with count_flops() as flops:
        pass
    ops.exp(np.ones(3))
    assert flops.total == 0
    assert not ops.exp(Tensor([1.0])).value.__class__.__name__.startswith("_")


def test_a_function_that_cannot_be_counted_is_refused():
    @op
    def product(x):
        return np.einsum("ij,jk->ik", x, x), lambda dy: dy

    with count_flops(), pytest.raises(NotImplementedError, match="einsum are not counted"):
        product(np.ones((2, 2)))


def test_products_of_vectors_are_refused():
    """Each number of the result is a sum, of more than one operation."""

    @op
    def product(x):
        return np.vecdot(x, x), lambda dy: dy

    with count_flops(), pytest.raises(NotImplementedError, match=r"numpy\.vecdot are not counted"):
        product(np.ones((2, 2)))


def test_arrays_of_a_device_are_refused():
    strict_arrays.register()
    with using("strict") as backend, count_flops(), pytest.raises(BackendError, match="on NumPy's"):
        ops.exp(backend.asarray([1.0]))


def test_the_longest_chain_is_that_of_the_dependent_operations():
    x = Tensor(np.ones(3))
    with Tape() as tape:
        side = ops.exp(ops.exp(x))
        y = x
        for _ in range(5):
            y = y * 2 + x
        parts = ops.split(y, sections=3)
        ops.concatenate(parts[2], side)
    assert len(tape) == 14
    assert tape.longest_chain() == 12
    assert Tape().longest_chain() == 0
