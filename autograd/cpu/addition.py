"""add, of two matrices, while loops are recorded: what NumPy adds could not be played back.

Otherwise NumPy adds, which is as fast. recording.py registers the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.checks import shape_of
from autograd.cpu.commands import running_record
from autograd.cpu.loops import blocks, contiguous, exact_loop, rows_of
from autograd.cpu.memory import empty
from autograd.operation import Vjp


@exact_loop
def _add(block, x, y, z):
    for i in rows_of(block, len(z)):
        for j in range(z.shape[1]):
            z[i, j] = x[i, j] + y[i, j]


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
    _add(blocks(len(z)), contiguous(x), contiguous(y), z)
    return z, lambda dz: (dz, dz.copy())
