"""projected_cross_entropy: the logits become their own gradient in the forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from autograd.cpu.loops import of_rows, parallel_loop, plain
from autograd.cpu.vector import exp, largest
from autograd.op import Vjp
from autograd.ops.cross_entropy import projected_cross_entropy, smoothed_target
from autograd.tape import running_tape

_ROWS = 4  # a row is long enough to share them out finely
UNRECORDED = 512  # rows of logits at a time where no gradient will be asked for


@parallel_loop
def _losses(logits, targets, a, b, with_gradient, losses):
    """Each row's smoothed loss and negative log-likelihood; the logits become p - q.

    logits [tokens, vocabulary], targets [tokens], losses [tokens, 2]; q is b, and a + b on the
    target. Without gradient the logits stay.
    """
    for block in prange((len(logits) + _ROWS - 1) // _ROWS):
        for i in range(block * _ROWS, min((block + 1) * _ROWS, len(logits))):
            _row_losses(logits[i], targets[i], a, b, with_gradient, losses[i])


@of_rows
def _row_losses(row, target, a, b, with_gradient, losses):
    top = largest(row)
    shifted = row[target] - top
    total, level = np.float32(0), np.float32(0)  # Σ exp(l - top), Σ (l - top)
    if with_gradient:
        for j in range(row.size):
            level += row[j] - top
            row[j] = exp(row[j] - top)
            total += row[j]
        inverse = np.float32(1) / total
        for j in range(row.size):
            row[j] = row[j] * inverse - b
        row[target] -= a
    else:
        for j in range(row.size):
            level += row[j] - top
            total += exp(row[j] - top)
    log_total = np.log(total)
    losses[0] = log_total - a * shifted - b * level
    losses[1] = log_total - shifted


@projected_cross_entropy.on("numpy")
def fast_projected_cross_entropy(
    x: np.ndarray,
    weight: np.ndarray,
    *,
    targets: np.ndarray,
    smoothing: float = 0.0,
    spread: str = "vocabulary",
) -> tuple[tuple[Any, Any], Vjp]:
    if x.ndim != 2 or np.shape(targets) != x.shape[:1]:
        raise ValueError(f"targets of shape {np.shape(targets)} for x of shape {x.shape}")
    a, b = map(np.float32, smoothed_target(smoothing, len(weight), spread))
    targets = plain(np.asarray(targets, np.int64))
    if targets.size and not 0 <= targets.min() <= targets.max() < len(weight):
        raise IndexError(f"a target outside of the vocabulary of {len(weight)}")
    losses = np.empty((len(x), 2), x.dtype)
    recorded = running_tape() is not None
    at_once = len(x) if recorded else min(len(x), UNRECORDED)
    logits = np.empty((at_once, len(weight)), x.dtype)
    for start in range(0, len(x), max(at_once, 1)):
        rows = slice(start, start + at_once)
        part = logits[: len(x[rows])]
        np.matmul(x[rows], weight.T, out=part)
        _losses(part, targets[rows], a, b, recorded, losses[rows])
    if not recorded:
        del logits

    def vjp(gradients: tuple[Any, Any]) -> tuple[np.ndarray, Any]:
        if not recorded:
            raise RuntimeError("no tape was running: the gradient of the logits was not kept")
        dloss, dnll = map(np.float32, gradients)
        dlogits = logits
        if dnll:
            # (p - q) dloss + (p - [target]) dnll, of which p - q is there
            dlogits *= dloss + dnll
            dlogits += dnll * b
            dlogits[np.arange(len(targets)), targets] += dnll * (a - 1)
            dloss = np.float32(1)
        dx = dlogits @ weight
        dx *= dloss

        def dweight(out: np.ndarray, add: bool) -> None:
            if add:
                out += dlogits.T @ (x * dloss)
            else:
                np.matmul(dlogits.T, x * dloss, out=out)

        return dx, dweight

    loss, nll = losses.sum(axis=0, dtype=np.float64).astype(x.dtype)
    return (loss, nll), vjp
