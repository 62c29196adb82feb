"""How the loops of this folder are compiled and run.

    @parallel_loop
    def halve(block, x):
        for i in rows_of(block, len(x)):
            ...

    halve(blocks(len(x)), x)

A loop is written as one of its turns, a function of the turn's number. Numba compiles it once for a
machine and keeps the result on disk; the threads of autograd.cpu.pool share the turns.
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
from autograd.cpu.memory import keep_freed_memory
from autograd.lock import locked
from autograd.ops.large.norm import EPSILON
from autograd.ops.large.packed_attention import HEAD_COLUMNS

log = logging.getLogger("autograd")

# Sums may be reordered and products fused into them; inf and NaN keep their meaning.
_SETTINGS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

ROWS = 32  # rows of one turn: fixed, so that no sum depends on the number of threads

keep_freed_memory()

# What loops call: functions of numbers, which become part of a loop before it is turned into
# vector instructions, and pieces of loops over rows. These are inlined by force: a function of its
# own would be compiled once by itself and once inside each loop, and which of these a process ran
# would depend on whether it compiled the loop or read it from the disk, and so would the last bits.
of_numbers = numba.njit(inline="always", **_SETTINGS)
of_rows = numba.njit(forceinline=True, **_SETTINGS)


def parallel_loop(turn: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop of which `turn(number, *arguments)` is a turn; call it with their count first.

    The loop runs without Python's global lock. Turns may run in any order and side by side.
    """
    body = of_rows(turn)

    def all_turns(pool_address, count, *arguments):
        return pool.run_tasks(pool_address, count, body, arguments)

    compiled = _compiled(all_turns, turn)

    @functools.wraps(turn)
    def loop(count: int, *arguments: Any) -> None:
        if compiled(pool.address(_watch) if count > 1 else 0, count, *arguments):
            raise MemoryError(f"no memory left for {turn.__module__}.{turn.__name__}")

    return loop


def contiguous(x: np.ndarray) -> np.ndarray:
    """The array itself if it is C-contiguous, aligned and writeable, else a copy that is.

    Numba would compile a loop again for every other layout.
    """
    return x if x.flags.carray else np.array(x, order="C")


def blocks(rows: int, size: int = ROWS) -> int:
    """The number of blocks of `size` rows, the last of which may be short."""
    return -(-rows // size)


@of_rows
def block_of(block, rows, size):
    """Where a block of `size` of so many rows begins and ends."""
    return block * size, min((block + 1) * size, rows)


@of_rows
def rows_of(block, rows, size=ROWS):
    """The rows of a block of `size`, of so many rows in all."""
    return range(block * size, min((block + 1) * size, rows))


def _compiled(function: Callable[..., None], source: Callable[..., None]) -> Any:
    compiled = numba.njit(nogil=True, **_SETTINGS)(function)
    try:
        compiled._cache = _Cache(source)
    except RuntimeError:  # numba finds no place to write to: compile in every process
        log.debug("no place to keep the compiled %s", source.__qualname__)
    else:
        path = Path(compiled._cache.cache_path, f"{source.__module__}.{source.__qualname__}.lock")
        compiled.compile = functools.partial(_compile_once, compiled.compile, path)
    return compiled


def _compile_once(compile: Callable[[Any], Any], path: Path, signature: Any) -> Any:
    """Compile a loop; if another process is about to, wait, and read what it has kept."""
    with locked(path):
        return compile(signature)


# Numbers that modules of this folder have from elsewhere in autograd: loops have them in them.
_NUMBERS = {"HEAD_COLUMNS": HEAD_COLUMNS, "EPSILON": EPSILON}


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    parts = [source.read_bytes() for source in sources] + [repr(_NUMBERS).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class _Cache(FunctionCache):
    """Compiled loops on disk, known by all that may be in them.

    Numba looks at the file of the loop alone; but a loop has other files' functions inlined.
    """

    _sources = _fingerprint()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._sources)

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


def _serve(address):
    pool.serve(address)


_watch = _compiled(_serve, _serve)
