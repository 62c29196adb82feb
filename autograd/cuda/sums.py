"""Sums of what blocks have added up by themselves."""

from __future__ import annotations

import numpy as np

from autograd.backend import Array
from autograd.cuda.device import blocks, device_of


def sum_parts(parts: Array, out: Array, add: bool = False) -> None:
    """out = the sum over the parts, or out + that. parts [count, ...], out [...], float32."""
    count, columns = len(parts), out.size
    arguments = [parts, np.uint32(count), np.uint32(columns), np.int32(add), out]
    grid = (blocks(columns, 32),)
    device_of(parts).launch("sums", {"REAL_BYTES": 4}, "sum_parts", grid, 512, arguments)
