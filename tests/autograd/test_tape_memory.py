"""Tapes of any depth, and when they free memory."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from autograd import (
    DropoutStream,
    Parameter,
    ParameterBuffer,
    Sentences,
    Tape,
    Tensor,
    op,
    ops,
    references,
)


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
    """Operations that hold an activation, and count the live arrays in each backward step."""

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
def test_activations_and_gradients_are_freed_as_soon_as_they_are_used(writes):
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
def test_gradients_of_two_contributions_are_freed_as_soon_as_they_are_used(writes):
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
def test_gradients_from_writers_are_freed_as_soon_as_they_are_used():
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
def test_the_last_gradient_of_a_branch_is_freed_as_soon_as_it_is_used():
    """The branch begins at a leaf whose gradient is not wanted."""
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
            "attention": lambda: ops.attention(x, heads=1, d_k=1, sentences=Sentences(lengths)),
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
    """So a value that no gradient needs is freed when the caller drops it."""
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
def test_a_pass_holds_each_needed_activation_once(rate):
    """The peak memory of six feed-forward sub-layers (section 3.3) agrees with a formula."""
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
    # A layer holds its hidden activations, LayerNorm's result before and after the gain, and the
    # mask. No gradient needs the result of the last layer.
    held = layers * (hidden + 2 * matrix + mask) - matrix
    # The peak adds the gradient of the last hidden activations, ReLU's mask, and the gradient of
    # the residual connection. By then the last LayerNorm's activations are freed.
    worked_on = hidden + hidden // 4 + matrix - (matrix + mask)
    assert peak == pytest.approx(held + worked_on, rel=0.03)
