"""Loops in the background: what is computed, and when it is waited for."""

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import Parameter, Tape, ops  # noqa: E402
from autograd.cpu import background, pool  # noqa: E402
from autograd.cpu.addition import add_to  # noqa: E402
from autograd.cpu.commands import Record  # noqa: E402
from autograd.cpu.loops import parallel_loop  # noqa: E402
from autograd.cpu.products import weight_gradient  # noqa: E402
from tests.autograd.drawing import normal32  # noqa: E402

pytestmark = pytest.mark.limit(600)  # the first tests compile loops


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """However many processors there are, and with a pool of this test's own."""
    monkeypatch.setattr(pool, "threads", lambda: 2)
    monkeypatch.setattr(pool, "_pool", None)
    yield
    if pool._pool is not None:
        pool._pool.close()


@parallel_loop
def _sum_up(i, x, sums):
    """A row of x, slowly."""
    total = 0.0
    for _ in range(200):
        for j in range(x.shape[1]):
            total += x[i, j]
    sums[i] = total / 200


@parallel_loop
def _fill(i, sizes, filled):
    filled[i] = np.ones(sizes[i]).sum()


@parallel_loop
def _count(i, times):
    times[i] += 1


def rows_and_sums(tasks: int = 40) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(tasks).integers(0, 9, (tasks, 500)).astype(float), np.zeros(tasks)


def test_more_loops_than_there_is_room_for_are_all_done():
    given = [rows_and_sums(tasks) for tasks in range(1, 60)]
    finish = [background.begin(_sum_up, len(x), x, sums) for x, sums in given]
    for end in [*finish, *reversed(finish)]:  # twice does no harm
        end()
    for x, sums in given:
        np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-12)


def test_loops_that_are_waited_for_run_meanwhile():
    x, sums = rows_and_sums()
    for _ in range(50):
        sums[:] = 0
        end = background.begin(_sum_up, len(x), x, sums)
        other = np.zeros(len(x))
        _sum_up(len(x), x, other)
        np.testing.assert_allclose(other, x.sum(axis=1), rtol=1e-12)
        end()
        np.testing.assert_array_equal(sums, other)


def test_arrays_stay_until_the_loop_is_done_even_if_nobody_waits():
    x, sums = rows_and_sums(2000)
    expected, there = x.sum(axis=1), weakref.ref(x)
    background.begin(_sum_up, len(x), x, sums)
    del x
    gc.collect()
    slots = [slot for slot in pool.background() if not slot.is_done]
    assert not slots or there() is not None
    while not all(slot.is_done for slot in pool.background()):
        _sum_up(2, expected.reshape(2, -1), np.zeros(2))
    np.testing.assert_allclose(sums, expected, rtol=1e-12)


def test_arrays_are_given_up_when_the_loop_is_done():
    x, sums = rows_and_sums()
    there = weakref.ref(x)
    background.begin(_sum_up, len(x), x, sums)()
    del x
    gc.collect()
    assert there() is None


def test_a_loop_without_memory_raises_its_error_where_it_is_waited_for():
    sizes, filled = np.array([3, 3, 1 << 60, 3]), np.zeros(4)
    for others in (0, 20):  # which take its place before it is waited for
        end = background.begin(_fill, 4, sizes, filled)
        given = [rows_and_sums() for _ in range(others)]
        ends = [background.begin(_sum_up, len(x), x, sums) for x, sums in given]
        for other in ends:
            other()
        with pytest.raises(MemoryError, match="_fill"):
            end()
    background.begin(_fill, 2, sizes, filled)()
    assert filled[:2].tolist() == [3, 3]


def test_a_loop_runs_at_once_where_there_is_one_thread_or_a_recording(monkeypatch):
    x, sums = rows_and_sums()
    record = Record()
    with record.running():
        background.begin(_sum_up, len(x), x, sums)
    assert len(record.calls) == 1
    np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-12)
    monkeypatch.setattr(pool, "threads", lambda: 1)
    sums[:] = 0
    background.begin(_sum_up, len(x), x, sums)
    np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-12)


def test_each_of_very_many_tasks_is_run_once():
    times = np.zeros((1 << 24) + 3, np.uint8)
    _count(len(times), times)
    assert (times == 1).all()
    background.begin(_count, len(times), times)()
    assert (times == 2).all()


def test_threads_of_python_can_begin_and_wait_at_once():
    def work(seed):
        for tasks in range(1, 40):
            x, sums = rows_and_sums(tasks + seed)
            end = background.begin(_sum_up, len(x), x, sums)
            if tasks % 3:
                _sum_up(len(x), x, np.zeros(len(x)))
            end()
            np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-12)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_begins_anew():
    given = [rows_and_sums() for _ in range(8)]
    ends = [background.begin(_sum_up, len(x), x, sums) for x, sums in given]
    child = os.fork()
    if child == 0:
        x, sums = rows_and_sums()
        background.begin(_sum_up, len(x), x, sums)()
        os._exit(0 if np.allclose(sums, x.sum(axis=1)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    for end in ends:
        end()
    assert all(np.allclose(sums, x.sum(axis=1)) for x, sums in given)


@pytest.mark.parametrize("add", [False, True])
def test_the_gradient_of_a_large_weight_has_the_same_bits_in_the_background(add):
    rng = np.random.default_rng(0)
    x, dy, before = normal32(rng, 700, 300), normal32(rng, 700, 310), normal32(rng, 300, 310)
    at_once, later = before.copy(), before.copy()
    weight_gradient(x, dy)(at_once, add)
    weight_gradient(x, dy).begin(later, add)()
    np.testing.assert_array_equal(later, at_once)


def test_a_network_has_the_same_bits_with_one_thread(monkeypatch):
    rng = np.random.default_rng(0)
    x = normal32(rng, 300, 280)
    weights = [Parameter(normal32(rng, 280, 280)) for _ in range(6)]

    def gradients():
        with Tape() as tape:
            y = x
            for w in (*weights, *weights):  # each has two gradients
                y = ops.linear(y, w, relu=True)
            loss = y.sum()
        tape.backward(loss)
        return [w.grad.copy() for w in weights]

    shared = [gradients() for _ in range(5)]
    monkeypatch.setattr(pool, "threads", lambda: 1)
    alone = gradients()
    for found in shared:
        np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("shape", [(), (3,), (200, 300), (70_001,)])
def test_adding_gradients_gives_the_bits_of_numpy(shape):
    rng = np.random.default_rng(0)
    total, x = (np.asarray(normal32(rng, *shape)) for _ in "ab")
    expected = total + x
    add_to(total, x)
    np.testing.assert_array_equal(total, expected)


def test_gradients_of_another_layout_are_added_too():
    rng = np.random.default_rng(0)
    total, x = normal32(rng, 400, 300), normal32(rng, 300, 400).T
    for other in (x, x.astype(np.float64), np.float32(2), x[:1]):
        expected = (total + other).astype(np.float32)
        add_to(total, other)
        np.testing.assert_array_equal(total, expected)
