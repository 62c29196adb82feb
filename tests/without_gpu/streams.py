"""Streams that do no work, but know the order of what they were asked for.

They stand in for `cupy.cuda` where the order of copies and kernels is tested, which the stand-in
for CUDA under the real CuPy does not keep: there everything is done when it is asked for.
"""

from __future__ import annotations

import types
from typing import Any


class Stream:
    """A queue of work. `needs` holds all work that is done before what is asked for next."""

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
    """A module `cupy` that has streams and nothing else; `cuda.current` is the current one."""
    cuda = types.SimpleNamespace(get_current_stream=lambda: cuda.current)
    cuda.Stream = lambda non_blocking: Stream(cuda)
    cuda.current = Stream(cuda)
    cupy = types.ModuleType("cupy")
    cupy.cuda = cuda
    return cupy
