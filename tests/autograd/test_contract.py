"""Every reference obeys the contract of autograd/operation.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import DropoutStream, Sentences, Tape, Tensor, ops, references
from autograd.backend import bfloat16
from tests.autograd.cases import CASES
from tests.autograd.contract import check_contract
from tests.autograd.drawing import values_and_gradients

every_op = pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)


def as_dtype(case, dtype):
    return tuple(x.astype(dtype) for x in case.arrays)


@every_op
@settings(max_examples=40)
@given(data=st.data())
def test_references_obey_the_contract(operation, data):
    case = data.draw(CASES[operation])
    for dtype in (np.float32, np.float64):
        check_contract(
            operation.reference,
            *as_dtype(case, dtype),
            auxiliary=operation.auxiliary,
            **case.settings,
        )


@every_op
@settings(max_examples=25)
@given(data=st.data())
def test_references_in_float32_agree_with_those_in_float64(operation, data):
    case = data.draw(CASES[operation])
    rounded = as_dtype(case, np.float32)  # both start from the same numbers
    with references():
        single = values_and_gradients(case.run, rounded)
        double = values_and_gradients(case.run, tuple(x.astype(np.float64) for x in rounded))
    assert all(y.dtype == case.settings.get("dtype", np.float32) for y in single[0])
    assert all(g.dtype == np.float32 for g in single[1])
    for got, expected in zip(single[0] + single[1], double[0] + double[1], strict=True):
        size = abs(expected).max(initial=1)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * size)


def transposed(x):
    return x.T.copy().T


def every_second(x):
    between = np.nan if x.dtype.kind == "f" else 99
    wide = np.full(tuple(2 * n for n in x.shape), between, x.dtype)
    view = wide[(..., *(slice(None, None, 2) for _ in x.shape))]
    view[...] = x
    return view


def backwards(x):
    flip = (slice(None, None, -1),) * x.ndim
    return x[flip].copy()[flip]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@every_op
@settings(max_examples=12)
@given(data=st.data())
def test_references_accept_arrays_of_any_layout(operation, data):
    case = data.draw(CASES[operation])
    contiguous = check_contract(
        operation.reference, *case.arrays, auxiliary=operation.auxiliary, **case.settings
    )
    for layout in (transposed, every_second, backwards, read_only):
        laid_out = check_contract(
            operation.reference,
            *map(layout, case.arrays),
            auxiliary=operation.auxiliary,
            **case.settings,
        )
        for got, expected in zip(
            laid_out[0] + laid_out[1], contiguous[0] + contiguous[1], strict=True
        ):
            np.testing.assert_allclose(
                got, expected, rtol=1e-10, atol=1e-11, err_msg=layout.__name__
            )


@every_op
@settings(max_examples=12)
@given(data=st.data())
def test_constants_do_not_change_the_gradients_of_other_arguments(operation, data):
    case = data.draw(CASES[operation])
    constant = data.draw(st.lists(st.booleans(), min_size=2, max_size=len(case.arrays) + 1))
    chosen = [i for i in range(len(case.arrays)) if i == 0 or not constant[i % len(constant)]]

    def partly_constant(*tensors):
        arguments = list(case.arrays)
        for i, t in zip(chosen, tensors, strict=True):
            arguments[i] = t
        return case.run(*arguments)

    with references():
        _, everything = values_and_gradients(case.run, case.arrays)
        _, some = values_and_gradients(partly_constant, [case.arrays[i] for i in chosen])
    for i, g in zip(chosen, some, strict=True):
        np.testing.assert_array_equal(g, everything[i])


x = np.ones((3, 4), np.float32)
NUMPY_SCALARS = {
    "scale of embedding": lambda t: ops.embedding(t, ids=np.array([0, 1]), scale=np.sqrt(512)),
    "epsilon of layer_norm": lambda t: ops.layer_norm(t, x[0], x[0], epsilon=np.float64(1e-6)),
    "epsilon of add_dropout_norm": lambda t: ops.add_dropout_norm(
        t, x, x[0], x[0], epsilon=np.float64(1e-6)
    ),
    "exponent of power": lambda t: ops.power(t, exponent=np.float64(2)),
    "smoothing": lambda t: ops.projected_cross_entropy(
        t, x, targets=np.array([0, 1, 2]), smoothing=np.float64(0.1)
    )[0],
    "0-d epsilon": lambda t: ops.layer_norm(t, x[0], x[0], epsilon=np.array(1e-6)),
    "0-d scale": lambda t: ops.embedding(t, ids=np.array([0, 1]), scale=np.array(2)),
    "bounds of clip": lambda t: ops.clip(t, min=np.float64(0.5), max=np.array(0.7)),
    "lists as bounds": lambda t: ops.clip(t, min=[0.1, 0.2, 0.3, 0.4]),
    "arrays as bounds": lambda t: np.clip(t, np.zeros(4), np.full((3, 1), 0.5)),
    "rate of dropout": lambda t: ops.dropout(
        t, site=DropoutStream(np.int64(1), np.int64(2)).site(np.int64(3), np.float64(0.1))
    ),
    "heads of attention": lambda t: ops.attention(
        t, heads=np.int64(1), d_k=np.int64(1), sentences=Sentences([2, 1])
    ),
}


@pytest.mark.parametrize("where", NUMPY_SCALARS)
def test_numpy_scalars_as_settings_do_not_promote_the_dtype(where):
    t = Tensor(x)
    with Tape() as tape, references():
        y = NUMPY_SCALARS[where](t)
    assert y.dtype == np.float32
    assert tape.backward(y, np.ones(y.shape), wanted=[t])[0].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bfloat16()], ids=str)
@pytest.mark.parametrize(
    "bound",
    [1, 1.1, np.float64(1.1), np.array(1.1), [1.1] * 4, np.full((3, 1), 1.1), np.array(1)],
    ids=repr,
)
def test_a_clipped_array_keeps_its_dtype(dtype, bound):
    t = Tensor(x, dtype)
    for bounds in ({"min": bound}, {"max": bound}, {"min": bound, "max": bound}):
        with Tape() as tape:
            y = ops.clip(t, **bounds)
        assert y.dtype == dtype
        assert tape.backward(y, np.ones(y.shape, dtype), wanted=[t])[0].dtype == dtype


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)])
def test_constant_numbers_do_not_promote_the_dtype(number):
    t = Tensor(x)
    for f in (ops.add, ops.subtract, ops.multiply, ops.divide):
        for arguments in ((t, number), (number, t)):
            with Tape() as tape:
                y = f(*arguments)
            assert y.dtype == np.float32
            assert tape.backward(y, np.ones(y.shape), wanted=[t])[0].dtype == np.float32
