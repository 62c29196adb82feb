"""Compiling and running the loops of this package.

    @parallel_loop
    def halve(block, x):
        for i in rows_of(block, len(x)):
            ...

    halve(blocks(len(x)), x)

A loop is written as the function of one of its tasks, which gets the task's number. Numba compiles
it once for a machine, and the machine code is kept on disk (cache.py). From there it is loaded
without numba, which takes longer to import than a sentence to translate. The threads of
autograd.cpu.pool share the tasks.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import re
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from autograd.cpu import cache, machine_code, pool
from autograd.cpu.chains import Roles, roles_named, with_roles
from autograd.cpu.commands import name_of, running_record
from autograd.cpu.kinds import Kind, in_words, kind_of, known, plain
from autograd.cpu.memory import keep_freed_memory
from autograd.cpu.pieces import Piece

log = logging.getLogger("autograd")

# Sums may be reordered and products fused into them; inf and NaN keep their meaning.
_SETTINGS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

ROWS = 32  # rows of one task: fixed, so that no sum depends on the number of threads

keep_freed_memory()

# Decorators for what loops call: functions of numbers, which are inlined before the loop is
# vectorised, and pieces of loops over rows, which are inlined after they are compiled.
of_numbers = functools.partial(Piece, inline="always", **_SETTINGS)
of_rows = functools.partial(Piece, forceinline=True, **_SETTINGS)
# As NumPy rounds. Without the False, numba takes over what the loop around it is compiled with.
of_exact_rows = functools.partial(Piece, forceinline=True, fastmath=False, error_model="numpy")


def parallel_loop(task: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop with the tasks `task(number, *arguments)`; its first argument is their count.

    The loop releases Python's global lock. Tasks run in any order, and in parallel.
    """
    return _loop(task, of_rows(task))


def row_loop(rows: str, written: str = "") -> Callable[..., Callable[..., None]]:
    """A parallel_loop with the tasks `task(number, size, *arguments)`, of `size` rows each.

    rows: the names of its arrays of which a task reads and writes no rows but its own, [number ·
    size, (number + 1) · size); some may be None. written: of others that it writes to.
    """

    def decorate(task: Callable[..., None]) -> Callable[..., None]:
        return _loop(task, of_rows(task), roles_named(task, rows, written))

    return decorate


def exact_loop(task: Callable[..., None]) -> Callable[..., None]:
    """A `parallel_loop` whose numbers are added and rounded as they are written."""
    return _loop(task, of_exact_rows(task))


def _loop(task: Callable[..., None], body: Any, roles: Roles | None = None) -> Callable[..., None]:

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

    loop.compiled = run  # type: ignore[attr-defined]
    return with_roles(loop, roles)


def out_of_memory(loop: Callable[..., None]) -> MemoryError:
    """The error of a loop that lacked memory."""
    return MemoryError(f"no memory left for {name_of(loop)}")


def contiguous(x: np.ndarray) -> np.ndarray:
    """The array itself if it is C-contiguous, aligned and writeable, else a copy that is.

    Numba would compile a loop again for every other layout.
    """
    return x if x.flags.carray else np.array(x, order="C")


MANY = 64
"""From so many rows on, the row_loops of a step have the same tasks, and may form chains."""


def rows_of_a_task(rows: int, few: int = ROWS) -> int:
    """How many rows a task of a row_loop has: `few`, unless there are MANY rows.

    Then each thread has as many in each of its tasks, 256 at most.
    """
    if rows < MANY:
        return few
    threads = pool.threads()
    tasks = blocks(blocks(rows, 256), threads) * threads
    return blocks(blocks(rows, tasks), 8) * 8  # few tiles of a product that are not full


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


def compiled(function: Callable[..., Any], source: Callable[..., None] | None = None) -> Compiled:
    """A function, compiled when it is first called, without Python's global lock.

    It gets what `kind_of` knows, and returns an integer or None.

    source: the function that the cache on disk is named after, if it is not the function itself.
    """
    return Compiled(function, source or function)


class Compiled:
    """A function whose machine code is read from disk, or compiled, for each kind of arguments."""

    def __init__(self, function: Callable[..., Any], source: Callable[..., None]) -> None:
        functools.update_wrapper(self, source)
        self._function, self._source = function, source
        self._by_kinds: dict[tuple[Kind, ...], Callable[..., Any]] = {}
        self._entries: tuple[Callable[..., Any], ...] = ()  # the same, the newest first

    def __call__(self, *arguments: Any) -> Any:
        for entry in self._entries:
            result = entry(*arguments)
            if result is not NotImplemented:
                return result
        return self._call_another(tuple(map(plain, arguments)))

    def _call_another(self, arguments: tuple[Any, ...]) -> Any:
        """Call with arguments that no entry has taken as they were."""
        kinds = tuple(map(kind_of, arguments))
        with _making:
            if kinds not in self._by_kinds:
                inspect.signature(self._function).bind(*arguments)  # the right number of them
                entry = self._made(kinds)
                self._by_kinds[kinds], self._entries = entry, (entry, *self._entries)
            entry = self._by_kinds[kinds]
        result = entry(*arguments)
        assert result is not NotImplemented
        return result

    def _made(self, kinds: tuple[Kind, ...]) -> Callable[..., Any]:
        """The entry for arguments of these kinds, from disk if it is there."""
        name, origin = name_of(self._source), _origin(self._source)
        about = f"{name}({', '.join(map(in_words, kinds))}) {origin}"
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        file = re.sub(r"[^\w.]", "", f"{name}.{digest}")
        kept = cache.Cache([]) if origin is None else cache.opened()

        def read() -> Callable[..., Any] | None:
            code = kept.read(file, about)
            try:
                return code and machine_code.linked(code, name, known(kinds))
            except machine_code.CannotLinkError as error:
                log.debug("%s is compiled again: %s", name, error)
                return None

        entry = read()
        if entry is None:
            with kept.compiling(file):
                entry = read()  # another process may have compiled it meanwhile
                if entry is None:
                    _announce()
                    compiler = import_module(f"{__package__}.compiling.compiler")
                    code = compiler.machine_code(self._function, _SETTINGS, kinds)
                    kept.write(file, about, code)
                    entry = machine_code.linked(code, name, known(kinds))
        return entry


def _origin(function: Callable[..., None]) -> str | None:
    """What tells functions of one name apart, besides the sources here; None if nothing does."""
    if function.__module__.startswith(f"{__package__}."):
        return ""
    if function.__closure__:
        return None
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # there is no such file
        return None


@functools.cache
def _announce() -> None:
    """Log once that loops are being compiled, which makes the first step slow."""
    log.info("compiling the CPU's fast loops (first run only, about half a minute)")


_making = threading.RLock()


def _forget_the_lock() -> None:
    """In a child process, no other thread has it."""
    global _making
    _making = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_lock)


@compiled
def watch(address):
    """What the threads of the pool run: pool.serve."""
    pool.serve(address)
