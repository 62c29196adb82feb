"""The product of matrices, or of stacks of matrices."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.operation import Vjp, op


@op
def matmul(x: Array, y: Array) -> tuple[Array, Vjp]:
    """x @ y by NumPy's rules: [..., m, k] @ [..., k, n] is [..., m, n].

    Stacks broadcast. A vector is a row on the left, and a column on the right.
    """
    xp = array_module(x)

    def vjp(dz: Array) -> tuple[Array, Array]:
        # Treat a vector as a matrix of one row (left) or one column (right).
        row = x[None, :] if x.ndim == 1 else x
        column = y[:, None] if y.ndim == 1 else y
        if y.ndim == 1:
            dz = dz[..., None]
        if x.ndim == 1:
            dz = dz[..., None, :]
        dx = xp.matmul(dz, xp.swapaxes(column, -1, -2))
        dy = xp.matmul(xp.swapaxes(row, -1, -2), dz)
        return (
            dx[..., 0, :] if x.ndim == 1 else dx,
            dy[..., 0] if y.ndim == 1 else dy,
        )

    return xp.matmul(x, y), vjp
