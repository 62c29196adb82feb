"""Dropout masks as a function of where they are used, not of the order of calls.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) maps a counter
of four 32-bit words and a key of two to four random words. The key is the seed; the counter is
(row, column // 8, site, step), and the 128 bits of the result are the 16-bit random numbers of 8
neighbouring columns, low halves first. So every backend makes the same masks, a backward pass can
recompute them, and a resumed run has the masks that it would have had without the interruption.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autograd.backend import Array, backend_of

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Four random 32-bit words for each counter.

    counter: four uint64 arrays of 32-bit numbers, whose shapes broadcast. The result has the same
    form.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _WEYL[0]) & _LOW
        k1 = (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


@dataclass(frozen=True)
class DropoutSite:
    """One place where dropout is applied in one step: all that its mask depends on.

    `rate` is the probability of dropping an element, in [0, 1), rounded to a multiple of 1/65536.
    `row` is the number of the first row within the step's whole batch. Both `step` and `row` may be
    arrays without axes, of 32-bit integers on a device: what is replayed there (`Backend.record`)
    reads them each time. Raises ValueError for any other rate, and if step, site or row does not
    fit into 32 bits.
    """

    rate: float
    seed: int
    step: int | Array
    site: int
    row: int | Array = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"a dropout rate must be in [0, 1), got {self.rate}")
        for name in ("seed", "step", "site", "row"):
            given = getattr(self, name)
            if name in ("step", "row") and backend_of(given).xp is not np:
                if given.shape or given.dtype.kind not in "iu" or given.dtype.itemsize != 4:
                    raise TypeError(
                        f"a dropout's {name} on a device must be one 32-bit integer, not an array "
                        f"of {given.dtype} of shape {given.shape}"
                    )
                continue
            number = operator.index(given)  # accepts NumPy's integers
            if name != "seed" and not 0 <= number <= _LOW:
                raise ValueError(f"a dropout's {name} must be 0 to {_LOW:,}, got {number:,}")
            object.__setattr__(self, name, number)

    @property
    def threshold(self) -> int:
        """An element is dropped if its 16-bit random number is below the threshold."""
        return min(round(self.rate * 65536), 65535)

    @property
    def scale(self) -> float:
        """The factor of a kept element, which preserves the expectation."""
        return 65536 / (65536 - self.threshold)

    @property
    def key(self) -> tuple[int, int]:
        return self.seed & _LOW, (self.seed >> 32) & _LOW

    def keep(self, xp: Any, rows: Array, columns: Array) -> Array:
        """The mask at `rows` and `columns`, integer arrays that broadcast: True where kept."""
        rows = (rows.astype(xp.uint64) + _wide(xp, self.row)) & _LOW
        columns = columns.astype(xp.uint64)
        site, step = _wide(xp, self.site), _wide(xp, self.step)
        words = philox((rows, columns >> 3, site, step), self.key)
        number = columns & 7
        word = xp.where(
            number < 4,
            xp.where(number < 2, words[0], words[1]),
            xp.where(number < 6, words[2], words[3]),
        )
        return ((word >> ((number & 1) << 4)) & 0xFFFF) >= self.threshold

    def keep_matrix(self, xp: Any, rows: int, columns: int) -> Array:
        """The mask of a matrix of shape [rows, columns]: True where kept."""
        # One call of Philox serves 8 columns.
        groups = -(-columns // 8)
        counter_rows = (xp.arange(rows, dtype=xp.uint64) + _wide(xp, self.row))[:, None] & _LOW
        counter_columns = xp.arange(groups, dtype=xp.uint64)[None, :]
        site, step = _wide(xp, self.site)[:, None], _wide(xp, self.step)[:, None]
        words = philox((counter_rows, counter_columns, site, step), self.key)
        halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
        numbers = xp.stack(halves, axis=-1).reshape(rows, groups * 8)[:, :columns]
        return numbers >= self.threshold


def _wide(xp: Any, number: int | Array) -> Array:
    """A number or an array without axes, as [1] in uint64."""
    if isinstance(number, int):
        return xp.full((1,), number, xp.uint64)
    return number.astype(xp.uint64).reshape(1)


def is_site(where: str, site: Any) -> None:
    """Raise TypeError unless `site` is a DropoutSite, or None where nothing is dropped."""
    if site is not None and not isinstance(site, DropoutSite):
        what = type(site).__name__
        raise TypeError(f"{where} must be a DropoutSite or None, got {what}")


@dataclass(frozen=True)
class DropoutStream:
    """The dropout of one training step, which gives a model its sites.

    Dropout is applied only where a stream is passed; there is no training mode. `row` is the number
    of this batch's first row within the step's whole batch, over all ranks and micro-batches, so
    that masks do not depend on how a batch is split. As for a DropoutSite, step and row may be
    arrays on a device.
    """

    seed: int
    step: int | Array
    row: int | Array = 0

    def at_row(self, row: int | Array) -> DropoutStream:
        """The same stream for a batch whose first row is `row`."""
        return replace(self, row=row)

    def site(self, site: int, rate: float) -> DropoutSite | None:
        """The site of that number, or None if `rate` is 0."""
        return DropoutSite(rate, self.seed, self.step, site, self.row) if rate != 0 else None
