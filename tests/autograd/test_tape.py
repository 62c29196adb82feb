"""The tape: what is recorded, how it is played back, and when memory is given back."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import (
    DropoutStream,
    Parameter,
    ParameterBuffer,
    Tape,
    Tensor,
    op,
    ops,
    references,
    using,
)
from autograd.tape import running_tape, unbroadcast


@op
def double(x):
    return 2 * x, lambda dy: 2 * dy


@op
def failing(x):
    def vjp(dy):
        raise ArithmeticError("on the way back")

    return x * 1, vjp


@op
def both(x, y):
    """Two outputs: x · y, and x + y."""
    return (x * y, x + y), lambda d: (d[0] * y + d[1], d[0] * x + d[1])


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


def test_nothing_is_recorded_of_constants():
    with Tape() as tape:
        ops.exp(np.ones(3))
    assert len(tape) == 0


def test_nothing_is_recorded_after_the_with():
    w = Parameter([1.0])
    with Tape() as tape:
        y = w * 2
    y * 3
    assert len(tape) == 1


def test_every_parameter_that_took_part_has_its_gradient():
    w, v, idle = Parameter([1.0, 2.0]), Parameter([3.0, 4.0]), Parameter([5.0])
    with Tape() as tape:
        loss = (w * w * v).sum()
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, 2 * w.value * v.value)
    np.testing.assert_array_equal(v.grad, w.value**2)
    assert idle.grad is None


def test_nested_tapes_record_each_their_own():
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


def test_threads_do_not_meet():
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


# Once, and empty ever after.


def test_a_tape_serves_once():
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


# What backward is asked for.


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
def test_a_single_number_of_any_shape_needs_none(shape):
    w = Parameter(np.ones(shape))
    with Tape() as tape:
        y = w * 2
    tape.backward(y)
    np.testing.assert_array_equal(w.grad, np.full(shape, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_given_gradient_is_left_as_it_is(dtype):
    w = Parameter(np.array([[1, -1, 1]], np.float32))
    gradient = np.array([[1, 2, 3]], dtype)
    with Tape() as tape:  # a ReLU, which writes over the gradient that it gets
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


def test_the_gradients_of_what_is_wanted_are_returned_in_order():
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


def test_a_wanted_interior_value_is_not_changed_by_what_comes_after():
    x = Tensor(np.array([[1.0, -1.0]]))
    with Tape() as tape:
        y = x * 1
        z = ops.linear(y, np.eye(2), relu=True)  # writes over the gradient that it gets
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


def test_the_gradient_of_an_output_that_nothing_used_is_zero():
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
def test_broadcasting_is_undone_by_summing(shape, extra, data):
    small = tuple(1 if data.draw(st.booleans()) else n for n in shape)
    g = np.random.default_rng(0).standard_normal(extra + shape)
    got = unbroadcast(g, small)
    axes = tuple(i for i, n in enumerate((1,) * len(extra) + small) if n == 1)
    np.testing.assert_allclose(got, g.sum(axis=axes, keepdims=True).reshape(small))


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


def test_accumulate_adds_to_what_is_there():
    w, fresh = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    w.grad = np.array([10.0, 20.0])
    for _ in range(2):
        with Tape() as tape:
            loss = (w * 2 + w * 3 + fresh).sum()
        tape.backward(loss, accumulate=True)
    np.testing.assert_array_equal(w.grad, [20, 30])
    np.testing.assert_array_equal(fresh.grad, [2, 2])


def test_micro_batches_that_accumulate_are_the_whole_batch():
    rng = np.random.default_rng(0)
    buffer = ParameterBuffer({"w": rng.random((3, 2)), "idle": rng.random(2)}, np.float64)
    grads = buffer.allocate_gradients()
    for p in buffer.parameters.values():
        p.grad[...] = np.nan  # of an earlier step
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


def test_parameters_that_took_no_part_but_share_a_buffer_get_zeros():
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


def test_a_buffers_gradients_are_written_where_they_belong():
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


def test_a_writer_writes_a_parameters_gradient_where_it_belongs():
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


def test_a_writer_adds_to_a_gradient_that_waits_and_else_fills_a_new_array():
    log = []
    write = writing(log)
    x = Tensor([[1.0, 1.0]])
    with Tape() as tape:
        y = x * 1
        loss = (write(y) + y * 10).sum()  # the product is newer: its gradient waits
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
    w, leaf = Parameter([1.0]), Tensor([1.0])  # a leaf that nobody wants is as good as a constant
    with Tape() as tape:
        loss = writing(log)(np.ones(1), w, leaf, 3.0)
    tape.backward(loss)
    assert [i for i, *_ in log] == [1]


def test_a_writer_of_a_wanted_leaf_and_of_the_same_argument_twice():
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


# Depth and memory.


def test_a_tape_of_50_000_operations_does_not_recurse():
    x = Tensor([1.0])
    with Tape() as tape:
        y = x
        for _ in range(50_000):
            y = y + 1
    assert len(tape) == 50_000
    np.testing.assert_array_equal(tape.backward(y, wanted=[x])[0], [1])


@pytest.fixture
def _no_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watched:
    """Operations that hold an activation, and look at each playback which arrays still live."""

    def __init__(self):
        self.activations = []
        self.gradients = []
        self.seen = []

    def operation(self, writes=False):
        number = len(self.activations)
        self.activations.append(None)
        self.gradients.append(None)

        @op
        def hold(x, *others):
            activation = x + 1
            self.activations[number] = weakref.ref(activation)

            def vjp(dy):
                newer_activations = [r() for r in self.activations[number + 1 :]]
                newer_gradients = [r() for r in self.gradients[number + 1 :]]
                alive = [a for a in newer_activations + newer_gradients if a is not None]
                self.seen.append(len(alive))
                self.gradients[number] = weakref.ref(dy)

                def into(out, add):
                    out[...] = (out if add else 0) + dy

                g = into if writes else dy * 1 + 0 * activation
                return (g, *(dy.copy() for _ in others)) if others else g

            return x * 1, vjp

        return hold


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("writes", [False, True], ids=["arrays", "writers"])
def test_activations_and_gradients_die_as_soon_as_they_are_used(writes):
    watched = Watched()
    x = Tensor(np.ones(5))
    with Tape() as tape:
        y = x
        for _ in range(6):
            y = watched.operation(writes)(y)
        loss = y.sum()
    assert all(r() is not None for r in watched.activations)
    tape.backward(loss)
    assert watched.seen == [0] * 6
    assert all(r() is None for r in watched.activations + watched.gradients)


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("writes", [False, True], ids=["arrays", "writers"])
def test_so_do_gradients_that_waited_for_a_second_contribution(writes):
    """As in a residual connection."""
    watched = Watched()
    x = Tensor(np.ones(5))
    with Tape() as tape:
        y = x * 1
        for _ in range(4):
            y = watched.operation(writes)(y, y)
            y = watched.operation(writes)(y)
        loss = y.sum()
    tape.backward(loss)
    assert watched.seen == [0] * 8


@pytest.mark.usefixtures("_no_garbage_collector")
def test_so_does_a_gradient_that_a_writer_wrote():
    watched = Watched()
    x = Tensor(np.ones(5))
    with Tape() as tape:
        y = x * 1
        for writes in (False, False, True, False, True):
            y = watched.operation(writes)(y)
        loss = y.sum()
    tape.backward(loss, wanted=[x])
    assert watched.seen == [0] * 5


@pytest.mark.usefixtures("_no_garbage_collector")
def test_so_does_the_last_gradient_of_a_branch():
    """Of which nothing older than its Parameters and constants is wanted."""
    watched = Watched()
    x, leaf = Tensor(np.ones(5)), Tensor(np.ones(5))
    with Tape() as tape:
        y = watched.operation()(x)
        start_of_a_branch = watched.operation()(leaf)
        branch = start_of_a_branch + start_of_a_branch
        loss = (y + branch).sum()
    tape.backward(loss, wanted=[x])
    assert watched.seen == [0] * 2


UNNEEDED = {
    "add": lambda x: x + x,
    "subtract": lambda x: 1 - x,
    "negative": lambda x: -x,
    "sum": lambda x: x.sum(axis=0),
    "mean": lambda x: x.mean(),
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.T,
    "take": lambda x: x[np.array([0, 1])],
    "concatenate": lambda x: ops.concatenate(x, x),
    "softmax": lambda x: ops.softmax(x),
    "log_softmax": lambda x: ops.log_softmax(x),
    "layer_norm": lambda x: ops.layer_norm(x, np.ones(3), np.ones(3)),
    "dropout": lambda x: ops.dropout(x, site=DropoutStream(0, 0).site(0, 0.5)),
    "add_dropout_norm": lambda x: ops.add_dropout_norm(x, x, np.ones(3), np.ones(3)),
}


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("name", UNNEEDED)
def test_an_operation_holds_no_input_that_its_gradient_does_not_need(name):
    x = Tensor(np.arange(6.0).reshape(2, 3))
    value = weakref.ref(x.value)
    with Tape() as tape, references():
        y = UNNEEDED[name](x)
        y.value = None
        del x
        assert value() is None
    assert len(tape) == 1


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("name", ["linear", "layer_norm", "attention", "matmul", "embedding"])
def test_an_operation_holds_no_output_that_its_gradient_does_not_need(name):
    x = Tensor(np.arange(6.0).reshape(2, 3))
    square, lengths = np.eye(3), np.array([2])
    with Tape() as tape, references():
        y = {
            "linear": lambda: ops.linear(x, square, square[0]),
            "layer_norm": lambda: ops.layer_norm(x, square[0], square[0]),
            "attention": lambda: ops.attention(x, heads=1, d_k=1, lengths=lengths),
            "matmul": lambda: x @ square,
            "embedding": lambda: ops.embedding(x, ids=lengths - 1),
        }[name]()
        value = weakref.ref(y.value)
        del y
        assert value() is None
    assert len(tape) == 1


@pytest.mark.usefixtures("_no_garbage_collector")
def test_an_exception_frees_what_the_tape_held():
    watched, tape = Watched(), Tape()

    def fail():
        with tape:
            watched.operation()(Tensor([1.0]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watched.activations[0]() is None


@pytest.mark.usefixtures("_no_garbage_collector")
def test_a_tape_that_is_dropped_frees_what_it_held():
    watched = Watched()
    with Tape() as tape:
        y = watched.operation()(Tensor([1.0]))
    assert watched.activations[0]() is not None
    del tape, y
    assert watched.activations[0]() is None


@pytest.mark.usefixtures("_no_garbage_collector")
def test_an_operation_holds_no_tensor():
    """So a value that no gradient needs dies as soon as the caller lets it go."""
    w = Parameter(np.ones(4))
    with Tape() as tape:
        y = w + 1
        value = weakref.ref(y.value)
        z = y + 2
        del y
        assert value() is None
    tape.backward(z, np.ones(4))


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_the_memory_of_a_pass_is_that_of_each_needed_activation_once(rate):
    """Six feed-forward sub-layers, in bytes, against a formula (section 3.3)."""
    tokens, d, d_ff, layers = 1024, 64, 512, 6
    rng = np.random.default_rng(0)
    arrays = {}
    for i in range(layers):
        arrays[f"{i}.w1"], arrays[f"{i}.b1"] = rng.normal(0, 0.1, (d, d_ff)), np.zeros(d_ff)
        arrays[f"{i}.w2"], arrays[f"{i}.b2"] = rng.normal(0, 0.1, (d_ff, d)), np.zeros(d)
        arrays[f"{i}.gain"], arrays[f"{i}.bias"] = np.ones(d), np.zeros(d)
    buffer = ParameterBuffer(arrays)
    buffer.allocate_gradients()
    p, stream = buffer.parameters, DropoutStream(seed=0, step=0)
    x = Tensor(rng.standard_normal((tokens, d)).astype(np.float32))

    def step():
        with Tape() as tape:
            y = x
            for i in range(layers):
                h = ops.linear(y, p[f"{i}.w1"], p[f"{i}.b1"], relu=True)
                h = ops.linear(h, p[f"{i}.w2"], p[f"{i}.b2"])
                site = stream.site(i, rate)
                y = ops.add_dropout_norm(h, y, p[f"{i}.gain"], p[f"{i}.bias"], site=site)
                del h
            loss = y.sum()
            del y
        tape.backward(loss)

    with references():
        step()  # imports and caches
        tracemalloc.start()
        step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    matrix, hidden = tokens * d * 4, tokens * d_ff * 4
    mask = matrix if rate else 0
    # A layer holds: the hidden layer; what LayerNorm made, before and after the gain; the mask.
    # The last layer's result is needed by no gradient.
    held = layers * (hidden + 2 * matrix + mask) - matrix
    # At its most there are besides: the gradient of the last hidden layer, where ReLU was zero,
    # and the gradient that goes around through the residual connection. The last LayerNorm's
    # activations are gone by then.
    worked_on = hidden + hidden // 4 + matrix - (matrix + mask)
    assert peak == pytest.approx(held + worked_on, rel=0.03)
