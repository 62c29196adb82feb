"""The tape: what is recorded, and how it is played back."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import (
    Parameter,
    Tape,
    Tensor,
    op,
    ops,
)
from autograd.tape import running_tape, unbroadcast


@op
def failing(x):
    def vjp(dy):
        raise ArithmeticError("on the way back")

    return x * 1, vjp


@op
def both(x, y):
    """Two outputs: x · y, and x + y."""
    return (x * y, x + y), lambda d: (d[0] * y + d[1], d[0] * x + d[1])


# Recording.


def test_nothing_is_recorded_without_a_tape():
    w = Parameter([1.0, 2.0])
    y = (w * w).sum()
    tape = Tape()
    assert running_tape() is None
    with tape:
        assert running_tape() is tape
    assert len(tape) == 0
    with pytest.raises(ValueError, match="not computed on this tape"):
        tape.backward(y)


def test_operations_on_constants_are_not_recorded():
    with Tape() as tape:
        ops.exp(np.ones(3))
    assert len(tape) == 0


def test_nothing_is_recorded_after_the_with():
    w = Parameter([1.0])
    with Tape() as tape:
        y = w * 2
    y * 3
    assert len(tape) == 1


def test_every_parameter_of_the_loss_gets_a_gradient():
    w, v, idle = Parameter([1.0, 2.0]), Parameter([3.0, 4.0]), Parameter([5.0])
    with Tape() as tape:
        loss = (w * w * v).sum()
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, 2 * w.value * v.value)
    np.testing.assert_array_equal(v.grad, w.value**2)
    assert idle.grad is None


def test_nested_tapes_record_separately():
    w = Parameter([3.0])
    with Tape() as outer:
        y = w * 2
        with Tape() as inner:
            z = y * y
        u = y * 5
    assert (len(outer), len(inner)) == (2, 1)
    np.testing.assert_array_equal(inner.backward(z, wanted=[y])[0], 2 * y.value)
    assert w.grad is None
    outer.backward(u)
    np.testing.assert_array_equal(w.grad, [10])


def test_playing_back_inside_another_tape_records_nothing_on_it():
    w = Parameter([3.0])
    with Tape() as inner:
        y = ops.softmax(w * w)
    with Tape() as outer:
        inner.backward(y, [1.0])
    assert len(outer) == 0


def test_threads_record_on_separate_tapes():
    meeting = threading.Barrier(2, timeout=10)
    grads = {}

    def work(number):
        assert running_tape() is None
        w = Parameter([float(number)])
        with Tape() as tape:
            meeting.wait()
            y = w * w
            meeting.wait()
            z = y * number
            meeting.wait()
        assert len(tape) == 2
        tape.backward(z)
        grads[number] = w.grad

    with Tape() as tape_of_the_main_thread:
        threads = [threading.Thread(target=work, args=(n,)) for n in (2, 3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(tape_of_the_main_thread) == 0
    assert {n: float(g[0]) for n, g in grads.items()} == {2: 8, 3: 18}


# One use, after which the tape is empty.


def test_a_tape_can_be_used_only_once():
    w = Parameter([1.0])
    with Tape() as tape:
        loss = w * 2
    tape.backward(loss)
    with pytest.raises(RuntimeError, match="played back already; make a new Tape"):
        tape.backward(loss)
    with pytest.raises(RuntimeError, match="used already; make a new Tape"), tape:
        pass


def test_a_tape_is_not_played_back_while_it_records():
    w = Parameter([1.0])
    with Tape() as tape:
        loss = w * 2
        with pytest.raises(RuntimeError, match="still recording"):
            tape.backward(loss)
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, [2])


def test_an_exception_inside_empties_the_tape_and_stops_recording():
    w = Parameter([1.0])
    tape, losses = Tape(), []

    def fail():
        with tape:
            losses.append(w * 2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(tape) == 0
    assert running_tape() is None
    with pytest.raises(RuntimeError, match="make a new Tape"):
        tape.backward(losses[0])


def test_an_exception_inside_an_inner_tape_leaves_the_outer_one_running():
    with Tape() as outer:
        with pytest.raises(KeyError), Tape():
            raise KeyError
        assert running_tape() is outer


def test_an_exception_while_playing_back_empties_the_tape():
    w = Parameter([1.0])
    with Tape() as tape:
        loss = failing(w * 2) * 3
    with pytest.raises(ArithmeticError):
        tape.backward(loss)
    assert len(tape) == 0
    with pytest.raises(RuntimeError, match="make a new Tape"):
        tape.backward(loss)


# Outputs and gradients.


@pytest.mark.parametrize("output", [Tensor([1.0]), Parameter([1.0])], ids=["Tensor", "Parameter"])
def test_an_output_that_was_not_computed_on_the_tape_is_refused(output):
    w = Parameter([1.0])
    with Tape() as tape:
        w * 2
    with pytest.raises(ValueError, match="not computed on this tape"):
        tape.backward(output)
    assert len(tape) == 0


def test_an_output_of_another_tape_is_refused():
    w = Parameter([1.0])
    with Tape():
        y = w * 2
    with Tape() as tape:
        w * 3
    with pytest.raises(ValueError, match="not computed on this tape"):
        tape.backward(y)


def test_an_output_of_several_numbers_needs_its_gradient():
    w = Parameter(np.ones((2, 3)))
    with Tape() as tape:
        y = w * 2
    with pytest.raises(ValueError, match=r"shape \(2, 3\): give its gradient"):
        tape.backward(y)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_output_of_one_number_needs_no_gradient(shape):
    w = Parameter(np.ones(shape))
    with Tape() as tape:
        y = w * 2
    tape.backward(y)
    np.testing.assert_array_equal(w.grad, np.full(shape, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_given_gradient_is_not_changed(dtype):
    w = Parameter(np.array([[1, -1, 1]], np.float32))
    gradient = np.array([[1, 2, 3]], dtype)
    with Tape() as tape:  # ReLU overwrites the gradient that it is given
        y = ops.linear(w, np.eye(3, dtype=np.float32), relu=True)
    tape.backward(y, gradient)
    np.testing.assert_array_equal(gradient, [[1, 2, 3]])
    np.testing.assert_array_equal(w.grad, [[1, 0, 3]])
    assert w.grad.dtype == np.float32
    leaf = Tensor(np.ones((1, 3), np.float32))
    with Tape() as tape:
        y = leaf + w
    (g,) = tape.backward(y, gradient, wanted=[leaf])
    assert not np.shares_memory(g, gradient)


def test_a_given_gradient_of_another_shape_is_refused():
    w = Parameter(np.ones(3))
    with Tape() as tape:
        y = w * 2
    with pytest.raises(ValueError, match=r"gradient of shape \(1, 3\) for an output of \(3,\)"):
        tape.backward(y, np.ones((1, 3)))


def test_wanted_gradients_are_returned_in_order():
    x, unrelated = Tensor([1.0, 2.0]), Tensor(np.ones((2, 2)))
    w, idle = Parameter([3.0, 4.0]), Parameter([1.0])
    with Tape() as tape:
        inner = x * w
        squared = inner * inner
        unused = unrelated * 3
        loss = squared.sum()
    wanted = [loss, idle, x, unrelated, inner, w, unused, squared]
    got = tape.backward(loss, wanted=wanted)
    twice = 2 * inner.value
    expected = [
        1,
        [0],
        twice * w.value,
        np.zeros((2, 2)),
        twice,
        twice * x.value,
        np.zeros((2, 2)),
        [1, 1],
    ]
    for t, g, e in zip(wanted, got, expected, strict=True):
        assert g.shape == t.shape
        np.testing.assert_array_equal(g, e)
    assert idle.grad is None
    np.testing.assert_array_equal(w.grad, twice * x.value)


def test_a_wanted_gradient_of_an_intermediate_value_is_not_overwritten():
    x = Tensor(np.array([[1.0, -1.0]]))
    with Tape() as tape:
        y = x * 1
        z = ops.linear(y, np.eye(2), relu=True)  # overwrites the gradient that it is given
        loss = (z * 1).sum()
    dz, dy = tape.backward(loss, wanted=[z, y])
    np.testing.assert_array_equal(dz, [[1, 1]])
    np.testing.assert_array_equal(dy, [[1, 0]])


@given(uses=st.integers(1, 6))
def test_a_value_used_several_times_gets_the_sum(uses):
    w, x = Parameter([1.0, 2.0]), Tensor([1.0, 2.0])
    with Tape() as tape:
        y = x * w
        total = sum((y * k for k in range(uses)), w)
        loss = (total + x).sum()
    k = sum(range(uses))
    dx, dy = tape.backward(loss, wanted=[x, y])
    np.testing.assert_array_equal(dy, [k, k])
    np.testing.assert_array_equal(dx, k * w.value + 1)
    np.testing.assert_array_equal(w.grad, k * x.value + 1)


def test_an_argument_given_twice_gets_both_gradients():
    w = Parameter([3.0])
    with Tape() as tape:
        loss = w * w + (w - w) + (w + w)
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, [8])


def test_the_gradient_of_an_unused_output_is_zero():
    x, y = Parameter([2.0]), Parameter([5.0])
    with Tape() as tape:
        product, _ = both(x, y)
    tape.backward(product)
    assert (x.grad[0], y.grad[0]) == (5, 2)
    with Tape() as tape:
        _, total = both(x, y)
    tape.backward(total)
    assert (x.grad[0], y.grad[0]) == (1, 1)
    with Tape() as tape:
        product, total = both(x, y)
        loss = product * total
    tape.backward(loss)
    assert (x.grad[0], y.grad[0]) == (5 * 7 + 10, 2 * 7 + 10)


def test_an_operation_that_the_output_does_not_depend_on_is_not_played_back():
    w = Parameter([1.0])
    with Tape() as tape:
        loss = w * 2
        failing(w)
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, [2])


@given(
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    extra=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    data=st.data(),
)
def test_gradients_of_broadcast_arguments_are_summed(shape, extra, data):
    small = tuple(1 if data.draw(st.booleans()) else n for n in shape)
    g = np.random.default_rng(0).standard_normal(extra + shape)
    got = unbroadcast(g, small)
    axes = tuple(i for i, n in enumerate((1,) * len(extra) + small) if n == 1)
    np.testing.assert_allclose(got, g.sum(axis=axes, keepdims=True).reshape(small))


def test_the_gradient_of_the_output_may_be_of_a_subclass_of_arrays():
    x = Tensor(np.ones((2, 2)))
    with Tape() as tape:
        y = x * np.array([[1.0, 2.0], [3.0, 4.0]])
    (dx,) = tape.backward(y, np.matrix([[1.0, 1.0], [0.0, 1.0]]), wanted=[x])
    assert type(dx) is np.ndarray
    np.testing.assert_array_equal(dx, [[1, 2], [0, 4]])
    with Tape() as tape:
        y = x * 2
    with pytest.raises(TypeError, match="mask"):
        tape.backward(y, np.ma.masked_array(np.ones((2, 2)), np.eye(2)))
