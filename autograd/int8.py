"""Matrices in 8 bits: W ≈ integers · scales, with a scale for each column.

    matrix = Int8Matrix.of(weight)  # [d_in, d_out]
    ops.linear(x, matrix, bias)

Operations that take a float32 matrix as their weight take such a matrix in its place, if a loss
needs no gradient (ops/large/int8.py). They round x to 8 bits, too, with a scale for each row. The
sums of products are then sums of integers, which are exact: a row of the result depends on that row
of x alone, not on the rows beside it, on threads, or on the processor's instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module

LARGEST = 127  # -128 is not used, so that -x has the same bits as x
LEAST = 2.0**-100  # where all numbers are smaller they are rounded to 0: 127 / them may overflow
PANEL, TERMS = 32, 4  # columns and rows that lie together
_PANELS = 32  # that are rounded at a time
_MOST_TERMS = 2**31 // LARGEST**2  # of a sum that fits into 32 bits


def rounded(x: Array) -> tuple[Array, Array]:
    """Each row of x as integers from -127 to 127, and the scale that they are multiplied by.

    x: [rows, d]. Returns int8 [rows, d] and float32 [rows]. The largest number of a row becomes
    ±127; its error is at most half a scale. The scale of a row that is not finite is NaN, and its
    integers are 0.
    """
    xp = array_module(x)
    top = abs(x).max(axis=1, initial=0)
    is_finite = top < xp.inf
    has_scale = is_finite & (top >= LEAST)
    top = xp.where(has_scale, top, 1).astype(np.float32)
    inverse = xp.where(has_scale, np.float32(LARGEST) / top, 0).astype(np.float32)
    integers = xp.rint(xp.where(is_finite[:, None], x, 0) * inverse[:, None]).astype(np.int8)
    scales = xp.where(has_scale, top * np.float32(1 / LARGEST), 0)
    return integers, xp.where(is_finite, scales, xp.nan).astype(np.float32)


class Int8Matrix:
    """A matrix in 8 bits: [d_in, d_out] with a scale for each column.

    Or `transposed`: [d_out, d_in] with a scale for each row, as of an embedding.

    Attributes:
        packed: [panels, groups, PANEL, TERMS] int8, the integers as loops read them: PANEL columns
            in a panel, TERMS rows in a group, filled up with zeros
        scales: [panels, PANEL] float32, of the columns
        sums: [panels, PANEL] int32, of the integers of each column
        d_in, d_out: the number of rows and of columns
    """

    dtype = np.dtype(np.float32)  # of what it stands for
    ndim = 2
    __array_ufunc__ = None  # only operations compute with it

    def __init__(self, packed: Array, scales: Array, sums: Array, d_in: int, d_out: int) -> None:
        self.packed, self.scales, self.sums = packed, scales, sums
        self.d_in, self.d_out = d_in, d_out
        self.transposed = False

    @classmethod
    def of(cls, weight: Array) -> Int8Matrix:
        """The nearest to a matrix [d_in, d_out].

        Raises ValueError if a number is not finite, or if there are more rows than sums hold.
        """
        xp, (d_in, d_out) = array_module(weight), weight.shape
        if d_in > _MOST_TERMS:
            raise ValueError(f"a matrix in 8 bits has {_MOST_TERMS:,} rows at most, got {d_in:,}")
        panels, groups = -(-d_out // PANEL), -(-d_in // TERMS)
        packed = xp.zeros((panels, groups, PANEL, TERMS), np.int8)
        scales = xp.zeros((panels, PANEL), np.float32)
        for first in range(0, panels, _PANELS):  # so that little memory is needed at a time
            some = slice(first, first + _PANELS)
            columns = weight[:, first * PANEL : (first + _PANELS) * PANEL]
            integers, scale = rounded(columns.T)  # [columns, d_in], [columns]
            if xp.isnan(scale).any():
                raise ValueError("a matrix with numbers that are not finite has no form in 8 bits")
            scales[some].reshape(-1)[: len(scale)] = scale
            filled = xp.zeros((scales[some].size, groups * TERMS), np.int8)
            filled[: len(integers), :d_in] = integers
            packed[some] = filled.reshape(-1, PANEL, groups, TERMS).transpose(0, 2, 1, 3)
        return cls(packed, scales, packed.sum(axis=(1, 3), dtype=np.int32), d_in, d_out)

    @property
    def T(self) -> Int8Matrix:  # noqa: N802, as arrays have it
        """The transposed matrix, of the same memory."""
        turned = Int8Matrix.__new__(Int8Matrix)
        vars(turned).update(vars(self), transposed=not self.transposed)
        return turned

    @property
    def shape(self) -> tuple[int, int]:
        return (self.d_out, self.d_in) if self.transposed else (self.d_in, self.d_out)

    @property
    def size(self) -> int:
        return self.d_in * self.d_out

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """Integers, scales and sums, as loops take them."""
        return self.packed, self.scales, self.sums

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(int(array.nbytes) for array in self.arrays)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def integers(self) -> Array:
        """[d_in, d_out] int8, a copy."""
        groups_last = self.packed.transpose(1, 3, 0, 2)  # [groups, TERMS, panels, PANEL]
        groups, _, panels, _ = groups_last.shape
        return groups_last.reshape(groups * TERMS, panels * PANEL)[: self.d_in, : self.d_out]

    def columns(self, numbers: Array) -> Array:
        """Columns in float32, [len(numbers), d_in]."""
        integers = self.packed[numbers // PANEL, :, numbers % PANEL]  # [n, groups, TERMS]
        scales = self.scales.reshape(-1)[numbers]
        rows = integers.reshape(len(numbers), self.packed.shape[1] * TERMS)[:, : self.d_in]
        return rows * scales[:, None]

    def __getitem__(self, rows: Array) -> Int8Matrix:
        """Some rows of a matrix that has a scale for each, as of an array: a copy; rows: [n]."""
        if not self.transposed:
            raise TypeError("only what has a scale of its own is taken alone: matrix.T[columns]")
        xp, panels = array_module(self.packed), -(-len(rows) // PANEL)
        there = xp.arange(len(rows))
        packed = xp.zeros((panels, *self.packed.shape[1:]), np.int8)
        new, old = (x.view(np.int32)[..., 0] for x in (packed, self.packed))  # TERMS at a time
        new[there // PANEL, :, there % PANEL] = old[rows // PANEL, :, rows % PANEL]
        scales, sums = (xp.zeros((panels, PANEL), x.dtype) for x in (self.scales, self.sums))
        for some, whole in ((scales, self.scales), (sums, self.sums)):
            some.reshape(-1)[: len(rows)] = whole.reshape(-1)[rows]
        return Int8Matrix(packed, scales, sums, self.d_in, len(rows)).T

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "a matrix in 8 bits is not converted to an array implicitly, since it is not what it "
            "was made of: multiply its integers by its scales"
        )
