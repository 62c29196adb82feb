"""The stand-in for a GPU refuses what a GPU refuses, so that tests with it prove something.

Run by pytest with CuPy emulated: python -m tests.without_gpu.cupy tests/without_gpu/cupy/checks.py.
The ordinary test run starts them in a separate process (tests/without_gpu/test_cupy.py).
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import cupy
import numpy as np
import pytest
from cupy_backends.cuda.api import driver, runtime
from cupy_backends.cuda.api.driver import CUDADriverError
from cupy_backends.cuda.api.runtime import CUDARuntimeError
from cupy_backends.cuda.libs import cublas

from autograd.cuda import cublaslt
from autograd.cuda.cublaslt import CublasLtError, Problem

TO_DEVICE, TO_HOST, WITHIN = 1, 2, 3  # kinds of copies
_SHARED = 'extern "C" __global__ void nothing() {}'
_FEW = 'extern "C" __global__ void __launch_bounds__(64) nothing() {}'


def launch(
    text: str = _SHARED,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (32, 1, 1),
    shared: int = 0,
    stream: int = 0,
) -> None:
    function = cupy.RawModule(code=text).get_function("nothing")
    driver.launchKernel(function.kernel.ptr, *grid, *block, shared, stream, 0, 0)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"grid": (0, 1, 1)}, "a grid of 0 blocks on axis 0"),
        ({"grid": (2**31, 1, 1)}, "a grid of 2147483648 blocks on axis 0"),
        ({"grid": (1, 65_536, 1)}, "a grid of 65536 blocks on axis 1"),
        ({"block": (0, 1, 1)}, "a block of 0 threads"),
        ({"block": (1025, 1, 1)}, "a block of 1025 threads"),
        ({"block": (32, 1, 65)}, "a block of 65 threads on axis 2"),
        ({"block": (32, 33, 1)}, "nothing: 1056 threads, and 1024 at most"),
        ({"block": (96, 1, 1), "text": _FEW}, "nothing: 96 threads, and 64 at most"),
        ({"shared": 48 * 1024 + 1}, "49153 bytes of shared memory, and 49152 are allowed"),
        ({"stream": 12_345}, "a stream that does not exist"),
    ],
)
def test_an_impossible_launch_is_refused(chosen, message):
    launch()
    before = runtime.deviceGetAttribute(16, 0)
    with pytest.raises(CUDADriverError, match=message):
        launch(**chosen)
    assert runtime.deviceGetAttribute(16, 0) == before  # the device still works


def test_more_shared_memory_must_be_requested_and_is_limited():
    function = cupy.RawModule(code=_SHARED).get_function("nothing")
    function.max_dynamic_shared_size_bytes = 200 * 1024
    driver.launchKernel(function.kernel.ptr, 1, 1, 1, 32, 1, 1, 200 * 1024, 0, 0, 0)
    with pytest.raises(CUDADriverError, match="232449 bytes of shared memory, of 232448"):
        function.max_dynamic_shared_size_bytes = 227 * 1024 + 1


def test_static_shared_memory_counts_towards_the_limit():
    text = """
    extern "C" __global__ void count(float* out) {
        __shared__ float numbers[128];
        numbers[threadIdx.x] = threadIdx.x;
        __syncthreads();
        if (threadIdx.x == 0) *out = numbers[31];
    }"""
    function, out = cupy.RawKernel(text, "count"), cupy.zeros(1, np.float32)
    assert function.shared_size_bytes == 512
    function((1,), (32,), (out,), shared_mem=48 * 1024 - 512)
    assert out.get() == 31
    with pytest.raises(CUDADriverError, match="48641 bytes of shared memory, and 48640 are"):
        function((1,), (32,), (out,), shared_mem=48 * 1024 - 511)
    function.max_dynamic_shared_size_bytes = 227 * 1024 - 512
    function((1,), (32,), (out,), shared_mem=227 * 1024 - 512)
    with pytest.raises(CUDADriverError, match="of 231936 that a block can have"):
        function.max_dynamic_shared_size_bytes = 227 * 1024 - 511


def test_a_kernel_runs_once_for_each_thread():
    text = """
    extern "C" __global__ void count(int* out, int step) {
        out[blockIdx.x * blockDim.x + threadIdx.x] += step;
    }"""
    out = cupy.zeros(96, np.int32)
    cupy.RawKernel(text, "count")((3,), (32,), (out, np.int32(5)))
    assert (out.get() == 5).all()


def test_a_deadlock_of_threads_is_an_error():
    text = """
    extern "C" __global__ void wait() { if (threadIdx.x == 0) __syncwarp(); }"""
    with pytest.raises(CUDADriverError, match="wait: threads wait for others that never come"):
        cupy.RawKernel(text, "wait")((1,), (64,), ())


def test_a_kernel_of_an_unloaded_module_does_not_exist():
    module = cupy.RawModule(code=_SHARED + "// of this test alone")
    address = module.get_function("nothing").kernel.ptr
    driver.launchKernel(address, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)
    driver.moduleUnload(module.module.ptr)
    with pytest.raises(CUDADriverError, match="a kernel that does not exist"):
        driver.launchKernel(address, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)
    module.module.ptr = 0  # so that CuPy does not unload it again


def test_a_thread_needs_a_context_to_launch_a_kernel():
    function = cupy.RawModule(code=_SHARED).get_function("nothing").kernel.ptr
    found: list[str] = []

    def attempt() -> None:
        for prepare in (lambda: None, lambda: runtime.free(0)):
            prepare()
            try:
                driver.launchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)
            except CUDADriverError as error:
                found.append(str(error))
            else:
                found.append("launched")

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "a thread that has no context" in found[0]
    assert found[1:] == ["launched"]


@pytest.mark.parametrize(
    ("attempt", "error", "name"),
    [
        (lambda: runtime.mallocManaged(8), CUDARuntimeError, "it has no cudaMallocManaged"),
        (lambda: driver.linkCreate(), CUDADriverError, "it has no cuLinkCreate_v2"),
    ],
)
def test_a_missing_function_of_cuda_is_named(attempt, error, name):
    with pytest.raises(error, match=name):
        attempt()


def test_a_missing_function_of_cublas_is_named(capfd):
    x = cupy.zeros((2, 2))
    with pytest.raises(cublas.CUBLASError, match="NOT_SUPPORTED"):
        cublas.dgemv(_handle(), 0, 2, 2, 0, x.data.ptr, 2, x.data.ptr, 1, 0, x.data.ptr, 1)
    assert "it has no cublasDgemv_v2" in capfd.readouterr().err


def test_a_sort_that_is_not_emulated_is_named():
    with pytest.raises(NotImplementedError, match="several keys"):
        cupy.lexsort(cupy.ones((2, 3)))
    with pytest.raises(NotImplementedError, match="templates"):
        cupy.RawModule(code="", name_expressions=["f<int>"]).compile()


@pytest.fixture
def memory():
    """An allocation that is not part of the pool."""
    size = 4096
    address = runtime.malloc(size)
    yield address, size
    runtime.free(address)


def test_fresh_memory_is_nan(memory):
    address, size = memory
    found = np.zeros(size // 8)
    runtime.memcpy(found.ctypes.data, address, size, TO_HOST)
    assert np.isnan(found).all()


@pytest.mark.parametrize("kind", [TO_DEVICE, TO_HOST, WITHIN])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_copies_must_stay_within_allocations(memory, kind, asynchronous):
    address, size = memory
    host = np.zeros(2 * size, np.uint8)
    to = host.ctypes.data if kind == TO_HOST else address
    source = host.ctypes.data if kind == TO_DEVICE else address

    def copy(to: int, source: int, size: int, kind: int) -> None:
        if asynchronous:
            runtime.memcpyAsync(to, source, size, kind, 0)
        else:
            runtime.memcpy(to, source, size, kind)

    copy(to, source, size, kind)
    for outside in (
        (to, source, size + 1, kind),
        (to + 1 if kind != TO_HOST else to, source + 1 if kind == TO_HOST else source, size, kind),
    ):
        with pytest.raises(CUDARuntimeError, match="past the end of an allocation"):
            copy(*outside)
    with pytest.raises(CUDARuntimeError, match="device has"):
        copy(to, source, size, TO_DEVICE if kind != TO_DEVICE else TO_HOST)


def test_freed_memory_cannot_be_used():
    address, host = runtime.malloc(4096), np.zeros(1)
    runtime.free(address)
    for attempt in (
        lambda: runtime.free(address),
        lambda: runtime.memset(address, 0, 1),
        lambda: runtime.memcpy(host.ctypes.data, address, 8, TO_HOST),
    ):
        with pytest.raises(CUDARuntimeError, match=r"not allocated|outside of|has no memory"):
            attempt()


def test_memory_is_limited():
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(1 << 40, np.uint8)
    assert runtime.memGetInfo()[1] == 80 << 30


def test_destroyed_streams_and_events_are_refused():
    stream = runtime.streamCreate()
    runtime.streamSynchronize(stream)
    runtime.streamDestroy(stream)
    with pytest.raises(CUDARuntimeError, match="does not exist"):
        runtime.streamSynchronize(stream)
    event = runtime.eventCreate()
    with pytest.raises(CUDARuntimeError, match="were not recorded"):
        runtime.eventElapsedTime(event, event)
    runtime.eventDestroy(event)
    with pytest.raises(CUDARuntimeError, match=r"do not exist|does not exist"):
        runtime.eventRecord(event, 0)


def test_the_device_takes_a_fixed_time_for_each_piece_of_work():
    """Whatever the host does meanwhile, so that choices by time are always the same."""
    x = cupy.zeros(8)
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(3):
        x += 1
    end.record()
    assert cupy.cuda.get_elapsed_time(begin, end) == pytest.approx(3e-3)


def _handle() -> int:
    return int(cupy.cuda.device.get_cublas_handle())


def _multiply(a: int, b: int, out: int, scale: int, **changes: int) -> None:
    """out [4, 4] = a [4, 4] b [4, 4] in float32, with `changes` of the arguments."""
    chosen = {"m": 4, "n": 4, "k": 4, "a_type": 0, "a_stride": 4, "b_stride": 4, "out_stride": 4}
    p = {**chosen, "compute": 68, **changes}
    cublas.gemmEx(
        *(_handle(), 0, 0, p["m"], p["n"], p["k"], scale),
        *(a, p["a_type"], p["a_stride"], b, 0, p["b_stride"]),
        *(scale, out, 0, p["out_stride"], p["compute"], -1),
    )


def _matrices() -> tuple[list[cupy.ndarray], np.ndarray]:
    return [cupy.ones((4, 4), np.float32) for _ in range(3)], np.ones(1, np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"a_stride": 3},
        {"b_stride": 3},
        {"out_stride": 3},
        {"m": -1},
        {"k": 1 << 28},
        {"a_type": 14},
        {"compute": 70},
        {"compute": 64},
    ],
    ids=str,
)
def test_products_with_invalid_arguments_are_refused(changes):
    arrays, one = _matrices()
    _multiply(*(x.data.ptr for x in arrays), one.ctypes.data)
    assert (arrays[2].get() == 5).all()
    with pytest.raises(cublas.CUBLASError):
        _multiply(*(x.data.ptr for x in arrays), one.ctypes.data, **changes)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_products_need_operands_on_the_device_and_scales_as_the_pointer_mode_says(index, capfd):
    arrays, one = _matrices()
    addresses = [*(x.data.ptr for x in arrays), one.ctypes.data]
    host = np.ones((4, 4), np.float32)
    addresses[index] = arrays[0].data.ptr if index == 3 else host.ctypes.data
    with pytest.raises(cublas.CUBLASError, match="INVALID_VALUE"):
        _multiply(*addresses)
    assert ("pointer mode" if index == 3 else "memory") in capfd.readouterr().err


def test_products_of_cublaslt_need_operands_on_the_device():
    library = cublaslt.load()
    problem = Problem(
        *(4, 4, 4, False, False, 4, 4, 4, "float32", "float32", "bias"),
        scale_on_device=False,
        tf32=False,
    )
    algorithm = library.algorithms(problem, 1 << 20, 1)[0]
    arrays, _ = _matrices()
    workspace, bias = cupy.empty(1 << 20, np.uint8), cupy.ones(4, np.float32)
    host = np.ones(1 << 20, np.uint8)

    def multiply(**changes: Any) -> None:
        a, b, out = (x.data.ptr for x in arrays)
        chosen = {
            "a": a,
            "b": b,
            "out": out,
            "bias": bias.data.ptr,
            "workspace": workspace.data.ptr,
        }
        settings = {"alpha": 1.0, "beta": 0.0, "workspace_bytes": 1 << 20, "stream": 0}
        library.multiply(problem, algorithm, **{**chosen, **settings, **changes})

    multiply()
    assert (arrays[2].get() == 5).all()
    for name in ("a", "b", "out", "bias", "workspace"):
        with pytest.raises(CublasLtError, match="INVALID_VALUE"):
            multiply(**{name: host.ctypes.data})


def test_the_driver_is_the_stand_in():
    library = ctypes.CDLL("libcuda.so.1")
    assert hasattr(library, "stand_in_counts")


_ADD = """
extern "C" __global__ void add(float* out, const float* x, float number) {
    out[threadIdx.x] += x[threadIdx.x] + number;
}"""


@pytest.fixture
def recorded():
    """A stream that can be recorded."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        yield stream
    if stream.is_capturing():
        stream.end_capture()


def test_a_replay_has_the_arguments_of_the_recording_and_what_memory_holds_by_then(recorded):
    add = cupy.RawKernel(_ADD, "add")
    x, out = cupy.ones(32, np.float32), cupy.zeros(32, np.float32)
    number = 2.0
    recorded.begin_capture()
    add((1,), (32,), (out, x, np.float32(number)))
    x *= np.float32(3)
    out[:16] = x[16:]
    graph = recorded.end_capture()
    assert (x.get() == 1).all()  # nothing has been done so far
    assert (out.get() == 0).all()
    number = 7.0
    graph.launch()
    assert (x.get() == 3).all()
    assert (out.get() == [3] * 16 + [3] * 16).all()
    x[...] = 10
    graph.launch()
    assert (out[16:].get() == 3 + 10 + 2).all()  # 2 is frozen, 10 is not
    assert (out[:16].get() == 30).all()


def test_a_replayed_product_has_the_matrices_and_scales_of_the_recording(recorded):
    lt = cublaslt.load()
    problem = Problem(8, 8, 8, False, False, 8, 8, 8, "float32", "float32", "bias", False, False)
    algorithm = lt.algorithms(problem, 0, 1)[0]
    a, b = cupy.eye(8, dtype=np.float32), cupy.full((8, 8), 2, np.float32)
    out, biases = cupy.zeros((8, 8), np.float32), cupy.ones((2, 8), np.float32)

    def multiply(alpha: float, bias: Any) -> None:
        places = (x.data.ptr for x in (a, b, out))
        kept = {"workspace": 0, "workspace_bytes": 0, "stream": recorded.ptr}
        lt.multiply(problem, algorithm, *places, bias=bias.data.ptr, alpha=alpha, beta=0.0, **kept)

    recorded.begin_capture()
    multiply(3.0, biases[0])
    graph = recorded.end_capture()
    multiply(5.0, biases[1])  # the plan is the same, and now has another bias
    b[...], biases[0] = 4, 100
    graph.launch()
    assert (out.get() == 3 * 4 + 100).all()


_CANNOT_BE_RECORDED = {
    "waiting for the device": lambda x: cupy.cuda.get_current_stream().synchronize(),
    "a copy from or to the host's memory": lambda x: runtime.memcpyAsync(
        x.data.ptr, np.ones(1).ctypes.data, 8, TO_DEVICE, cupy.cuda.get_current_stream().ptr
    ),
    "a copy on another stream": lambda x: runtime.memcpyAsync(
        x.data.ptr, x.data.ptr + 8, 8, WITHIN, 0
    ),
    "an event": lambda x: cupy.cuda.get_current_stream().record(),
    "a sort": lambda x: x.argsort(),
    "memory that is freed": lambda x: runtime.free(runtime.malloc(8)),
}


@pytest.mark.parametrize("what", _CANNOT_BE_RECORDED)
def test_what_cannot_be_recorded_is_refused_and_the_recording_is_lost(recorded, what):
    x = cupy.ones(4)
    recorded.begin_capture()
    with pytest.raises(RuntimeError, match=f"{what} while a stream is recorded"):
        _CANNOT_BE_RECORDED[what](x)
    with pytest.raises(CUDARuntimeError, match="a recording that was lost"):
        recorded.end_capture()
    assert (x.get() == 1).all()  # the stream still works


def test_a_copy_to_the_host_and_a_product_of_cublas_cannot_be_recorded(recorded):
    """CuPy says so itself."""
    x = cupy.ones((4, 4))
    recorded.begin_capture()
    with pytest.raises(RuntimeError, match="D2H transfers are disallowed"):
        x.get()
    with pytest.raises(NotImplementedError):
        x @ x
    recorded.end_capture()


def test_the_default_stream_cannot_be_recorded():
    with pytest.raises((CUDARuntimeError, RuntimeError)):
        cupy.cuda.Stream.null.begin_capture()


def test_a_replay_does_not_touch_memory_that_was_freed(recorded):
    address = runtime.malloc(4096)
    recorded.begin_capture()
    runtime.memsetAsync(address, 0, 4096, recorded.ptr)
    graph = recorded.end_capture()
    graph.launch()
    runtime.free(address)
    with pytest.raises(
        CUDARuntimeError, match="a replay of a memset touches memory that was freed"
    ):
        graph.launch()
