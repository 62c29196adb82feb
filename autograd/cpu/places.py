"""Where an array lies in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Of an array that lies there as a whole, as loops get them."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, x: np.ndarray) -> Place:
        return cls(x.ctypes.data, x.shape, x.strides, x.dtype.str)
