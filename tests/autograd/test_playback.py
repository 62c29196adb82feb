"""Functions whose loops are recorded and played back do what they do when they are run."""

import logging
import os
import signal
import threading
import time

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import Tensor, ops, references, watching  # noqa: E402
from autograd.backend import backend  # noqa: E402
from autograd.cpu import loops  # noqa: E402
from autograd.cpu.memory import empty  # noqa: E402
from autograd.cpu.recording import LoopRecorder  # noqa: E402
from tests.autograd.test_loops import run  # noqa: E402

pytestmark = pytest.mark.limit(600)

D, HIDDEN = 48, 96


class Layers:
    """Some layers, on an input that stays where it is; `before` and `after` see what is there."""

    def __init__(self, rows=2, seed=0, layers=3):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return rng.standard_normal(shape, np.float32)

        self.rng, self.layers, self.calls = rng, layers, 0
        self.x = normal(rows, D)
        self.inner, self.outer = normal(D, HIDDEN) / 7, normal(HIDDEN, D) / 10
        self.bias, self.bias_of_outer = normal(HIDDEN), normal(D)
        self.gain = normal(D)
        self.weight = normal(300, D)

    def __call__(self):
        self.calls += 1
        y = Tensor(self.x)
        for _ in range(self.layers):
            weights = self.inner, self.bias, self.outer, self.bias_of_outer
            y = ops.add_dropout_norm(
                self.between(ops.feed_forward(y, *weights)), y, self.gain, self.bias_of_outer
            )
        return ops.top_k(y.value, self.weight, k=5)

    def between(self, y):
        return y

    def change(self):
        """New numbers in the input."""
        self.x[...] = self.rng.standard_normal(self.x.shape)


def equal(a, b):
    return all(map(np.array_equal, a, b))


@pytest.mark.parametrize("rows", [1, 2, 8, 9, 40])
def test_what_is_played_back_is_what_is_run(rows):
    layers = Layers(rows)
    recorded = LoopRecorder()(layers)
    for _ in range(6):
        layers.change()
        expected = layers()
        calls = layers.calls
        assert equal(recorded(), expected)
    assert layers.calls == calls  # the last call did not run it
    assert recorded()[0] is recorded()[0]


def test_the_backend_records():
    layers = Layers()
    numpy = backend("numpy")
    assert numpy.records
    assert not numpy.records_gradients
    recorded = numpy.record(layers)
    for _ in range(5):
        recorded()
    assert layers.calls == 2


class ANewArray(Layers):
    def between(self, y):
        return Tensor(np.tanh(y.value))


class ChangedInPlace(Layers):
    def between(self, y):
        y.value[...] *= 2
        return y


class OwnMemory(Layers):
    """NumPy writes to an array that stays."""

    def between(self, y):
        if not hasattr(self, "own"):
            self.own = y.value.copy()
        np.tanh(y.value, out=self.own)
        return Tensor(self.own)


class WrittenThroughAView(OwnMemory):
    def between(self, y):
        if not hasattr(self, "column"):
            self.own = y.value.copy()
            self.column = self.own[:, 3]
        self.column += 1
        return Tensor(self.own)


class AnotherNumber(Layers):
    def between(self, y):
        return ops.layer_norm(y, self.gain, self.bias_of_outer, epsilon=abs(float(y.value[0, 0])))


class AnotherBranch(Layers):
    def between(self, y):
        return y if self.calls % 2 else ops.layer_norm(y, self.gain, self.bias_of_outer)


class ASmallOperation(Layers):
    def between(self, y):
        return y * y


class ABroadcastSum(Layers):
    def between(self, y):
        return y + self.gain


class AReference(Layers):
    def between(self, y):
        with references():
            return ops.layer_norm(y, self.gain, self.bias_of_outer)


class ACopy(Layers):
    def between(self, y):
        return Tensor(y.value[:, ::-1])  # which loops copy


class OtherResults(Layers):
    def __call__(self):
        log_p, ids = super().__call__()
        return log_p, ids + 1


class OwnResults(Layers):
    """It returns an array that no loop has had."""

    def __call__(self):
        log_p, ids = super().__call__()
        if not hasattr(self, "own"):
            self.own = log_p.copy()
        self.own[...] = log_p
        return self.own, ids


class CountedAtTheEnd(Layers):
    count = None

    def __call__(self):
        if self.count is None:
            self.count = np.zeros(1, np.int64)
        self.count += 1
        return *super().__call__(), self.count


@pytest.mark.parametrize(
    "kind",
    [
        ANewArray,
        ChangedInPlace,
        OwnMemory,
        WrittenThroughAView,
        AnotherNumber,
        AnotherBranch,
        ASmallOperation,
        ABroadcastSum,
        AReference,
        ACopy,
        OtherResults,
        OwnResults,
        CountedAtTheEnd,
    ],
)
def test_work_that_is_not_a_loop_is_never_lost(kind, caplog):
    recorded, run = kind(), kind()
    with caplog.at_level(logging.DEBUG, "autograd"):
        play = LoopRecorder()(recorded)
        for _ in range(6):
            recorded.change()
            run.change()
            assert equal(play(), run())
    assert recorded.calls == 6
    [record] = [r for r in caplog.records if "played back" in r.getMessage()]
    assert record.levelno == logging.DEBUG


def test_views_of_what_loops_have_made_are_played_back():
    class AView(Layers):
        def between(self, y):
            return Tensor(y.value.reshape(1, *y.shape)[0])

    recorded, run = AView(), AView()
    play = LoopRecorder()(recorded)
    for _ in range(5):
        recorded.change()
        run.change()
        assert equal(play(), run())
    assert recorded.calls == 2


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_sums_of_matrices_are_played_back(rows):
    class Residual(Layers):
        def between(self, y):
            return y + Tensor(self.x)

    recorded, run = Residual(rows), Residual(rows)
    play = LoopRecorder()(recorded)
    for _ in range(5):
        recorded.change()
        run.change()
        assert equal(play(), run())
    assert recorded.calls == 2


@pytest.mark.parametrize("activation", ["gelu", "swish"])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_other_activations_are_played_back(activation, rows):
    class Activation(Layers):
        def between(self, y):
            weights = self.inner, self.bias, self.outer, self.bias_of_outer
            return getattr(ops, activation)(ops.feed_forward(y, *weights, activation=activation))

    recorded, run = Activation(rows), Activation(rows)
    play = LoopRecorder()(recorded)
    for _ in range(5):
        recorded.change()
        run.change()
        assert equal(play(), run())
    assert recorded.calls == 2


def test_functions_of_a_recorder_share_memory_and_the_first_is_watched():
    recorder = LoopRecorder()
    sizes = [Layers(rows) for rows in (9, 3, 8)]
    plays = [recorder(layers) for layers in sizes]
    held = 0
    for _ in range(6):
        for layers, play in zip(sizes, plays, strict=True):
            layers.change()
            expected = layers()
            assert equal(play(), expected)
            held = held or sum(block.nbytes for block in recorder.blocks)
    assert [layers.calls for layers in sizes] == [6 + 2] * 3
    assert sum(block.nbytes for block in recorder.blocks) == held
    assert held < recorder.nbytes < held + 3 * 64 * 512  # and commands, without room for more


def test_functions_that_need_more_memory_leave_theirs_to_the_others():
    recorder = LoopRecorder()
    sizes = [Layers(rows) for rows in (3, 40, 9, 3)]
    plays = [recorder(layers) for layers in sizes]
    for _ in range(4):
        for layers, play in zip(sizes, plays, strict=True):
            layers.change()
            expected = layers()
            assert equal(play(), expected)
    assert [layers.calls for layers in sizes] == [4 + 2] * 4


def test_another_recorder_of_the_same_functions_need_not_watch_again():
    recorder = LoopRecorder()
    assert not recorder.another().has_watched
    play = recorder(Layers(3))
    for _ in range(2):
        play()
    other = recorder.another()
    assert other.has_watched
    assert not other.blocks


def test_a_recorder_watches_on_until_something_can_be_played_back():
    recorder = LoopRecorder()
    recorded, run = ChangedInPlace(), ChangedInPlace()
    plays = [recorder(recorded) for _ in range(2)]
    for _ in range(4):
        for play in plays:
            recorded.change()
            run.change()
            assert equal(play(), run())
    assert recorded.calls == 8


def test_calls_that_are_observed_are_not_played_back():
    layers = Layers()
    play = LoopRecorder()(layers)
    for _ in range(3):
        play()
    with watching(ops.top_k) as calls:
        play()
    assert len(calls[ops.top_k]) == 1
    with references():
        found, expected = play(), layers()
    assert equal(found, expected)
    assert layers.calls == 2 + 3
    play()
    assert layers.calls == 2 + 3


def test_a_function_that_fails_is_recorded_anew():
    class Fails(Layers):
        fails = False

        def between(self, y):
            if self.fails:
                raise KeyboardInterrupt
            return y

    layers = Fails()
    play = LoopRecorder()(layers)
    for before in (0, 1):
        for _ in range(before):
            play()
        layers.fails = True
        with pytest.raises(KeyboardInterrupt):
            play()
        layers.fails = False
    calls = layers.calls
    for _ in range(5):
        layers.change()
        assert equal(play(), Layers.__call__(layers))
    assert layers.calls == calls + 5 + 2


def test_a_recorded_function_within_another_is_part_of_it():
    inner = Layers()
    recorded = LoopRecorder()(inner)
    for _ in range(3):
        recorded()

    def both():
        log_p, _ = recorded()
        return ops.layer_norm(log_p, inner.gain[:5], inner.gain[5:10])

    play = LoopRecorder()(both)
    for _ in range(4):
        inner.change()
        expected = both().copy()
        np.testing.assert_array_equal(play(), expected)


def test_a_loop_without_memory_raises_an_error_when_it_is_played_back():
    @loops.parallel_loop
    def greedy(i, sizes, sums):
        sums[i] = np.ones(sizes[i]).sum()

    sizes = np.full(4, 3)

    def add():
        sums = empty((4,), np.float64)
        greedy(4, sizes, sums)
        return sums

    play = LoopRecorder()(add)
    for size in (3, 5, 7):
        sizes[:] = size
        np.testing.assert_array_equal(play(), size)
    sizes[2] = 1 << 60
    with pytest.raises(MemoryError, match="greedy"):
        play()
    sizes[:] = 9
    np.testing.assert_array_equal(play(), 9)


def test_threads_record_and_play_back_at_once():
    wrong = []

    def work(seed):
        for turn in range(5):
            layers = Layers(rows=1 + seed, seed=seed + 10 * turn)
            play = LoopRecorder()(layers)
            for _ in range(30):
                layers.change()
                expected = layers()
                if not equal(play(), expected):
                    wrong.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def test_threads_play_back_while_another_has_the_pool():
    """With so many rows that each loop has several tasks, which then run on one thread each."""
    run(
        """
        import threading, time
        from autograd.cpu import loops, pool
        from autograd.cpu.recording import LoopRecorder
        from tests.autograd.test_playback import Layers, equal

        def play_back(seed):
            layers = Layers(rows=loops.MANY + 8 * seed, seed=seed)
            play = LoopRecorder()(layers)
            for _ in range(3):
                play()
            expected = []
            for _ in range(20):
                layers.change()
                expected.append((layers.x.copy(), [x.copy() for x in layers()]))
            ready.wait()
            for x, y in expected:
                layers.x[...] = x
                if not equal(play(), y):
                    wrong.append(seed)
            played.wait()

        pool.address(loops.watch)
        words = pool._pool._words
        for is_taken, count in (True, 1), (True, 2), (False, 2):
            ready, played = (threading.Barrier(count + 1, timeout=100) for _ in range(2))
            wrong = []
            threads = [
                threading.Thread(target=play_back, args=(seed,), daemon=True)
                for seed in range(count)
            ]
            [thread.start() for thread in threads]
            while ready.n_waiting < count:
                time.sleep(0.001)
            words[pool.BUSY] = is_taken  # as if a third thread had it
            words[pool.TASK] = 0
            ready.wait()
            played.wait()
            assert (words[pool.TASK] == 0) == is_taken
            assert words[pool.BUSY] == is_taken
            words[pool.BUSY] = 0
            [thread.join() for thread in threads]
            assert wrong == []
        """,
        NUMBA_NUM_THREADS="2",
    )


def test_playing_back_leaves_other_threads_running():
    layers = Layers(rows=40, layers=40)
    play = LoopRecorder()(layers)
    for _ in range(3):
        play()
    counted, done = 0, threading.Event()

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(50):
        play()
    done.set()
    thread.join()
    assert counted > 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_plays_back_and_records_anew():
    """However far a recording had come when it began, and with threads of its own."""
    run(
        """
        import os, threading
        from autograd.cpu import loops, pool
        from autograd.cpu.recording import LoopRecorder
        from tests.autograd.test_playback import Layers, equal

        def begun(calls):
            layers = Layers(loops.MANY, seed=calls)
            play = LoopRecorder()(layers)
            for _ in range(calls):
                play()
            return layers, play

        functions = [begun(calls) for calls in range(4)]
        inputs, expected = [], []
        for layers, _ in functions:
            layers.change()
            inputs.append(layers.x.copy())
            expected.append([x.copy() for x in layers()])

        def check():
            for calls, (layers, play) in enumerate(functions):
                before = layers.calls
                for _ in range(3):
                    layers.change()
                    assert equal(layers(), play())
                    layers.x[...] = inputs[calls]
                    assert equal(expected[calls], play())
                assert layers.calls - before == 3 + max(0, 2 - calls)  # all others were played back
            helpers = pool._pool._helpers
            assert len(helpers) == 1
            assert all(thread.is_alive() for thread in helpers)

        def check_in_a_child():
            child, status = os.fork(), 3
            if not child:
                try:
                    check()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        check_in_a_child()
        _, play = begun(3)
        done = threading.Event()

        def play_on():
            while not done.is_set():
                play()

        thread = threading.Thread(target=play_on)
        thread.start()
        for _ in range(10):
            check_in_a_child()  # which may begin while the pool is at work
        done.set()
        thread.join()
        check()
        """,
        NUMBA_NUM_THREADS="2",
    )


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_recording_is_played_back_after_signals():
    run(
        """
        import random, signal
        from autograd.cpu.recording import LoopRecorder
        from tests.autograd.test_playback import Layers, equal

        layers = Layers()
        play = LoopRecorder()(layers)
        for _ in range(3):
            play()
        expected = [x.copy() for x in layers()]

        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        signal.signal(signal.SIGALRM, stop)
        for _ in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
                while True:
                    play()
            except Stop:
                pass
            assert equal(play(), expected)
        """
    )
