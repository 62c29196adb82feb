"""Adding one gradient to another, as NumPy does with one thread, by all threads."""

from __future__ import annotations

import numpy as np

from autograd.cpu.loops import blocks, exact_loop, rows_of

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
