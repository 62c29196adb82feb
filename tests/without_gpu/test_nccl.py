"""NCCL between processes that have an emulated GPU each: what CuPy asks of it, and what goes wrong.

Functions named `rank_...` run in the processes of the ranks.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.without_gpu import cupy as emulated
from tests.without_gpu.cupy.ranks import Ranks

REASON = emulated.reason_to_skip()
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.limit(300)]

SUM, PRODUCT, MAXIMUM, MINIMUM, AVERAGE = range(5)
OPERATIONS = {
    SUM: np.add,
    PRODUCT: np.multiply,
    MAXIMUM: np.maximum,
    MINIMUM: np.minimum,
    AVERAGE: np.add,
}
TYPES = {
    "int8": 0,
    "uint8": 1,
    "int32": 2,
    "uint32": 3,
    "int64": 4,
    "uint64": 5,
    "float16": 6,
    "float32": 7,
    "float64": 8,
    "bfloat16": 9,
}
FLOAT32 = TYPES["float32"]
SYSTEM, INVALID_ARGUMENT, INVALID_USAGE, REMOTE = 2, 4, 5, 6  # statuses
CONTENT = 1000  # numbers of an array


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4) as running:
        yield running


def dtype_of(name):
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def content(rank, name="float32"):
    """The numbers of a rank; their sum depends on its order."""
    random = np.random.default_rng(rank)
    if "int" in name:
        return random.integers(0, 5, CONTENT).astype(dtype_of(name))
    return random.standard_normal(CONTENT).astype(dtype_of(name))


def reduced(size, name, operation):
    parts = [content(rank, name) for rank in range(size)]
    if operation == AVERAGE and "int" not in name:
        parts = [part * part.dtype.type(1 / size) for part in parts]
    total = parts[0]
    for part in parts[1:]:
        total = OPERATIONS[operation](total, part)
    return total // size if operation == AVERAGE and "int" in name else total


def begin(rank, size, unique_id, device=None):
    """A communicator, and a stream that nothing else waits for."""
    import cupy
    from cupy.cuda import nccl

    cupy.cuda.Device(rank if device is None else device).use()
    return nccl.NcclCommunicator(size, unique_id, rank), cupy.cuda.Stream(non_blocking=True)


def on_device(numbers):
    import cupy

    out = cupy.empty(numbers.shape, numbers.dtype)
    out.set(numbers)
    return out


def ordered_after_all(stream):
    import cupy

    stream.wait_event(cupy.cuda.get_current_stream().record())


def all_reduce(communicator, array, stream, count=None):
    count = array.size if count is None else count
    communicator.allReduce(array.data.ptr, array.data.ptr, count, FLOAT32, SUM, stream.ptr)


def failure(attempt):
    """The status of the NcclError that this raises, and its text."""
    from cupy.cuda.nccl import NcclError

    try:
        attempt()
    except NcclError as error:
        return error.status, str(error)
    return 0, ""


def asynchronous_failure(communicator):
    """What a collective fails with at last."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status, text = failure(communicator.check_async_error)
        if status:
            return status, text
        time.sleep(0.005)
    return 0, ""


# What it does


def rank_reduces(rank, size, unique_id):
    communicator, stream = begin(rank, size, unique_id)
    found = {}
    for name, number in TYPES.items():
        for operation in OPERATIONS:
            x, y = on_device(content(rank, name)), on_device(np.zeros(CONTENT, dtype_of(name)))
            ordered_after_all(stream)
            communicator.allReduce(x.data.ptr, y.data.ptr, CONTENT, number, operation, stream.ptr)
            stream.synchronize()
            found[name, operation] = y.get().tobytes()
    communicator.destroy()
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_an_all_reduce_reduces_in_the_order_of_the_ranks(ranks, size):
    expected = {
        (name, operation): reduced(size, name, operation).tobytes()
        for name in TYPES
        for operation in OPERATIONS
    }
    for found in ranks.call(rank_reduces, ranks.unique_id(), size=size):
        assert found == expected


def rank_tries_each_collective(rank, size, unique_id):
    import cupy

    communicator, _ = begin(rank, size, unique_id)
    stream = cupy.cuda.get_current_stream().ptr
    x = on_device(content(rank))
    address, root = x.data.ptr, size - 1

    def fresh(count=CONTENT):
        return on_device(np.full(count, np.nan, np.float32))

    shared, reduced_at_root, everything, part = fresh(), fresh(), fresh(size * CONTENT), fresh(10)
    communicator.broadcast(address, shared.data.ptr, CONTENT, FLOAT32, root, stream)
    communicator.reduce(address, reduced_at_root.data.ptr, CONTENT, FLOAT32, SUM, root, stream)
    communicator.allGather(address, everything.data.ptr, CONTENT, FLOAT32, stream)
    communicator.reduceScatter(address, part.data.ptr, 10, FLOAT32, SUM, stream)
    found = [x.get() for x in (shared, reduced_at_root, everything, part)]
    communicator.bcast(address, CONTENT, FLOAT32, root, stream)
    found.append(x.get())
    about = (communicator.rank_id(), communicator.size(), communicator.device_id())
    communicator.destroy()
    return about, found


def test_every_collective_gives_each_rank_its_part(ranks):
    size = 3
    total = reduced(size, "float32", SUM)
    results = ranks.call(rank_tries_each_collective, ranks.unique_id(), size=size)
    for rank, (about, (shared, at_root, everything, part, in_place)) in enumerate(results):
        assert about == (rank, size, rank)
        np.testing.assert_array_equal(shared, content(size - 1))
        np.testing.assert_array_equal(in_place, content(size - 1))
        np.testing.assert_array_equal(at_root, total if rank == size - 1 else np.nan)
        np.testing.assert_array_equal(everything, np.concatenate([content(r) for r in range(size)]))
        np.testing.assert_array_equal(part, total[10 * rank : 10 * rank + 10])


def rank_groups(rank, size, unique_id):
    from cupy.cuda import nccl

    communicator, stream = begin(rank, size, unique_id)
    x, y, passed = (on_device(content(rank)) for _ in range(3))
    ordered_after_all(stream)
    nccl.groupStart()
    communicator.send(x.data.ptr, CONTENT // 2, FLOAT32, (rank + 1) % size, stream.ptr)
    all_reduce(communicator, y, stream, 10)
    communicator.recv(passed.data.ptr, CONTENT // 2, FLOAT32, (rank - 1) % size, stream.ptr)
    all_reduce(communicator, y[10:], stream)
    nccl.groupEnd()
    stream.synchronize()
    communicator.destroy()
    return y.get(), passed.get()


def test_a_group_begins_all_its_collectives_at_once(ranks):
    half = CONTENT // 2
    for rank, (y, passed) in enumerate(ranks.call(rank_groups, ranks.unique_id())):
        np.testing.assert_array_equal(y, reduced(4, "float32", SUM))
        np.testing.assert_array_equal(passed[:half], content((rank - 1) % 4)[:half])
        np.testing.assert_array_equal(passed[half:], content(rank)[half:])


def rank_has_two_devices(rank, size):
    import cupy
    from cupy.cuda import nccl

    communicators = nccl.NcclCommunicator.initAll(2)
    arrays = []
    for i, communicator in enumerate(communicators):
        with cupy.cuda.Device(i):
            arrays.append(on_device(content(i)))
            all_reduce(communicator, arrays[-1], cupy.cuda.Stream.null)
    found = []
    for i, array in enumerate(arrays):
        with cupy.cuda.Device(i):
            found.append(array.get())
    return found


def test_one_process_may_be_several_ranks(ranks):
    (found,) = ranks.call(rank_has_two_devices, size=1)
    for numbers in found:
        np.testing.assert_array_equal(numbers, reduced(2, "float32", SUM))


KEPT = {}  # in the process of a rank


def rank_asks_for_a_sum(rank, size, unique_id):
    communicator, stream = begin(rank, size, unique_id)
    x = on_device(content(rank))
    ordered_after_all(stream)
    if rank == 0:
        all_reduce(communicator, x, stream)
    KEPT["sum"] = communicator, stream, x, stream.record()
    return KEPT["sum"][-1].done


def rank_finishes_a_sum(rank):
    import cupy

    communicator, stream, x, event = KEPT.pop("sum")
    if rank > 0:
        all_reduce(communicator, x, stream)
        event = stream.record()
    cupy.cuda.get_current_stream().wait_event(event)
    found = x.get()
    done = event.done
    communicator.destroy()
    return done, found


def test_a_call_returns_before_the_other_ranks_come(ranks):
    assert ranks.call(rank_asks_for_a_sum, ranks.unique_id(), size=2) == [False, True]
    for rank in range(2):
        ranks.begin(rank, rank_finishes_a_sum, rank)
    for rank in range(2):
        done, found = ranks.result(rank)
        assert done
        np.testing.assert_array_equal(found, reduced(2, "float32", SUM))


# What must be ordered


def rank_forgets_events(rank, size, unique_id):
    """The message that each missing event gives."""
    import cupy
    from cupy_backends.cuda.api.driver import CUDADriverError
    from cupy_backends.cuda.api.runtime import CUDARuntimeError

    communicator, stream = begin(rank, size, unique_id)
    double = cupy.RawKernel(
        'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }', "twice"
    )
    x = on_device(np.ones(CONTENT, np.float32))
    middle, zeros = x[100:200], np.zeros(CONTENT, np.float32)
    ordered_after_all(stream)
    double((1,), (32,), (middle,))
    found = [failure(lambda: all_reduce(communicator, x, stream))[1]]
    ordered_after_all(stream)
    all_reduce(communicator, middle, stream)
    for attempt in (
        lambda: double((1,), (32,), (x[150:],)),
        lambda: x.set(zeros),
        lambda: x.get(),
        lambda: middle.fill(3),
        lambda: middle.sort(),
    ):
        try:
            attempt()
        except (CUDADriverError, CUDARuntimeError, RuntimeError) as error:
            found.append(str(error))
    double((1,), (32,), (x[200:],))  # memory of its own
    cupy.cuda.get_current_stream().wait_event(stream.record())
    double((1,), (32,), (middle,))
    sums = x.get()
    communicator.destroy()
    return found, sums


def test_work_on_the_memory_of_a_collective_must_be_ordered_by_an_event(ranks):
    expected = np.ones(CONTENT, np.float32)
    expected[100:200] = 2
    expected[100:132] = 2 * 4
    expected[200:232] = 2
    for found, sums in ranks.call(rank_forgets_events, ranks.unique_id(), size=2):
        assert len(found) == 6
        for text, culprit in zip(
            found,
            [
                "an all-reduce touches the memory of twice",
                "twice",
                "a copy",
                "a copy",
                "cupy_fill",
                "a sort",
            ],
            strict=True,
        ):
            assert culprit in text
            assert "nothing orders the two streams" in text
        np.testing.assert_array_equal(sums, expected)


def rank_relies_on_the_default_stream(rank, size, unique_id):
    import cupy

    communicator, _ = begin(rank, size, unique_id)
    x, blocking = on_device(content(rank)), cupy.cuda.Stream()
    all_reduce(communicator, x, blocking)
    found = x.get()
    communicator.destroy()
    return found


def test_a_blocking_stream_and_the_default_one_wait_for_each_other(ranks):
    for found in ranks.call(rank_relies_on_the_default_stream, ranks.unique_id(), size=2):
        np.testing.assert_array_equal(found, reduced(2, "float32", SUM))


def rank_trains(rank, size, unique_id, missing):
    """The parameters after two steps, or what a missing event makes of them."""
    from cupy.cuda import get_current_stream
    from cupy.cuda.nccl import NcclError
    from cupy_backends.cuda.api.driver import CUDADriverError

    from autograd import Tape, to_host
    from npformer import Transformer
    from tests.examples.small import small_batch, small_config
    from train.adam import Adam

    communicator, side = begin(rank, size, unique_id)
    model = Transformer(small_config(), seed=0).to("cupy", "float32")
    optimizer, gradients = Adam(model.buffer), model.buffer.grads
    middle = gradients.size // 2
    try:
        for _ in range(2):
            with Tape() as tape:
                loss = model.loss(model.prepared(small_batch()))
            tape.backward(loss)
            if missing != "before":
                ordered_after_all(side)
            for bucket in (gradients[middle:], gradients[:middle]):
                all_reduce(communicator, bucket, side)
            if missing != "after":
                get_current_stream().wait_event(side.record())
            optimizer.step(1e-2)
    except (NcclError, CUDADriverError) as error:
        return str(error)
    else:
        return to_host(model.buffer.values)
    finally:
        communicator.destroy()


def test_gradients_may_be_summed_on_a_stream_of_its_own_if_events_order_it(ranks):
    first, second = ranks.call(rank_trains, ranks.unique_id(), "", size=2)
    np.testing.assert_array_equal(first, second)
    for missing, message in (
        ("before", "an all-reduce touches the memory of "),
        ("after", "adam_step touches the memory of an all-reduce"),
    ):
        for found in ranks.call(rank_trains, ranks.unique_id(), missing, size=2):
            assert message in found


# What goes wrong


def rank_fails_to_begin(rank, size, unique_id, device):
    return failure(lambda: begin(rank, size, unique_id, device))


def test_two_ranks_on_one_gpu_are_refused(ranks):
    results = ranks.call(rank_fails_to_begin, ranks.unique_id(), 1, size=2)
    for status, text in results:
        assert status == INVALID_USAGE
        assert "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 2000" in text


def rank_on_a_host_of_its_own(rank, size, unique_id):
    os.environ["NCCL_HOSTID"] = f"host{rank}"
    try:
        communicator, _ = begin(rank, size, unique_id, device=0)
    finally:
        del os.environ["NCCL_HOSTID"]
    communicator.destroy()
    return "begun"


def test_ranks_on_different_hosts_may_have_gpus_of_one_number(ranks):
    results = ranks.call(rank_on_a_host_of_its_own, ranks.unique_id(), size=2)
    assert results == ["begun", "begun"]


def rank_disagrees(rank, size, unique_id):
    communicator, stream = begin(rank, size, unique_id)
    x = on_device(content(rank))
    ordered_after_all(stream)
    all_reduce(communicator, x, stream, CONTENT - rank)
    return finish_after_a_failure(communicator, stream)


def finish_after_a_failure(communicator, stream):
    """What a rank is told, and whether its GPU works after that."""
    import cupy
    from cupy_backends.cuda.api.runtime import CUDARuntimeError

    told = asynchronous_failure(communicator)
    again = failure(lambda: all_reduce(communicator, on_device(content(0)), stream))
    event = stream.record()
    hung = ""
    try:
        stream.synchronize()
    except CUDARuntimeError as error:
        hung = str(error)
    before = event.done
    communicator.abort()
    after = event.done
    stream.synchronize()
    cupy.cuda.Device().synchronize()
    return told, again, hung, before, after


def test_ranks_that_ask_for_different_things_fail(ranks):
    for told, again, hung, before, after in ranks.call(rank_disagrees, ranks.unique_id(), size=2):
        assert told[0] == again[0] == INVALID_USAGE
        assert "an all-reduce of 1000 float32 (sum)" in told[1]
        assert "an all-reduce of 999 float32 (sum)" in told[1]
        assert "a GPU would never finish an all-reduce" in hung
        assert (before, after) == (False, True)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def rank_is_killed_if_it_is_the_last(rank, size, unique_id):
    communicator, stream = begin(rank, size, unique_id)
    x = on_device(content(rank))
    ordered_after_all(stream)
    if rank == size - 1:
        die()
    all_reduce(communicator, x, stream)
    return finish_after_a_failure(communicator, stream)


def test_the_death_of_a_rank_is_a_failure_of_the_others(ranks):
    *results, killed = ranks.call(rank_is_killed_if_it_is_the_last, ranks.unique_id(), size=3)
    assert isinstance(killed, EOFError | ConnectionError)
    for told, again, hung, before, after in results:
        assert told[0] == again[0] == REMOTE
        assert "is gone" in told[1]
        assert "a GPU would never finish an all-reduce" in hung
        assert (before, after) == (False, True)


def rank_stays_away(rank, size, unique_id, dies):
    """The last rank does not come; what the others are told after a second."""
    communicator, stream = begin(rank, size, unique_id)
    if rank == size - 1:
        if dies:
            die()
        time.sleep(1.5)
        communicator.abort()
        return 0, ""
    settings = {emulated.SECONDS: "1", **({emulated.SILENT: "1"} if dies else {})}
    x = on_device(content(rank))
    ordered_after_all(stream)
    before = dict(os.environ)
    os.environ.update(settings)
    all_reduce(communicator, x, stream)
    found = asynchronous_failure(communicator)
    for name in settings:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    communicator.abort()
    return found


@pytest.mark.parametrize("dies", [False, True], ids=["alive", "dead, and nobody notices"])
def test_a_rank_that_does_not_come_is_missed_after_a_time(ranks, dies):
    (status, text), _ = ranks.call(rank_stays_away, ranks.unique_id(), dies, size=2)
    assert status == SYSTEM
    assert "rank 1 has not come" in text


def rank_is_elsewhere(unique_id):
    return failure(lambda: begin(1, 2, unique_id))


def test_a_unique_id_of_a_process_that_is_gone_leads_nowhere(ranks):
    unique_id = ranks.unique_id()
    assert isinstance(ranks.one(0, die), EOFError | ConnectionError)
    status, text = ranks.one(1, rank_is_elsewhere, unique_id)
    assert status == REMOTE
    assert "is not reached: Connection refused" in text


def rank_asks_for_nonsense(rank, size, unique_id):
    from cupy.cuda import nccl

    communicator, stream = begin(rank, size, unique_id)
    x, host = on_device(content(rank)), content(rank)
    address, there = x.data.ptr, stream.ptr
    ordered_after_all(stream)
    found = [
        failure(lambda: communicator.allReduce(address, address, 1, 99, SUM, there)),
        failure(lambda: communicator.allReduce(address, address, 1, FLOAT32, 99, there)),
        failure(lambda: communicator.bcast(address, 1, FLOAT32, size, there)),
        failure(lambda: communicator.bcast(address, CONTENT * 1000, FLOAT32, 0, there)),
        failure(lambda: communicator.bcast(host.ctypes.data, 1, FLOAT32, 0, there)),
        failure(lambda: communicator.bcast(address, 1, FLOAT32, 0, 12_345)),
        failure(lambda: communicator.send(address, 1, FLOAT32, rank, there)),
        failure(lambda: communicator.commSplit(0, 0)),
        failure(nccl.groupEnd),
        failure(lambda: nccl.NcclCommunicator(2, unique_id, 2)),
    ]
    communicator.destroy()
    return [*found, failure(communicator.size)]


def test_impossible_calls_are_refused(ranks):
    (found,) = ranks.call(rank_asks_for_nonsense, ranks.unique_id(), size=1)
    invalid, usage = INVALID_ARGUMENT, INVALID_USAGE
    assert [status for status, _ in found] == [
        *(invalid, invalid, invalid, usage, usage, usage, usage, usage, usage, invalid, invalid)
    ]
    texts = [
        *("of type 99", "with operation 99", "with rank 1 of 1", "not in the memory of device 0"),
        *("not in the memory", "a stream that device 0 does not have", "sends to itself"),
        *("no ncclCommSplit", "was not begun", "rank 2 of 2", "no communicator"),
    ]
    for (_, text), expected in zip(found, texts, strict=True):
        assert expected in text


# Devices


def rank_looks_at_its_devices(rank, size):
    import cupy
    from cupy.cuda import nccl

    count = cupy.cuda.runtime.getDeviceCount()
    numbers = [cupy.cuda.Device(i).pci_bus_id for i in range(count)]
    properties = [cupy.cuda.runtime.getDeviceProperties(i)["pciBusID"] for i in range(count)]
    x = on_device(np.ones(3))
    with cupy.cuda.Device(1):
        y = on_device(np.ones(3))
    return numbers, properties, x.device.id, y.device.id, nccl.available


def test_a_process_sees_the_devices_that_are_named():
    environment = {emulated.GPUS: "4", "CUDA_VISIBLE_DEVICES": "3,0,7,1"}
    with Ranks(1, environment) as one:
        (found,) = one.call(rank_looks_at_its_devices)
    assert found == (["0000:04:00.0", "0000:01:00.0"], [4, 1], 0, 1, True)


def rank_has_no_device(rank, size):
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error), cupy.cuda.is_available()
    return "", True


def test_a_host_may_have_no_device():
    with Ranks(1, {emulated.GPUS: "0"}) as one:
        ((text, available),) = one.call(rank_has_no_device)
    assert "cudaErrorNoDevice" in text
    assert not available


def test_any_module_runs_with_an_emulated_gpu():
    statement = "import cupy; from cupy.cuda import nccl; print(nccl.available)"
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_gpu.cupy.run", "timeit", "-n1", "-r1", statement],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True")
