"""Gradients that a loop writes where they belong, at once or in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.cpu.background import begin
from autograd.cpu.commands import Loop
from autograd.cpu.loops import parallel_loop


class LoopWriter:
    """The writer of what `loop(count, *arguments, add, out)` writes to a float32 array, or adds."""

    def __init__(self, loop: Loop, count: int, *arguments: Any) -> None:
        self._loop, self._count, self._arguments = loop, count, arguments

    def __call__(self, out: np.ndarray, add: bool) -> None:
        if _is_for_loops(out):
            self._write(out, add)
        else:
            written = np.empty(out.shape, np.float32)
            self._write(written, False)
            out[...] = out + written if add else written

    def begin(self, out: np.ndarray, add: bool) -> Callable[[], None] | None:
        """Write in the background. Returns what waits for it; None if this has to be called."""
        if not _is_for_loops(out):
            return None
        return begin(self._loop, self._count, *self._arguments, add, out)

    def _write(self, out: np.ndarray, add: bool) -> None:
        self._loop(self._count, *self._arguments, add, out)


def _is_for_loops(out: np.ndarray) -> bool:
    return out.flags.carray and out.dtype == np.float32


def sum_of_rows(parts: np.ndarray) -> LoopWriter:
    """The writer of the sum over the rows of parts: [parts, columns]."""
    return LoopWriter(_sum_rows, 1, parts)


@parallel_loop
def _sum_rows(task, parts, add, out):
    if not add:
        out[:] = 0
    for i in range(len(parts)):
        for j in range(out.size):
            out[j] += parts[i, j]
