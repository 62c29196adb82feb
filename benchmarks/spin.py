"""Keeps a GPU busy, so that work accumulates in its queue."""

from __future__ import annotations

import numpy as np

from autograd.backend import Backend

_SOURCE = """
extern "C" __global__ void spin(long long cycles) {
    long long begun = clock64();
    while (clock64() - begun < cycles) {}
}
"""


def spin(backend: Backend, cycles: int) -> None:
    """Keep the GPU busy for this many clock cycles; returns immediately."""
    backend.xp.RawKernel(_SOURCE, "spin")((1,), (1,), (np.int64(cycles),))
