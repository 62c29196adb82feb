"""Gradients of Parameters, and writers, which write gradients in place."""

import numpy as np
import pytest

from autograd import (
    Parameter,
    ParameterBuffer,
    Tape,
    Tensor,
    op,
    ops,
    using,
)


def writing(log):
    """An operation (twice its arguments' sum) whose gradients are writers that log their calls."""

    @op
    def write(*arguments):
        def vjp(dy):
            def writer(i):
                def into(out, add):
                    log.append((i, out, add, np.array(out)))
                    out[...] = out + 2 * dy if add else 2 * dy

                return into

            writers = tuple(map(writer, range(len(arguments))))
            return writers if len(writers) > 1 else writers[0]

        return 2 * sum(arguments), vjp

    return write


# Parameters' gradients.


def test_the_first_contribution_of_a_step_writes_and_later_ones_add():
    w = Parameter([1.0, 2.0])
    w.grad = np.full(2, np.nan)
    store = w.grad
    with Tape() as tape:
        loss = (w * 2 + w * 3).sum()
    tape.backward(loss)
    assert w.grad is store
    np.testing.assert_array_equal(store, [5, 5])


def test_accumulate_adds_to_the_existing_gradient():
    w, fresh = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    w.grad = np.array([10.0, 20.0])
    for _ in range(2):
        with Tape() as tape:
            loss = (w * 2 + w * 3 + fresh).sum()
        tape.backward(loss, accumulate=True)
    np.testing.assert_array_equal(w.grad, [20, 30])
    np.testing.assert_array_equal(fresh.grad, [2, 2])


def test_a_pass_after_a_failed_one_gives_the_whole_gradient():
    @op
    def broken(x):
        def vjp(dy):
            raise ArithmeticError

        return x.copy(), vjp

    w, v = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    for f in (broken, lambda x: x * 1):
        with Tape() as tape:
            loss = (f(w * 2) + w * 3 + v * 4).sum()
        if f is broken:
            with pytest.raises(ArithmeticError):
                tape.backward(loss)
            np.testing.assert_array_equal(w.grad, [3, 3])  # unchanged, as `backward` promises
        else:
            tape.backward(loss)
    np.testing.assert_array_equal(w.grad, [5, 5])
    np.testing.assert_array_equal(v.grad, [4, 4])


def test_accumulated_micro_batches_equal_the_whole_batch():
    rng = np.random.default_rng(0)
    buffer = ParameterBuffer({"w": rng.random((3, 2)), "idle": rng.random(2)}, np.float64)
    grads = buffer.allocate_gradients()
    for p in buffer.parameters.values():
        p.grad[...] = np.nan  # left by an earlier step
    w, x = buffer.parameters["w"], rng.random((6, 3))

    def step(rows, **how):
        with Tape() as tape:
            loss = ops.exp(x[rows] @ w).sum()
        tape.backward(loss, **how)

    step(slice(None))
    whole = grads.copy()
    step(slice(0, 2))
    step(slice(2, 6), accumulate=True)
    np.testing.assert_allclose(grads, whole, rtol=1e-14)


def test_unused_parameters_of_a_buffer_get_zeros():
    buffer = ParameterBuffer({"w": np.ones(3), "idle": np.ones((2, 2))})
    w, idle = buffer.parameters.values()
    buffer.allocate_gradients()
    alone = Parameter(np.ones(2))
    for p in (w, idle):
        p.grad[...] = np.nan
    alone.grad = np.full(2, 5.0)
    with Tape() as tape:
        loss = (w * 2).sum()
        idle * 2  # on the tape, but no part of the loss
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, 2)
    np.testing.assert_array_equal(idle.grad, 0)
    np.testing.assert_array_equal(alone.grad, 5)
    idle.grad[...] = 3
    with Tape() as tape:
        loss = (w * 2).sum()
    tape.backward(loss, accumulate=True)
    np.testing.assert_array_equal(idle.grad, 3)


def test_gradients_are_written_into_the_buffer():
    buffer = ParameterBuffer({"w": np.ones(3), "b": np.ones(2)})
    flat = buffer.allocate_gradients()
    w, b = buffer.parameters.values()
    with Tape() as tape:
        loss = (w * 2).sum() + (b * 3).sum()
    tape.backward(loss)
    assert np.shares_memory(w.grad, flat)
    assert np.shares_memory(b.grad, flat)
    assert flat.sum() == 3 * 2 + 2 * 3


# Writers.


def test_a_writer_writes_into_a_parameters_gradient():
    log = []
    w = Parameter([1.0, 1.0])
    w.grad = np.full(2, np.nan)
    store = w.grad
    with Tape() as tape:
        loss = writing(log)(w).sum()
    tape.backward(loss)
    ((_, out, add, _),) = log
    assert out is store
    assert add is False
    np.testing.assert_array_equal(store, 2)


def test_a_writer_adds_a_parameters_later_contributions():
    log = []
    write = writing(log)
    w = Parameter([1.0, 1.0])
    with Tape() as tape:
        loss = (write(w) + write(w)).sum()
    tape.backward(loss)
    assert [add for _, _, add, _ in log] == [False, True]
    np.testing.assert_array_equal(w.grad, 4)
    with Tape() as tape:
        loss = write(w).sum()
    tape.backward(loss, accumulate=True)
    assert log[-1][2] is True
    np.testing.assert_array_equal(w.grad, 6)


def test_a_writer_adds_to_an_earlier_gradient_or_fills_a_new_array():
    log = []
    write = writing(log)
    x = Tensor([[1.0, 1.0]])
    with Tape() as tape:
        y = x * 1
        loss = (write(y) + y * 10).sum()  # the product is newer: its gradient comes first
    (dx,) = tape.backward(loss, wanted=[x])
    ((_, _, add, before),) = log
    assert add is True
    np.testing.assert_array_equal(before, [[10, 10]])
    np.testing.assert_array_equal(dx, [[12, 12]])

    log.clear()
    with Tape() as tape:
        y = x * 1
        loss = (y * 10 + write(y)).sum()
    (dx,) = tape.backward(loss, wanted=[x])
    ((_, out, add, _),) = log
    assert add is False
    assert (out.shape, out.dtype) == (y.shape, y.dtype)
    np.testing.assert_array_equal(dx, [[12, 12]])


def test_a_writer_for_a_constant_is_never_called():
    log = []
    w, leaf = Parameter([1.0]), Tensor([1.0])  # an unwanted leaf counts as a constant
    with Tape() as tape:
        loss = writing(log)(np.ones(1), w, leaf, 3.0)
    tape.backward(loss)
    assert [i for i, *_ in log] == [1]


def test_a_writer_adds_for_an_argument_given_twice():
    log = []
    leaf = Tensor([1.0, 2.0])
    with Tape() as tape:
        loss = writing(log)(leaf, leaf).sum()
    (g,) = tape.backward(loss, wanted=[leaf])
    assert [add for _, _, add, _ in log] == [False, True]
    np.testing.assert_array_equal(g, [4, 4])


def test_a_writer_writes_on_the_backend_of_its_argument():
    log = []
    with using("strict"):
        x = Tensor([1.0, 2.0])

    @op
    def write(x):
        def into(out, add):
            log.append((out, add))
            out[...] = 3

        return x * 1, lambda dy: into

    with Tape() as tape:
        loss = write(x * 1).sum()
    (g,) = tape.backward(loss, wanted=[x])
    assert type(log[0][0]) is type(x.value) is type(g)


# Wanted Parameters.


def test_a_wanted_gradient_of_a_parameter_is_a_separate_array():
    p = Parameter([3.0, 5.0])
    rows = []
    for i in range(2):  # of a Jacobian
        with Tape() as tape:
            y = (p * p)[i]
        rows += tape.backward(y, wanted=[p])
        rows[i] *= 10
        np.testing.assert_array_equal(p.grad, [[6, 0], [0, 10]][i])
    np.testing.assert_array_equal(rows, [[60, 0], [0, 100]])


def test_a_wanted_gradient_does_not_include_earlier_passes():
    p, x = Parameter([1.0, 2.0]), Tensor([1.0, 2.0])
    p.grad = np.array([10.0, 20.0])
    for expected in ([12, 24], [14, 28]):
        with Tape() as tape:
            loss = (p * x + p * x).sum()
        dp, dx = tape.backward(loss, wanted=[p, x], accumulate=True)
        np.testing.assert_array_equal(dp, [2, 4])
        np.testing.assert_array_equal(dx, [2, 4])
        np.testing.assert_array_equal(p.grad, expected)


def test_a_gradient_wanted_twice_is_returned_in_separate_arrays():
    p, x = Parameter([1.0]), Tensor([2.0])
    with Tape() as tape:
        y = p * x
        loss = (y * y).sum()
    got = tape.backward(loss, wanted=[p, x, y, loss, p, x, y, loss])
    for first, second in zip(got[:4], got[4:], strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)
    assert not any(np.shares_memory(g, p.grad) for g in got)


def test_a_wanted_parameter_gets_its_gradient_in_the_buffer_too():
    buffer = ParameterBuffer({"w": np.ones(3), "idle": np.ones(2)})
    buffer.allocate_gradients()
    w, idle = buffer.parameters.values()
    idle.grad[...] = np.nan
    log = []
    with Tape() as tape:
        loss = (writing(log)(w) + writing(log)(w)).sum()
    dw, didle = tape.backward(loss, wanted=[w, idle])
    np.testing.assert_array_equal(dw, 4)
    np.testing.assert_array_equal(w.grad, 4)
    np.testing.assert_array_equal(didle, 0)
    np.testing.assert_array_equal(idle.grad, 0)
    for g in (dw, didle):
        assert not np.shares_memory(g, buffer.grads)
        assert not np.shares_memory(g, buffer.values)
