"""Which array library is in use; every operation on one as strict as CuPy."""

import contextvars
import functools
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import (
    BackendError,
    Parameter,
    ParameterBuffer,
    Tape,
    Tensor,
    array_module,
    backend,
    check_gradients,
    ops,
    references,
    to_host,
    use,
    using,
)
from autograd.cuda import memory
from tests.autograd.cases import CASES, values_and_gradients
from tests.without_gpu import strict_arrays
from tests.without_gpu.strict_arrays import StrictArray

strict = backend.backend("strict")


@pytest.fixture
def _process_backend_restored():
    before = backend.current().name
    yield
    use(before)


# The stand-in itself: an array there meets no NumPy array unless told to.

MEETINGS = {
    "np.asarray": lambda s, n: np.asarray(s),
    "np.exp": lambda s, n: np.exp(s),
    "np.sum": lambda s, n: np.sum(s),
    "np.concatenate": lambda s, n: np.concatenate([s, s]),
    "np.float64 of it": lambda s, n: np.add(n, s),
    "s + n": lambda s, n: s + n,
    "n + s": lambda s, n: n + s,
    "n @ s": lambda s, n: n @ s,
    "s < n": lambda s, n: s < n,
    "s += n": lambda s, n: s.__iadd__(n),
    "n += s": lambda s, n: n.__iadd__(s),
    "s[n]": lambda s, n: s[n.astype(int)],
    "s[:, n]": lambda s, n: s[None][:, n.astype(int)],
    "s[...] = n": lambda s, n: s.__setitem__(..., n),
    "n[...] = s": lambda s, n: n.__setitem__(..., s),
    "n[s]": lambda s, n: n[s.astype(int)],
    "module.exp(n)": lambda s, n: strict.module.exp(n),
    "module.exp([1])": lambda s, n: strict.module.exp([1.0]),
    "module.concatenate": lambda s, n: strict.module.concatenate([s, n]),
    "module.where": lambda s, n: strict.module.where(s > 0, s, n),
    "module.where([True])": lambda s, n: strict.module.where([True, False], s, s),
    "module.where(True)": lambda s, n: strict.module.where(True, s, s),
    "module.clip([0])": lambda s, n: strict.module.clip(s, [0.0], None),
    "module.add.at": lambda s, n: strict.module.add.at(s, n.astype(int), 1.0),
    "out=n": lambda s, n: strict.module.exp(s, out=n),
    "Tensor + array": lambda s, n: Tensor(s) + n,
    "array + Tensor": lambda s, n: n * Tensor(s),
    "Tensor + Tensor": lambda s, n: Tensor(s) + Tensor(n),
}


@pytest.mark.parametrize("meeting", MEETINGS)
def test_a_strict_array_refuses_to_meet_numpys(meeting):
    host = np.array([0.0, 1.0])
    with pytest.raises((TypeError, IndexError, ValueError)):
        MEETINGS[meeting](strict.asarray(host), host)


@pytest.mark.parametrize("condition", [True, np.False_, [True, False], np.array([True, False])])
def test_a_condition_may_come_from_the_host(condition):
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])
    got = ops.where(condition, Tensor(strict.asarray(x)), strict.asarray(y))
    np.testing.assert_array_equal(got.numpy(), np.where(condition, x, y))
    check_gradients(lambda x, y: ops.where(condition, x, y), strict.asarray(x), strict.asarray(y))


def test_a_strict_array_behaves_as_numpys_otherwise():
    host = np.arange(6.0).reshape(2, 3)
    x = strict.asarray(host)
    xp = array_module(x)
    assert xp is strict.module
    assert isinstance(x.sum(), StrictArray)
    assert x.sum().shape == ()
    assert isinstance(x[0, 0], StrictArray)
    assert x[0, 0].shape == ()
    assert x.dtype == np.float64
    assert xp.float32 is np.float32
    assert xp.pi == np.pi
    np.testing.assert_array_equal(to_host(2 - x.T @ x), 2 - host.T @ host)
    np.testing.assert_array_equal(to_host(xp.maximum(x, 2)), np.maximum(host, 2))
    alias = x
    x += 1
    x[0, 0] = 7
    first = x[1]
    first *= 0  # a view
    xp.add.at(x, xp.asarray([0, 0]), 1.0)
    np.testing.assert_array_equal(to_host(alias), [[9, 4, 5], [0, 0, 0]])
    np.testing.assert_array_equal(host, np.arange(6.0).reshape(2, 3))
    number = x.sum()
    number += 1  # in place, also without axes
    assert float(number) == 19


def test_to_host_and_back_copies():
    host = np.zeros(3)
    there = strict.asarray(host)
    back = to_host(there)
    back += 1
    host += 2
    np.testing.assert_array_equal(to_host(there), 0)
    assert isinstance(back, np.ndarray)


# Every operation, and its gradient, on it.


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=30)
@given(data=st.data())
def test_an_operation_gives_the_same_on_every_backend(operation, data):
    case = data.draw(CASES[operation])
    there = case.on(strict)
    with references():
        expected = values_and_gradients(case.run, case.arrays)
        got = values_and_gradients(there.run, there.arrays)
    for x, y in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        assert type(x) is np.ndarray
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)
@settings(max_examples=10)
@given(data=st.data())
def test_values_and_gradients_stay_on_their_backend(operation, data):
    """Whatever backend makes new arrays at the time."""
    case = data.draw(CASES[operation])
    for owner, current in ((strict, "numpy"), (backend.backend("numpy"), "strict")):
        there = case.on(owner)
        tensors = [Tensor(x) for x in there.arrays]
        with using(current):
            with Tape() as tape:
                y = there.run(*tensors)
                y = y[0] if isinstance(y, tuple) else y
            assert isinstance(y.value, owner.kind)
            gradients = tape.backward(y, owner.module.ones(y.shape), wanted=tensors)
        assert all(isinstance(g, owner.kind) for g in gradients)


def test_gradients_can_be_checked_on_every_backend():
    inputs = np.random.default_rng(0).random((2, 3, 3))
    check_gradients(lambda x, w: ops.softmax(x @ w), *map(strict.asarray, inputs))


def test_attention_weights_and_adam_run_on_every_backend():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((5, 12))
    args = {"heads": 2, "d_k": 2, "lengths": np.array([2, 0, 3]), "causal": True}
    here = ops.attention_weights(q, **args)
    there = ops.attention_weights(strict.asarray(q), **args)
    for x, y in zip(here, there, strict=True):
        np.testing.assert_allclose(x, to_host(y), rtol=1e-12)

    state = [rng.uniform(0.1, 1, 8) for _ in range(4)]
    moved = [strict.asarray(x) for x in state]
    settings_ = {"rate": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 3, "scale": 0.5}
    with references():
        assert ops.adam_step(*state, **settings_) is ops.adam_step(*moved, **settings_) is None
        norms = ops.squared_norm(state[1]), ops.squared_norm(moved[1])
    for x, y in zip(state, moved, strict=True):
        np.testing.assert_allclose(x, to_host(y), rtol=1e-12)
    assert float(norms[0]) == pytest.approx(float(norms[1])) == float((state[1] ** 2).sum())


def test_a_training_step_on_every_backend_is_the_same_step():
    def step():
        rng = np.random.default_rng(0)
        owner = backend.current()
        buffer = ParameterBuffer({"w": rng.random((3, 4)), "b": rng.random(4)}, np.float64)
        grads = buffer.allocate_gradients()
        moments = [owner.module.zeros_like(grads) for _ in range(2)]
        x = owner.asarray(rng.random((5, 3)))
        w, b = buffer.parameters.values()
        for number in (1, 2):
            with Tape() as tape:
                loss = ops.log_softmax(ops.linear(x, w, b, relu=True)).sum()
            tape.backward(loss)
            ops.adam_step(
                buffer.values, grads, *moments,
                rate=0.1, beta1=0.9, beta2=0.98, epsilon=1e-9, step=number,
            )  # fmt: skip
        assert isinstance(buffer.values, owner.kind)
        return w.numpy()

    expected = step()
    with using("strict"):
        np.testing.assert_allclose(step(), expected, rtol=1e-12)


# Which backend makes new arrays.


def test_numpy_is_in_use_unless_something_else_is_said():
    assert backend.current().name == "numpy"
    assert isinstance(Tensor([1.0]).value, np.ndarray)


@pytest.mark.usefixtures("_process_backend_restored")
def test_use_decides_for_the_process():
    use("strict")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(backend.current().name))
    thread.start()
    thread.join()
    assert seen == ["strict"]
    assert isinstance(Tensor([1.0]).value, StrictArray)
    assert isinstance(Parameter(2.0).value, StrictArray)


def test_using_decides_inside_its_with_and_nests():
    with using("strict") as there:
        assert there is strict
        with using("numpy"):
            assert isinstance(Tensor(1.0).value, np.ndarray)
        assert isinstance(Tensor(1.0).value, StrictArray)
    assert isinstance(Tensor(1.0).value, np.ndarray)


def test_using_restores_after_an_exception():
    with pytest.raises(KeyError), using("strict"):
        raise KeyError
    assert backend.current().name == "numpy"


def test_using_is_of_its_context_alone():
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


def test_an_array_that_is_given_stays_where_it_is():
    host = np.zeros(3)
    with using("strict"):
        assert Tensor(host).value is host
        assert isinstance(Tensor(np.float64(3)).value, np.ndarray)
        assert isinstance((Tensor(host) * 2).sum().value, np.ndarray)
    there = strict.asarray(host)
    assert Tensor(there).value is there


def test_a_dtype_converts_where_it_differs():
    assert Tensor([1, 2], np.float32).dtype == np.float32
    host = np.zeros(3)
    assert Tensor(host, np.float32).dtype == np.float32
    assert Tensor(host, np.float64).value is host


def test_an_unknown_backend_is_refused_with_the_known_ones():
    for choose in (use, backend.backend):
        with pytest.raises(BackendError, match=r"no backend 'tpu'.*cupy.*numpy.*strict"):
            choose("tpu")
    with pytest.raises(BackendError, match="'tpu'"), using("tpu"):
        pass
    assert backend.current().name == "numpy"


def test_cupy_where_it_is_not_installed_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend._by_name, "cupy", raising=False)
    with pytest.raises(BackendError, match=r"'cupy' needs CuPy .*: pip install") as caught:
        use("cupy")
    assert "\n" not in str(caught.value)
    assert backend.current().name == "numpy"


class CompileError(Exception):
    """CuPy's CompileException, which is no RuntimeError."""


class FakeCuPy(types.ModuleType):
    """As much of CuPy as is looked at when it is opened; `fault` fails there."""

    ndarray = type("ndarray", (), {})
    asarray = asnumpy = staticmethod(lambda x: x)

    def __init__(self, fault: str = "", capability: str = "90") -> None:
        super().__init__("cupy")
        self.fault = fault
        device = types.SimpleNamespace(compute_capability=capability, synchronize=lambda: None)
        runtime = types.SimpleNamespace(getDeviceCount=self._count)
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            Device=lambda: device,
            device=types.SimpleNamespace(get_cublas_handle=self._handle),
            compiler=types.SimpleNamespace(CompileException=CompileError),
            alloc=None,
            MemoryPool=lambda: None,
        )

    def get_default_memory_pool(self) -> None:
        return None

    def _count(self) -> int:
        if self.fault == "driver":
            raise RuntimeError("cudaErrorInsufficientDriver: too old")
        return 1

    def zeros(self, size: int) -> None:
        if self.fault == "memory":
            raise MemoryError("Out of memory allocating 512 bytes")

    def _handle(self) -> None:
        if self.fault == "cublas's memory":
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")

    def ones(self, size: int) -> None:
        if self.fault == "compiler":
            raise RuntimeError(
                "CuPy failed to load libnvrtc.so.13: OSError: no such file\n\nand so on"
            )
        if self.fault == "headers":
            raise CompileError("cannot open source file 'cuda_fp16.h'\n1 error")


class Libraries(types.ModuleType):
    """CuPy's package of libraries, which finds and loads one when it is asked for it."""

    there = True

    def __getattr__(self, name: str) -> types.ModuleType:
        if not self.there:
            raise ImportError(f"lib{name}.so.13: cannot open shared object file")
        return types.ModuleType(name)


@pytest.fixture
def _no_cupy_yet(monkeypatch):
    monkeypatch.setattr(backend, "_by_name", dict(backend._by_name))
    monkeypatch.setattr(backend, "_by_kind", dict(backend._by_kind))
    backend._by_name.pop("cupy", None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", Libraries("libs"))
    # What it would make of a stand-in for CuPy is for nobody else.
    monkeypatch.setattr(memory, "arena", functools.cache(memory.Arena))


@pytest.mark.usefixtures("_no_cupy_yet")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("driver", r"no usable GPU \(cudaErrorInsufficientDriver: too old\).*nvidia-smi"),
        ("cublas", r"no cuBLAS .*pip install 'npformer\[cuda13\]'"),
        ("old", r"compute capability 8.0 \(Ampere\) or newer; this one has 7.5"),
        ("memory", r"cannot use the GPU's memory \(Out of memory.*CUDA_VISIBLE_DEVICES"),
        ("cublas's memory", r"cannot start cuBLAS \(CUBLAS_STATUS_ALLOC_FAILED\).* lacks memory"),
        ("compiler", r"cannot build kernels \(CuPy failed to load libnvrtc.*file\): pip install"),
        ("headers", r"cannot build kernels \(cannot open source file 'cuda_fp16.h'\): pip"),
    ],
)
def test_cupy_that_cannot_work_is_one_clear_error(monkeypatch, fault, message):
    monkeypatch.setitem(sys.modules, "cupy", FakeCuPy(fault, "75" if fault == "old" else "90"))
    if fault == "cublas":
        monkeypatch.setattr(Libraries, "there", False)
    with pytest.raises(BackendError, match=message) as caught:
        backend.backend("cupy")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_no_cupy_yet")
@pytest.mark.parametrize("capability", ["80", "90", "120"])
def test_gpus_from_ampere_on_are_used(monkeypatch, capability):
    monkeypatch.setitem(sys.modules, "cupy", FakeCuPy(capability=capability))
    assert backend.backend("cupy").name == "cupy"


def test_a_backend_can_be_registered_again():
    strict_arrays.register()
    assert backend.backend("strict").kind is StrictArray


def test_a_subclass_of_an_array_belongs_where_its_parent_does():
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
        owner = backend.backend(name)
        assert isinstance(buffer.values, owner.kind)
        assert buffer.parameters["w"] is w
        assert w.grad is None
        assert buffer.grads is None
        for key, parameter in buffer.parameters.items():
            assert isinstance(parameter.value, owner.kind)
            np.testing.assert_array_equal(parameter.numpy(), values[key])
        assert isinstance(buffer.allocate_gradients(), owner.kind)
        assert isinstance(w.grad, owner.kind)


def test_a_moved_parameter_is_still_a_view_of_the_flat_values():
    buffer = ParameterBuffer({"w": np.zeros((2, 2))})
    buffer.to("strict")
    buffer.values += 3
    np.testing.assert_array_equal(buffer.parameters["w"].numpy(), 3)


def test_a_buffer_made_while_a_backend_is_in_use_lies_there():
    with using("strict"):
        buffer = ParameterBuffer({"w": np.ones((2, 2))})
    assert isinstance(buffer.values, StrictArray)
    buffer.parameters["w"].assign(np.full((2, 2), 2))  # from any backend
    np.testing.assert_array_equal(buffer.parameters["w"].numpy(), 2)
