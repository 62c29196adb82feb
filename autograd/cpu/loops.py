"""Compiling and running the loops of this package.

    @parallel_loop
    def halve(block, x):
        for i in rows_of(block, len(x)):
            ...

    halve(blocks(len(x)), x)

A loop is written as the function of one of its tasks, which gets the task's number. Numba compiles
it once for a machine and caches the result on disk. The threads of autograd.cpu.pool share the
tasks.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import event
from numba.core.caching import FunctionCache

from autograd.cpu import pool
from autograd.cpu.commands import name_of, running_record
from autograd.cpu.memory import keep_freed_memory
from autograd.int8 import LARGEST, LEAST, PANEL, TERMS
from autograd.lock import locked
from autograd.ops.large.norm import EPSILON
from autograd.ops.large.packed_attention import EVERYWHERE, HEAD_COLUMNS

log = logging.getLogger("autograd")

# Sums may be reordered and products fused into them; inf and NaN keep their meaning.
_SETTINGS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

ROWS = 32  # rows of one task: fixed, so that no sum depends on the number of threads

keep_freed_memory()

# Decorators for what loops call: functions of numbers, which are inlined before the loop is
# vectorised, and pieces of loops over rows. Those must be inlined. A separate function would be
# compiled by itself and again inside each loop, and which version a process ran, and so the last
# bits of its results, would depend on whether it compiled the loop or read it from disk.
of_numbers = numba.njit(inline="always", **_SETTINGS)
of_rows = numba.njit(forceinline=True, **_SETTINGS)
of_exact_rows = numba.njit(forceinline=True, error_model="numpy")  # rounds as NumPy does


def parallel_loop(task: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop with the tasks `task(number, *arguments)`; its first argument is their count.

    The loop releases Python's global lock. Tasks run in any order, and in parallel.
    """
    return _loop(task, of_rows(task))


def exact_loop(task: Callable[..., None]) -> Callable[..., None]:
    """A `parallel_loop` whose numbers are added and rounded as they are written."""
    return _loop(task, of_exact_rows(task))


def _loop(task: Callable[..., None], body: Any) -> Callable[..., None]:

    def all_tasks(pool_address, record, count, *arguments):
        return pool.run_tasks(pool_address, record, count, body, arguments)

    run = compiled(all_tasks, task)

    @functools.wraps(task)
    def loop(count: int, *arguments: Any) -> None:
        address = pool.address(watch) if count > 1 else 0
        record = running_record()
        if record is None:
            failed = run(address, 0, count, *arguments)
        else:
            with record.command(loop, count, arguments) as place:
                failed = run(address, place, count, *arguments)
        if failed:
            raise out_of_memory(loop)

    return loop


def out_of_memory(loop: Callable[..., None]) -> MemoryError:
    """The error of a loop that lacked memory."""
    return MemoryError(f"no memory left for {name_of(loop)}")


def contiguous(x: np.ndarray) -> np.ndarray:
    """The array itself if it is C-contiguous, aligned and writeable, else a copy that is.

    Numba would compile a loop again for every other layout.
    """
    return x if x.flags.carray else np.array(x, order="C")


def blocks(rows: int, size: int = ROWS) -> int:
    """The number of blocks of `size` rows; the last may be shorter."""
    return -(-rows // size)


@of_rows
def block_of(block, rows, size):
    """The first row of a block of `size` rows, and the row after its last, of `rows` in all."""
    return block * size, min((block + 1) * size, rows)


@of_rows
def rows_of(block, rows, size=ROWS):
    """The rows of a block of `size` rows, of `rows` in all."""
    return range(block * size, min((block + 1) * size, rows))


def compiled(function: Callable[..., Any], source: Callable[..., None] | None = None) -> Any:
    """A function, compiled when it is first called, without Python's global lock.

    source: the function that the cache on disk is named after, if it is not the function itself.
    """
    source = source or function
    made = numba.njit(nogil=True, **_SETTINGS)(function)
    try:
        made._cache = _Cache(source)
    except RuntimeError:  # numba finds no folder to write to: compile in every process
        log.debug("the compiled %s cannot be cached", source.__qualname__)
    else:
        path = Path(made._cache.cache_path, f"{source.__module__}.{source.__qualname__}.lock")
        made.compile = functools.partial(_compile_once, made.compile, path)
    return made


def _compile_once(compile: Callable[[Any], Any], path: Path, signature: Any) -> Any:
    """Compile a loop. If another process is doing so, wait and read its result."""
    with locked(path):
        return compile(signature)


# Constants from elsewhere in autograd that are compiled into loops.
_NUMBERS = {
    "EVERYWHERE": EVERYWHERE,
    "HEAD_COLUMNS": HEAD_COLUMNS,
    "EPSILON": EPSILON,
    "int8": (LARGEST, LEAST, PANEL, TERMS),
}


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    parts = [source.read_bytes() for source in sources] + [repr(_NUMBERS).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class _Cache(FunctionCache):
    """Compiled loops on disk, keyed by all source files of this package.

    Numba checks only the file of the loop, but functions of other files are inlined in it.
    """

    _sources = _fingerprint()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._sources)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # such as a full disk: the compiled loop can be used anyway
            log.debug("cannot cache a compiled loop: %s", error)


class _Announcer(event.Listener):
    """Logs once that loops are being compiled, which makes the first step slow."""

    announced = False

    def on_start(self, event: event.Event) -> None:
        if not self.announced and event.data["dispatcher"].py_func.__module__.startswith(
            __package__
        ):
            type(self).announced = True
            log.info("compiling the CPU's fast loops (first run only, about half a minute)")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())


@compiled
def watch(address):
    """What the threads of the pool run: pool.serve."""
    pool.serve(address)
