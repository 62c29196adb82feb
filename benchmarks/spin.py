"""Keeping a GPU busy, so that what it is asked for meanwhile waits in its queue."""

from __future__ import annotations

import numpy as np

from autograd.backend import Backend

_SOURCE = """
extern "C" __global__ void spin(long long cycles) {
    long long begun = clock64();
    while (clock64() - begun < cycles) {}
}
"""


def spin(owner: Backend, cycles: int) -> None:
    """Let the GPU do nothing else for so many cycles of its clock; returns at once."""
    owner.xp.RawKernel(_SOURCE, "spin")((1,), (1,), (np.int64(cycles),))
