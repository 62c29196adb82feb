"""The factors of dropout, row by row, with the same bits as autograd.dropout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autograd.cpu.loops import of_numbers, of_rows
from autograd.dropout import DropoutSite

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


class Mask(NamedTuple):
    """A DropoutSite for compiled loops, in which every number has a fixed type."""

    key0: np.uint64
    key1: np.uint64
    site: np.uint64
    step: np.uint64
    row: np.uint64
    threshold: np.uint16
    scale: np.float32


def mask_of(site: DropoutSite | None) -> Mask | None:
    """The mask of a site, or None without one: loops are then compiled without dropout."""
    if site is None:
        return None
    words = (*site.key, site.site, site.step, site.row)
    return Mask(*map(np.uint64, words), np.uint16(site.threshold), np.float32(site.scale))


@of_numbers
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10: four random 32-bit words for a counter of four words, all uint64."""
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@of_rows
def words_for(columns):
    """Room for the random words of one row: 4 for every 8 columns."""
    return np.empty(4 * ((columns + 7) // 8), np.uint32)


@of_rows
def dropout_factors(factors, words, mask, row, column):
    """Factors of a row from `column`, a multiple of 8, on: 0 where dropped, else the scale."""
    if mask is None:
        return
    if mask.threshold == 0:
        for j in range(factors.size):
            factors[j] = mask.scale
        return
    c0, c1 = (np.uint64(row) + mask.row) & _LOW, np.uint64(column // 8)
    for g in range(words.size // 4):
        w = philox(c0, c1 + np.uint64(g), mask.site, mask.step, mask.key0, mask.key1)
        words[4 * g], words[4 * g + 1], words[4 * g + 2], words[4 * g + 3] = w
    numbers = words.view(np.uint16)  # low halves first: the machine is little-endian
    for j in range(factors.size):
        factors[j] = mask.scale if numbers[j] >= mask.threshold else np.float32(0)
