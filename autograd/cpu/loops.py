"""How the loops of this folder are compiled and run.

A loop is a Python function whose outermost `for` is a `prange`. Numba compiles it once for a
machine and keeps the result on disk. Threads come from numba's own "workqueue" layer, whose workers
sleep between loops: a second pool that spins, beside OpenBLAS's, would take the cores from it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import event
from numba.core.caching import FunctionCache

from autograd.cpu.memory import keep_freed_memory

log = logging.getLogger("autograd")

# Sums may be reordered and products fused into them; inf and NaN keep their meaning.
_SETTINGS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

ROWS = 32  # rows that one thread takes at a time: fixed, so that no sum depends on their number
SERIAL = 1 << 15  # a loop over fewer numbers than this is over before a second thread is awake

numba.config.THREADING_LAYER = "workqueue"
keep_freed_memory()

# Numba's workqueue ends the process when two Python threads enter it at once. A child process must
# not inherit the lock in the hands of a thread that it has not got.
_one_at_a_time = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )

# What loops call: functions of numbers, which become part of a loop before it is turned into
# vector instructions, and pieces of loops over rows. These are inlined by force: a function of its
# own would be compiled once by itself and once inside each loop, and which of these a process ran
# would depend on whether it compiled the loop or read it from the disk, and so would the last bits.
of_numbers = numba.njit(inline="always", **_SETTINGS)
of_rows = numba.njit(forceinline=True, **_SETTINGS)


def parallel_loop(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop; its first argument is the largest array that it goes over.

    The loop runs without Python's global lock, one loop at a time in the whole process.
    """
    parallel, serial = _compiled(loop, parallel=True), _compiled(loop, parallel=False)

    @functools.wraps(loop)
    def run(largest: Any, *others: Any) -> None:
        if largest.size < SERIAL:
            serial(largest, *others)
        else:
            with _one_at_a_time:
                parallel(largest, *others)

    return run


def plain(x: np.ndarray) -> np.ndarray:
    """An array as loops take it: each other layout would be compiled anew. A copy if need be."""
    return x if x.flags.carray else np.array(x, order="C")


@of_rows
def blocks(rows):
    """The number of blocks of ROWS rows, the last of which may be short."""
    return (rows + ROWS - 1) // ROWS


def _compiled(loop: Callable[..., None], parallel: bool) -> Any:
    compiled = numba.njit(nogil=True, parallel=parallel, **_SETTINGS)(loop)
    try:
        compiled._cache = _Cache(loop, parallel)
    except RuntimeError:  # numba finds no place to write to: compile in every process
        log.debug("no place to keep the compiled %s", loop.__qualname__)
    return compiled


def _fingerprint() -> str:
    # Of all of autograd, for loops have numbers of its other parts in them too.
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


class _Cache(FunctionCache):
    """Compiled loops on disk, known by the sources of the whole package.

    Numba looks at the file of the loop alone; but a loop has other files' functions inlined.
    """

    _sources = _fingerprint()

    def __init__(self, loop: Callable[..., None], parallel: bool) -> None:
        super().__init__(loop)
        self._parallel = parallel

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._parallel, self._sources)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # a full disk, say: the loop is compiled, and that is enough
            log.debug("cannot keep a compiled loop: %s", error)


class _Announcer(event.Listener):
    """Says once that loops are being compiled, for the first step then takes its time."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said and event.data["dispatcher"].py_func.__module__.startswith(__package__):
            type(self).said = True
            log.info("compiling the CPU's fast loops (first run only, about half a minute)")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
