"""Adding up the partial sums of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, blocks, device_of
from autograd.cuda.signature import SUMS

_NONE = (0, 0, 0, 0, 0)  # a Sum that is not used


class SumWriter:
    """The writer of a gradient: [n], the sum of parts: [count, n]."""

    def __init__(self, parts: Array) -> None:
        self._parts = parts

    def parts(self) -> Array:
        """What is added up."""
        return self._parts

    def __call__(self, out: Array, add: bool) -> None:
        self.together([(self, out, add)])

    @staticmethod
    def together(writers: Sequence[tuple[SumWriter, Array, bool]]) -> None:
        """Call several writers with their arguments, by as few launches as possible."""
        sums = []
        for writer, out, add in writers:
            if out.dtype == FLOAT32 and out.flags.c_contiguous:
                sums.append((writer.parts(), out, add))
            else:
                total = backend_of(out).empty(out.shape, FLOAT32)
                _add_up([(writer.parts(), total, False)])
                out[...] = out + total if add else total
        for first in range(0, len(sums), SUMS):
            _add_up(sums[first : first + SUMS])


def _add_up(sums: Sequence[tuple[Array, Array, bool]]) -> None:
    """For each (parts, out, add): out = Σ parts, or out + Σ parts.

    parts: [count, n]; out: [n]; both are contiguous and float32.
    """
    fields: list[Any] = []
    for parts, out, add in sums:
        fields += (parts.data.ptr, out.data.ptr, len(parts), out.size, int(add))
    widest = max(out.size for _, out, _ in sums)
    # One constant, so that the kernel is built once, whatever number of sums there is.
    fields += _NONE * (SUMS - len(sums))
    device_of(sums[0][1]).launch(
        *("sums", {"COUNT": SUMS, "REAL_BYTES": 4}, "sum_parts"),
        *((blocks(widest, 32), len(sums)), 512),
        sums=tuple(fields),
    )
