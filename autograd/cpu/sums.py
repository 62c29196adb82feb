"""Sums over rows, and of gradients: what NumPy would do with one thread, between two loops."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import blocks, exact_loop, parallel_loop, rows_of


class RowSum:
    """The writer of the sum of the rows of some parts: [parts, columns]."""

    def __init__(self, parts: np.ndarray) -> None:
        self._parts = parts

    def __call__(self, out: np.ndarray, add: bool) -> None:
        if out.flags.carray and out.dtype == np.float32:
            _sum_rows(1, self._parts, add, out)
        else:
            total = self._parts.sum(axis=0)
            out[...] = out + total if add else total


@parallel_loop
def _sum_rows(task, parts, add, out):
    if not add:
        out[:] = 0
    for i in range(len(parts)):
        for j in range(out.size):
            out[j] += parts[i, j]


_MANY = 1 << 14  # numbers from which on it pays to share them


def add_to(total: np.ndarray, x: np.ndarray) -> None:
    """total += x, with the bits that NumPy gives."""
    if (
        total.size >= _MANY
        and total.dtype == x.dtype == np.float32
        and total.shape == x.shape
        and total.flags.carray
        and x.flags.carray
    ):
        _add(blocks(total.size, _MANY), total.reshape(-1), x.reshape(-1))
    else:
        total += x


@exact_loop
def _add(block, total, x):
    for i in rows_of(block, total.size, _MANY):
        total[i] += x[i]
