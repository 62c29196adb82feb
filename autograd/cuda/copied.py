"""Copying arrays to the host while the device goes on: for files that a thread writes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import numpy as np

from autograd.backend import Array


def copied(arrays: Sequence[Array]) -> Callable[[], list[np.ndarray]]:
    """Queue copies of arrays on the current stream; the result waits for them, on any thread.

    The copies are in page-locked memory, which the device writes by itself at the full speed of its
    bus. CuPy keeps that memory for the next copies.
    """
    cupy = importlib.import_module("cupy")
    device = cupy.cuda.Device()
    copies = [importlib.import_module("cupyx").empty_pinned(x.shape, x.dtype) for x in arrays]
    for x, copy in zip(arrays, copies, strict=True):
        x.get(out=copy, blocking=False)
    # Waiting for it leaves the processor to others.
    done = cupy.cuda.Event(block=True, disable_timing=True)
    done.record()

    def arrived() -> list[np.ndarray]:
        with device:  # a new thread has the first device
            done.synchronize()
        return copies

    return arrived
