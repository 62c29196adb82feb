"""Adding arrays of one shape: gradients of one value and, while loops are recorded, two matrices.

NumPy adds with one thread, while the others wait, and what it adds could not be played back.
Otherwise `add` is left to NumPy, which is as fast. recording.py registers the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.checks import shape_of
from autograd.cpu.commands import running_record
from autograd.cpu.loops import blocks, contiguous, exact_loop, rows_of
from autograd.cpu.memory import empty
from autograd.operation import Vjp

MANY = 1 << 14  # numbers of a task, and from which on it pays to share them


@exact_loop
def _add(block, x, y, z):
    """z = x + y, all of one axis. z may be x."""
    for i in rows_of(block, z.size, MANY):
        z[i] = x[i] + y[i]


def add_to(total: np.ndarray, x: np.ndarray) -> None:
    """total += x, with the bits that NumPy gives."""
    if (
        total.size >= MANY
        and total.dtype == x.dtype == np.float32
        and total.shape == x.shape
        and total.flags.carray
        and x.flags.carray
    ):
        flat = total.reshape(-1)
        _add(blocks(flat.size, MANY), flat, x.reshape(-1), flat)
    else:
        total += x


def covers(x: np.ndarray, y: Any) -> bool:
    """Whether loops are recorded, and nothing has to be broadcast or converted."""
    return (
        running_record() is not None
        and x.ndim == 2
        and shape_of(y) == x.shape
        and y.dtype == x.dtype
    )


def fast_add(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Vjp]:
    """x + y, of float32: [rows, columns], with the bits that NumPy gives."""
    z = empty(x.shape, x.dtype)
    flat = contiguous(x).reshape(-1), contiguous(y).reshape(-1), z.reshape(-1)
    _add(blocks(z.size, MANY), *flat)
    return z, lambda dz: (dz, dz.copy())
