"""The values of a Tensor: floating-point numbers, in the machine's byte order."""

import copy
import pickle

import numpy as np
import pytest

from autograd import Parameter, ParameterBuffer, Tape, Tensor, backend, check_gradients, ops, using
from autograd.backend import bfloat16

strict = backend.backend("strict")


@pytest.mark.parametrize("kind", [Tensor, Parameter])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([7, 8, 9], "int64"),
        (3, "int64"),
        (True, "bool"),
        (np.arange(3, dtype=np.int8), "int8"),
        (np.array([True]), "bool"),
        (np.uint16(3), "uint16"),
        (np.array([1j]), "complex128"),
        (1j, "complex128"),
        (["a"], "<U1"),
        (np.array([None]), "object"),
        (None, "object"),
        (strict.asarray(np.arange(3)), "int64"),
        (np.zeros(2, "M8[s]"), "datetime64"),
    ],
    ids=str,
)
def test_only_floating_point_numbers_are_differentiable(kind, value, dtype):
    with pytest.raises(TypeError, match=rf"a {kind.__name__} must hold floating.*got {dtype}"):
        kind(value)
    with pytest.raises(TypeError, match="got int32"):
        kind([1.0], np.int32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, bfloat16()])
def test_floating_point_numbers_of_any_size_are_differentiable(dtype):
    assert Tensor([7, 8], dtype).dtype == dtype
    assert Parameter(np.ones(2, dtype)).dtype == dtype


def test_whole_numbers_with_a_floating_point_dtype_have_exact_gradients():
    x = Tensor([7, 8, 9], np.float64)
    with Tape() as tape:
        y = x[1] * 0.25
    np.testing.assert_array_equal(tape.backward(y, wanted=[x])[0], [0, 0.25, 0])
    assert ParameterBuffer({"w": np.arange(3)}).parameters["w"].dtype == np.float32
    with pytest.raises(TypeError, match="got int64"):
        ParameterBuffer({"w": np.ones(3)}, np.int64)


def test_an_integer_array_is_a_constant():
    check_gradients(lambda x: (x * np.arange(3), x - [1, 2, 3], np.arange(3) @ x), np.ones(3))
    table = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(ops.embedding(table, ids=np.array([2, 0])), table[[2, 0]])


def test_another_byte_order_is_converted_once():
    for dtype in (">f4", "<f8", ">f8"):
        x = Parameter(np.arange(3.0).astype(dtype))
        assert x.value.dtype.isnative
        np.testing.assert_array_equal(x.value, np.arange(3))
        with Tape() as tape:
            y = (x * np.arange(3.0).astype(dtype)).sum()
        tape.backward(y)
        assert y.value.dtype.isnative
        assert x.grad.dtype.isnative
        np.testing.assert_array_equal(x.grad, np.arange(3))


def test_subclasses_of_arrays_are_converted_to_arrays():
    x, matrix = np.ones((2, 2)), np.arange(4.0).reshape(2, 2).view(np.matrix)
    assert type(Tensor(matrix).value) is np.ndarray
    assert np.shares_memory(Tensor(matrix).value, matrix)
    np.testing.assert_array_equal((Tensor(2 * x) * matrix).value, 2 * np.asarray(matrix))


def test_lists_are_moved_to_the_tensors_backend():
    with using("strict"):
        x = Tensor([1.0, 2.0])
    y = x * [3, 4] + (1, 2)
    assert isinstance(y.value, strict.kind)
    np.testing.assert_array_equal(y.numpy(), [4, 10])


class Named(Tensor):
    def __init__(self, value, name):
        super().__init__(value)
        self.name = name


class NamedInASlot(Tensor):
    __slots__ = ("name",)

    def __init__(self, value, name):
        super().__init__(value)
        self.name = name


class NamedBehindAProperty(Tensor):
    def __init__(self, value, name):
        super().__init__(value)
        self.__dict__["name"] = name

    @property
    def name(self):
        return self.__dict__["name"]


class NamedParameter(Parameter):
    def __init__(self, value, name):
        super().__init__(value)
        self.name = name


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", [Named, NamedInASlot, NamedBehindAProperty, NamedParameter])
def test_deep_copies_include_attributes_of_subclasses(kind, copy_of):
    x = kind([1.0], ["a name"])
    again = copy_of(x)
    assert type(again) is kind
    assert again.name == x.name
    assert again.name is not x.name
    assert again.serial != x.serial
    assert again.value is not x.value
    np.testing.assert_array_equal(again.value, x.value)
    if kind is NamedParameter:
        assert again.master is again.value
        assert again.grad is again.buffer is None


def test_shallow_copies_include_attributes_of_subclasses():
    x = Named([1.0], ["a name"])
    assert copy.copy(x).name is x.name
    assert copy.copy(x).serial != x.serial


def test_copies_of_a_buffers_parameter_include_attributes_of_subclasses():
    buffer = ParameterBuffer({"w": np.ones(2)})
    p = buffer.parameters["w"]
    named = NamedParameter([2.0], "a name")
    named.buffer, named.value, named.master = buffer, p.value, p.master
    buffer.parameters["w"] = named
    for again in (copy.deepcopy(named), pickle.loads(pickle.dumps(named))):
        assert again.name == "a name"
        assert again.buffer.parameters["w"] is again
        assert np.shares_memory(again.value, again.buffer.values)


def test_a_masked_array_is_refused():
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    p = Parameter([1.0, 2.0])
    for act in (
        lambda: Tensor(masked),
        lambda: Tensor(masked, np.float32),
        lambda: p * masked,
        lambda: ops.exp(masked),
        lambda: p.assign(masked),
    ):
        with pytest.raises(TypeError, match=r"mask .* lost: write x\.filled"):
            act()
