"""Which array library is in use: for the process, in a context, and for each array."""

import contextvars
import threading

import numpy as np
import pytest

from autograd import (
    BackendError,
    Parameter,
    ParameterBuffer,
    Tensor,
    array_module,
    backend,
    use,
    using,
)
from tests.without_gpu import strict_arrays
from tests.without_gpu.strict_arrays import StrictArray

strict = backend.backend("strict")


@pytest.fixture
def _process_backend_restored():
    before = backend.current().name
    yield
    use(before)


# The backend of new arrays.


def test_numpy_is_the_default():
    assert backend.current().name == "numpy"
    assert isinstance(Tensor([1.0]).value, np.ndarray)


@pytest.mark.usefixtures("_process_backend_restored")
def test_use_sets_the_backend_of_the_process():
    use("strict")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(backend.current().name))
    thread.start()
    thread.join()
    assert seen == ["strict"]
    assert isinstance(Tensor([1.0]).value, StrictArray)
    assert isinstance(Parameter(2.0).value, StrictArray)


def test_using_sets_the_backend_inside_its_with_and_nests():
    with using("strict") as there:
        assert there is strict
        with using("numpy"):
            assert isinstance(Tensor(1.0).value, np.ndarray)
        assert isinstance(Tensor(1.0).value, StrictArray)
    assert isinstance(Tensor(1.0).value, np.ndarray)


def test_using_restores_the_backend_after_an_exception():
    with pytest.raises(KeyError), using("strict"):
        raise KeyError
    assert backend.current().name == "numpy"


def test_using_affects_only_its_context():
    seen = []

    def look():
        seen.append(backend.current().name)

    with using("strict"):
        inherited = contextvars.copy_context()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()
    inherited.run(look)
    look()
    assert seen == ["numpy", "strict", "strict", "numpy"]


@pytest.mark.usefixtures("_process_backend_restored")
def test_using_overrides_use():
    use("strict")
    with using("numpy"):
        assert isinstance(Tensor(1.0).value, np.ndarray)
    assert isinstance(Tensor(1.0).value, StrictArray)


def test_an_existing_array_stays_on_its_backend():
    host = np.zeros(3)
    with using("strict"):
        assert Tensor(host).value is host
        assert isinstance(Tensor(np.float64(3)).value, np.ndarray)
        assert isinstance((Tensor(host) * 2).sum().value, np.ndarray)
    on_strict = strict.asarray(host)
    assert Tensor(on_strict).value is on_strict


def test_an_array_is_converted_only_to_another_dtype():
    assert Tensor([1, 2], np.float32).dtype == np.float32
    host = np.zeros(3)
    assert Tensor(host, np.float32).dtype == np.float32
    assert Tensor(host, np.float64).value is host


def test_the_error_for_an_unknown_backend_names_the_known_ones():
    for choose in (use, backend.backend):
        with pytest.raises(BackendError, match=r"no backend 'tpu'.*cupy.*numpy.*strict"):
            choose("tpu")
    with pytest.raises(BackendError, match="'tpu'"), using("tpu"):
        pass
    assert backend.current().name == "numpy"


def test_a_backend_can_be_registered_again():
    strict_arrays.register()
    assert backend.backend("strict").kind is StrictArray


def test_a_subclass_belongs_to_the_backend_of_its_parent():
    class Named(np.ndarray):
        pass

    assert array_module(np.zeros(2).view(Named)) is np
    assert array_module(2.0) is array_module(np.float32(2)) is np


# Moving Parameters.


def test_a_parameter_buffer_moves_both_ways():
    values = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(3)}
    buffer = ParameterBuffer(values)
    buffer.allocate_gradients()
    w = buffer.parameters["w"]
    for name in ("strict", "numpy", "strict"):
        buffer.to(name)
        target = backend.backend(name)
        assert isinstance(buffer.values, target.kind)
        assert buffer.parameters["w"] is w
        assert w.grad is None
        assert buffer.grads is None
        for key, parameter in buffer.parameters.items():
            assert isinstance(parameter.value, target.kind)
            np.testing.assert_array_equal(parameter.numpy(), values[key])
        assert isinstance(buffer.allocate_gradients(), target.kind)
        assert isinstance(w.grad, target.kind)


def test_a_moved_parameter_is_still_a_view_of_the_flat_values():
    buffer = ParameterBuffer({"w": np.zeros((2, 2))})
    buffer.to("strict")
    buffer.values += 3
    np.testing.assert_array_equal(buffer.parameters["w"].numpy(), 3)


def test_a_new_buffer_is_on_the_current_backend():
    with using("strict"):
        buffer = ParameterBuffer({"w": np.ones((2, 2))})
    assert isinstance(buffer.values, StrictArray)
    buffer.parameters["w"].assign(np.full((2, 2), 2))  # from any backend
    np.testing.assert_array_equal(buffer.parameters["w"].numpy(), 2)


def test_a_backend_that_cannot_record_takes_a_function_as_it_is():
    strict = backend.backend("strict")
    assert strict.record(len) is len
    assert not strict.records
