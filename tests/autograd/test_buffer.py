"""Parameters as views into one flat array."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autograd import Parameter, ParameterBuffer, Tape, Tensor, backend, ops, to_host
from autograd.buffer import ALIGNMENT

dtypes = st.sampled_from([np.float32, np.float64])
shapes = st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), max_size=6)


def random_arrays(shapes):
    rng = np.random.default_rng(0)
    return {f"p{i}": np.asarray(rng.standard_normal(s)) for i, s in enumerate(shapes)}


def address(x):
    return x.__array_interface__["data"][0]


@given(shapes=shapes, dtype=dtypes)
def test_parameters_have_the_given_values_in_the_given_order(shapes, dtype):
    arrays = random_arrays(shapes)
    buffer = ParameterBuffer(arrays, dtype)
    assert list(buffer.parameters) == list(arrays)
    for name, p in buffer.parameters.items():
        assert isinstance(p, Parameter)
        assert p.dtype == dtype
        assert p.buffer is buffer
        np.testing.assert_array_equal(p.value, arrays[name].astype(dtype))


@given(shapes=shapes, dtype=dtypes)
def test_values_and_gradients_are_aligned_views_that_do_not_overlap(shapes, dtype):
    buffer = ParameterBuffer(random_arrays(shapes), dtype)
    grads = buffer.allocate_gradients()
    assert (grads.shape, grads.dtype) == (buffer.values.shape, np.dtype(dtype))
    assert not np.shares_memory(grads, buffer.values)
    assert grads.flags.c_contiguous
    for flat, views in (
        (buffer.values, [p.value for p in buffer.parameters.values()]),
        (grads, [p.grad for p in buffer.parameters.values()]),
    ):
        end = address(flat)
        for view in views:
            assert address(view) % ALIGNMENT == 0 or view.size == 0
            assert view.flags.c_contiguous
            assert view.flags.writeable
            if view.size:
                assert end <= address(view)
                end = address(view) + view.nbytes
                assert np.shares_memory(view, flat)
        assert end <= address(flat) + flat.nbytes


@given(shapes=shapes, dtype=dtypes)
def test_the_gaps_between_parameters_stay_zero(shapes, dtype):
    buffer = ParameterBuffer(random_arrays(shapes), dtype)
    grads = buffer.allocate_gradients()
    assert not grads.any()
    within = np.zeros(grads.shape, bool)
    for p in buffer.parameters.values():
        p.grad[...] = 1
    within[:] = grads != 0
    assert within.sum() == sum(p.size for p in buffer.parameters.values())
    assert not buffer.values[~within].any()
    first, second = np.zeros_like(grads), np.zeros_like(grads)
    for step in (1, 2):
        ops.adam_step.reference(
            buffer.values, grads, first, second,
            rate=0.1, beta1=0.9, beta2=0.98, epsilon=1e-9, step=step,
        )  # fmt: skip
    for flat in (buffer.values, first, second):
        assert not flat[~within].any()


def test_parameters_are_views_of_the_flat_array():
    buffer = ParameterBuffer({"w": np.zeros((2, 3)), "b": np.zeros(3)})
    buffer.values[...] = 7
    for p in buffer.parameters.values():
        np.testing.assert_array_equal(p.value, 7)


def test_the_given_arrays_are_copied():
    w = np.zeros((2, 3), np.float32)
    buffer = ParameterBuffer({"w": w})
    buffer.values += 1
    assert not w.any()


def test_gradients_are_allocated_once():
    buffer = ParameterBuffer({"w": np.zeros((2, 3))})
    assert buffer.grads is None
    assert buffer.parameters["w"].grad is None
    assert buffer.allocate_gradients() is buffer.allocate_gradients() is buffer.grads


def test_backward_works_before_gradients_are_allocated():
    buffer = ParameterBuffer({"w": np.ones((2, 3)), "idle": np.ones(2)})
    w, idle = buffer.parameters.values()
    with Tape() as tape:
        loss = (w * w).sum()
    tape.backward(loss)
    np.testing.assert_array_equal(w.grad, 2)
    assert idle.grad is None


@given(shapes=shapes, dtype=dtypes)
def test_moving_to_a_backend_and_back_keeps_values_and_drops_gradients(shapes, dtype):
    arrays = random_arrays(shapes)
    buffer = ParameterBuffer(arrays, dtype)
    before, parameters = buffer.values.copy(), dict(buffer.parameters)
    for name in ("strict", "numpy"):
        buffer.allocate_gradients()
        buffer.to(name)
        assert isinstance(buffer.values, backend.backend(name).kind)
        assert buffer.grads is None
        assert buffer.parameters == parameters
        for key, p in parameters.items():
            assert p.grad is None
            assert p.shape == arrays[key].shape
    np.testing.assert_array_equal(buffer.values, before)
    assert buffer.values.dtype == dtype
    assert all(address(p.value) % ALIGNMENT == 0 for p in parameters.values() if p.size)


def test_moving_to_an_unknown_backend_changes_nothing():
    buffer = ParameterBuffer({"w": np.ones((2, 3))})
    grads = buffer.allocate_gradients()
    with pytest.raises(backend.BackendError, match="tpu"):
        buffer.to("tpu")
    assert buffer.grads is grads
    assert isinstance(buffer.values, np.ndarray)


def test_operations_compute_with_the_rounded_copy():
    """Exact parameters are not rounded; gradients and master values are float32 for all."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.random((3, 5), np.float32), "b": rng.random(5, np.float32)}
    buffer = ParameterBuffer(arrays, exact=["b"])
    buffer.to("strict", rounded=True)
    assert buffer.rounded is not None
    w, b = buffer.parameters.values()
    assert (w.dtype, b.dtype) == (backend.bfloat16(), np.float32)
    assert b.value is b.master
    np.testing.assert_array_equal(w.numpy(), arrays["w"])
    np.testing.assert_array_equal(to_host(w.value), arrays["w"].astype(w.dtype))
    buffer.allocate_gradients()
    assert w.gradient_store().dtype == b.gradient_store().dtype == np.float32

    new = rng.random((3, 5), np.float32)
    w.assign(new)
    np.testing.assert_array_equal(w.numpy(), new)
    np.testing.assert_array_equal(to_host(w.value), new.astype(w.dtype))
    buffer.values += 1
    buffer.rounded[...] = buffer.values  # as an optimizer does
    np.testing.assert_array_equal(to_host(w.value), (new + 1).astype(w.dtype))

    buffer.to("numpy")
    assert buffer.rounded is None
    np.testing.assert_array_equal(w.value, new + 1)


def test_a_rounded_copy_is_refused_on_a_backend_that_does_not_compute_in_bfloat16():
    buffer = ParameterBuffer({"w": np.ones((2, 3))})
    with pytest.raises(backend.BackendError, match="'numpy' does not compute in bfloat16"):
        buffer.to("numpy", rounded=True)
    assert buffer.parameters["w"].dtype == np.float32


def test_a_move_that_fails_changes_nothing(monkeypatch):
    def missing():
        raise backend.BackendError("bfloat16 needs the package ml_dtypes")

    buffer = ParameterBuffer({"w": np.ones((2, 3))})
    grads = buffer.allocate_gradients()
    monkeypatch.setattr("autograd.buffer.bfloat16", missing)
    with pytest.raises(backend.BackendError, match="ml_dtypes"):
        buffer.to("strict", rounded=True)
    assert buffer.grads is grads
    assert isinstance(buffer.values, np.ndarray)
    assert np.shares_memory(buffer.parameters["w"].value, buffer.values)


def copied(x):
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, copied])
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("first", ["buffer", "parameter"])
def test_a_deep_copy_shares_nothing_with_its_original(copy_of, rounded, first):
    """The buffer and its Parameters are copied together, whichever of them is reached first."""
    buffer = ParameterBuffer(random_arrays([(3, 4), (5,), ()]), exact=["p1"])
    buffer.to("strict" if rounded else "numpy", rounded)
    buffer.allocate_gradients()
    a = buffer.parameters["p0"]
    things = {"parameter": a, "buffer": buffer}
    if first == "buffer":
        things = dict(reversed(things.items()))
    found = copy_of({"things": things, "again": [a]})
    other = found["things"]["buffer"]
    assert found["things"]["parameter"] is found["again"][0] is other.parameters["p0"]
    assert list(other.parameters) == list(buffer.parameters)
    assert other.grads is None
    before = to_host(buffer.values).copy()
    other.values += 1
    if rounded:
        other.rounded[...] = other.values
    for name, parameter in buffer.parameters.items():
        its = other.parameters[name]
        assert its is not parameter
        assert its.serial != parameter.serial
        assert its.buffer is other
        assert its.grad is None
        assert its.dtype == parameter.dtype
        assert (its.value is its.master) == (parameter.value is parameter.master)
        np.testing.assert_array_equal(its.numpy(), parameter.numpy() + 1)
        np.testing.assert_allclose(to_host(its.value).astype(float), its.numpy(), rtol=1e-2)
    np.testing.assert_array_equal(to_host(buffer.values), before)
    assert other.allocate_gradients() is not buffer.grads


@pytest.mark.parametrize("copy_of", [copy.deepcopy, copied])
def test_the_tape_distinguishes_a_tensor_from_its_copy(copy_of):
    x, w = Tensor(np.ones(3)), Parameter(np.arange(3.0))
    y, v = copy_of((x, w))
    with Tape() as tape:
        total = (x * w).sum() + (y * v * 2.0).sum()
    dx, dy = tape.backward(total, wanted=[x, y])
    np.testing.assert_array_equal(dx, [0, 1, 2])
    np.testing.assert_array_equal(dy, [0, 2, 4])
    np.testing.assert_array_equal(w.grad, [1, 1, 1])
    np.testing.assert_array_equal(v.grad, [2, 2, 2])
    v.assign([7, 7, 7])
    np.testing.assert_array_equal(w.value, [0, 1, 2])


def test_shallow_copies_are_refused():
    buffer = ParameterBuffer(random_arrays([(2,)]))
    for x in (buffer, buffer.parameters["p0"]):
        with pytest.raises(TypeError, match=r"use copy\.deepcopy"):
            copy.copy(x)
