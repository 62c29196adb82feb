"""Streams that do no work, but record the order of the work.

They replace `cupy.cuda` in tests of the order of copies and kernels. The stand-in for CUDA under
the real CuPy cannot test it, because there all work is done at once.
"""

from __future__ import annotations

import types
from typing import Any


class Stream:
    """A queue of work. `needs` holds all work that precedes the next."""

    def __init__(self, cuda: Any) -> None:
        self.cuda, self.work, self.needs = cuda, [], set()

    def record(self) -> set[str]:
        return {*self.needs, *self.work}

    def wait_event(self, event: set[str]) -> None:
        self.needs |= event

    def __enter__(self) -> None:
        self.outer, self.cuda.current = self.cuda.current, self

    def __exit__(self, *_: Any) -> None:
        self.cuda.current = self.outer


def cupy_with_streams() -> types.ModuleType:
    """A module `cupy` with streams only; `cuda.current` is the current one."""
    cuda = types.SimpleNamespace(get_current_stream=lambda: cuda.current)
    cuda.Stream = lambda non_blocking: Stream(cuda)
    cuda.current = Stream(cuda)
    cupy = types.ModuleType("cupy")
    cupy.cuda = cuda
    return cupy
