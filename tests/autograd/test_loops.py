"""How loops are compiled, cached on disk, and run by the threads of the pool."""

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd.cpu import cache, loops  # noqa: E402

pytestmark = pytest.mark.limit(600)  # some tests compile loops


def test_a_loop_without_memory_raises_an_error_with_its_name():
    @loops.parallel_loop
    def greedy(i, sizes, sums):
        sums[i] = np.ones(sizes[i]).sum()

    sums = np.zeros(4)
    with pytest.raises(MemoryError, match="greedy"):
        greedy(4, np.array([3, 3, 1 << 60, 3]), sums)
    greedy(4, np.array([3, 3, 3, 3]), sums)
    np.testing.assert_array_equal(sums, 3)


def test_an_exact_loop_divides_and_adds_as_it_is_written():
    @loops.exact_loop
    def change(i, x, divisor, y):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] / divisor + 0.1 - x[i, j]  # no reciprocal, fused or other order

    rng = np.random.default_rng(0)
    x, divisor = rng.standard_normal((3, 500)), 1.7
    y = np.empty_like(x)
    change(3, x, divisor, y)
    np.testing.assert_array_equal(y, x / divisor + 0.1 - x)


def run(code, **environment):
    """The output of a separate process, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_processors_without_wide_registers_get_smaller_tiles():
    # Loops are cached by the processor's features, so other tests do not use these.
    run(
        """
        import llvmlite.binding as binding
        features = binding.get_host_cpu_features()
        features["avx512f"] = False
        binding.get_host_cpu_features = lambda: features
        import numpy as np
        from autograd import ops
        from autograd.cpu import microkernel

        assert (microkernel.HEIGHT, microkernel.VECTORS) == (6, 1)
        rng = np.random.default_rng(0)
        for rows, d_in, d_out in ((1, 5, 3), (8, 300, 4), (13, 37, 41), (600, 520, 90)):
            x, w = rng.standard_normal((rows, d_in)), rng.standard_normal((d_in, d_out))
            y, vjp = ops.linear.implementation(np.zeros(1, np.float32))(
                x.astype(np.float32), w.astype(np.float32), np.ones(d_out, np.float32), relu=True
            )
            assert np.allclose(y, np.maximum(x @ w + 1, 0), atol=1e-3)
            dy = np.where(y > 0, y, 0)
            dx, dw, db = vjp(y.copy())
            out = np.ones_like(w, np.float32)
            dw(out, True)
            assert np.allclose(dx, dy @ w.T, rtol=1e-3, atol=1e-2)
            assert np.allclose(out, x.T @ dy + 1, rtol=1e-3, atol=1e-2)
            sums = np.ones(d_out, np.float32)
            db(sums, True)
            assert np.allclose(sums, dy.sum(0) + 1, rtol=1e-3, atol=1e-2)
        """
    )


def test_four_threads_can_run_loops_at_once():
    # One of them uses the pool, the others run alone; the results have the same bits.
    run(
        """
        import threading
        import numpy as np
        from autograd import Sentences, Tape, Tensor, ops

        rng = np.random.default_rng(0)
        x, b = rng.standard_normal((512, 96), np.float32), np.ones(32, np.float32)
        outcomes = []

        def work():
            for _ in range(60):
                t = Tensor(x)
                with Tape() as tape:
                    a = ops.attention(t, heads=2, d_k=16, sentences=Sentences([16] * 32))
                    y = ops.add_dropout_norm(a, a, b, b)
                outcomes.append(tape.backward(y, y.value, wanted=[t])[0].sum())

        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(outcomes) == 240 and len(set(outcomes)) == 1, set(outcomes)
        """
    )


def test_threads_sleep_when_there_is_nothing_to_do_and_wake_up_again():
    run(
        """
        import time
        import numpy as np
        from autograd import ops
        from autograd.cpu import pool

        x = np.ones((512, 256), np.float32)
        for _ in range(20):
            assert (ops.linear(x, x[:256]) == 256).all()
            deadline = time.monotonic() + 10
            while len(pool._pool.asleep) < pool.threads() - 1:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        used = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - used < 0.1
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_loops_work_after_a_signal_at_any_time():
    run(
        """
        import os, random, signal
        import numpy as np
        from autograd import ops

        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        signal.signal(signal.SIGALRM, stop)
        x = np.ones((256, 256), np.float32)
        ops.linear(x, x)
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3))
                while True:
                    ops.linear(x, x)
            except Stop:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        child = os.fork()
        good = (ops.linear(x, x) == 256).all()
        if child == 0:
            raise SystemExit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0 and good
        """
    )


def test_loops_run_if_no_thread_can_be_started():
    run(
        """
        import threading
        import numpy as np

        def start(self):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = start
        from autograd import ops
        x = np.ones((256, 256), np.float32)
        for _ in range(3):
            assert (ops.linear(x, x) == 256).all()
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_its_own_threads():
    run(
        """
        import os
        import numpy as np
        from autograd import ops

        x = np.ones((512, 256), np.float32)
        assert (ops.linear(x, x[:256]) == 256).all()
        child = os.fork()
        good = (ops.linear(x, x[:256]) == 256).all()
        if child == 0:
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0 and good
        """
    )


def test_importing_autograd_does_not_import_numba():
    assert "False" in run("import sys, autograd; print('numba' in sys.modules)")


def test_without_numba_references_run_and_one_line_names_the_remedy():
    output = run(
        """
        import logging, sys
        logging.basicConfig(level=logging.INFO)
        sys.modules["numba"] = None
        import numpy as np
        from autograd import ops
        x = np.ones((4, 4), np.float32)
        for _ in range(2):
            ops.linear(x, x)
            ops.layer_norm(x, x[0], x[0])
        assert ops.linear.implementation(x) is ops.linear.reference
        """
    )
    assert output.count("pip install 'npformer[fast]'") == 1


def test_compiling_is_announced_once_and_done_once(tmp_path):
    code = """
        import logging
        logging.basicConfig(level=logging.INFO)
        import numpy as np
        from autograd import ops
        x = np.ones(40, np.float32)
        ops.squared_norm(x)
        ops.adam_step(x, x, x, x, rate=1, beta1=0.9, beta2=0.9, epsilon=1, step=1)
        """
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).count("compiling") == 1
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).count("compiling") == 0


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_only_one_of_several_processes_compiles_a_loop(tmp_path):
    code = """
        import logging
        logging.basicConfig(level=logging.INFO)
        import numpy as np
        from autograd import ops
        print(ops.squared_norm(np.ones(40, np.float32)))
        """
    with ThreadPoolExecutor() as at_once:
        outputs = list(at_once.map(lambda _: run(code, NUMBA_CACHE_DIR=str(tmp_path)), range(3)))
    assert all("40.0" in output for output in outputs)
    assert sum(output.count("compiling") for output in outputs) == 1


def test_loops_are_compiled_if_they_cannot_be_cached(monkeypatch):
    monkeypatch.setattr(cache, "opened", lambda: cache.Cache([]))

    @loops.parallel_loop
    def double(i, x):
        x[i] *= 2

    x = np.ones(3)
    double(3, x)
    np.testing.assert_array_equal(x, 2)


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """A copy of the folder with the sources of all loops."""
    folder = Path(loops.__file__).parent
    shutil.copytree(folder, tmp_path / "cpu", ignore=shutil.ignore_patterns("__pycache__"))
    before = cache.fingerprint()
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cpu" / "cache.py"))
    assert cache.fingerprint() == before
    return tmp_path / "cpu"


SOURCES = sorted(Path(loops.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", [str(p.relative_to(Path(loops.__file__).parent)) for p in SOURCES])
def test_a_change_to_any_source_makes_cached_loops_stale(copied, name):
    before = cache.fingerprint()
    with (copied / name).open("a") as file:
        file.write("# changed\n")
    assert cache.fingerprint() != before


@pytest.mark.parametrize("name", cache.NUMBERS)
def test_a_change_to_an_imported_number_makes_cached_loops_stale(monkeypatch, name):
    before = cache.fingerprint()
    monkeypatch.setitem(cache.NUMBERS, name, 2 * cache.NUMBERS[name])
    assert cache.fingerprint() != before


def test_every_number_that_loops_import_is_known():
    folder = Path(loops.__file__).parents[2]
    modules = [
        import_module(".".join(path.relative_to(folder).with_suffix("").parts)) for path in SOURCES
    ]
    found = {}
    for module in modules:
        for statement in ast.parse(Path(module.__file__).read_text()).body:
            if isinstance(statement, ast.ImportFrom) and not (
                statement.module.startswith("autograd.cpu")
            ):
                for name in (alias.asname or alias.name for alias in statement.names):
                    value = getattr(module, name, None)
                    if isinstance(value, int | float | tuple | np.generic | np.ndarray):
                        found[name] = value
    assert found == cache.NUMBERS


def test_compiled_and_cached_loops_give_the_same_bits(tmp_path):
    # Otherwise a resumed run could differ from one that continued in the process that compiled.
    # These loops contain functions of single numbers and parts of other loops.
    code = """
        import hashlib
        import numpy as np
        from autograd import DropoutStream, Tape, Tensor, ops
        rng = np.random.default_rng(0)
        def draw(*shape):
            return Tensor(rng.standard_normal(shape, dtype=np.float32))
        wanted = [draw(90, 16), draw(90, 16), draw(16), draw(16)]
        with Tape() as tape:
            y = ops.add_dropout_norm(*wanted, site=DropoutStream(1, 2).site(3, 0.3))
        q, kv, slots = draw(3, 2, 16).value, draw(4, 30, 32).value, np.array([[0], [1], [3]])
        lengths = np.full(3, 29)
        attended = ops.cached_attention(q, kv, slots=slots, lengths=lengths, heads=2, d_k=8)
        found = tape.backward(y, draw(90, 16).value, wanted=wanted)
        bits = b"".join(x.tobytes() for x in (y.value, *found, attended))
        print(hashlib.sha256(bits).hexdigest())
        """
    compiled = run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert compiled == run(code, NUMBA_CACHE_DIR=str(tmp_path))
