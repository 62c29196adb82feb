"""projected_cross_entropy: logits, softmax and gradients, a panel of the vocabulary at a time.

The logits are the largest array of a step. Each panel is exponentiated as soon as its product is
done, and turned into its gradient right before the product that needs it, so that it is written to
memory once and read once. The exponentials of a panel are relative to the row's largest logit *in
the panel*; the factor to the largest of the whole row is applied when the gradient is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.lanes import largest_of_lanes
from autograd.cpu.loops import block_of, blocks, contiguous, of_rows, parallel_loop
from autograd.cpu.memory import aligned
from autograd.cpu.microkernel import HEIGHT, WIDTH
from autograd.cpu.packed_rows import packed_rows
from autograd.cpu.products import (
    NOTHING,
    multiply,
    new_workspace,
    tile_of,
    tiles,
    weight_gradient,
)
from autograd.cpu.registers import (
    LANES,
    address,
    broadcast,
    exp_of,
    fetch,
    largest_of,
    load,
    store,
    stream,
    sum_of,
    zeros,
)
from autograd.cpu.vector import exp, largest
from autograd.operation import Vjp
from autograd.ops.large.cross_entropy import projected_cross_entropy, smoothed_target
from autograd.tape import running_tape

ROWS = 256  # most tokens of a tile
PANEL = 1024  # tokens of the vocabulary in a panel: a cache holds the logits of a tile for it

_AHEAD = 2  # rows to prefetch ahead

_ZERO = np.float32(0)


@parallel_loop
def _forward(tile, tiles, x, weight, packed, targets, a, b, kept, e, tops, totals, losses):
    """Each row's smoothed loss and negative log-likelihood and, if `kept`, its exponentials.

    x: [tokens, d]; weight: [vocabulary, d]; packed: its `packed_rows`; targets: [tokens]. q is a +
    b for the target, and b for every other token; a target below 0 is none. Results: e: [tokens,
    vocabulary] = exp(logit - the panel's top); tops: [tokens, 1 + panels] = the largest logit of
    the row, and of each panel; totals: [tokens] = Σ exp(logit - the row's top); losses: [tokens,
    2].
    """
    vocabulary, d = weight.shape
    start, end = tile_of(tile, tiles, len(x), HEIGHT)
    rows, panels, workspace = end - start, tops.shape[1] - 1, new_workspace(0)
    # Of one panel. Rows a power of two apart would share too few places in the cache.
    logits = np.empty((rows, PANEL + LANES), np.float32)
    sums = np.empty((rows, panels), np.float32)  # Σ exp(logit - the panel's top)
    shifted_sums = np.empty((rows, panels), np.float32)  # Σ (logit - the panel's top)
    at_target = np.empty(rows, np.float32)
    for p in range(panels):
        left, right = block_of(p, vocabulary, PANEL)
        out, panel = (logits, 0, 0, rows, right - left), (packed, left // WIDTH * d, 0, False)
        multiply(out, (x, start, 0, False), panel, d, None, NOTHING, False, workspace)
        for i in range(rows):
            target = targets[start + i]
            if left <= target < right:
                at_target[i] = logits[i, target - left]
            found = _exponentials(logits, i, right - left, kept, e, start + i, left)
            tops[start + i, 1 + p], sums[i, p], shifted_sums[i, p] = found
    for i in range(rows):
        top = largest(tops[start + i][1:])
        total, shifted_sum = _ZERO, _ZERO
        for p in range(panels):
            left, right = block_of(p, vocabulary, PANEL)
            lower = tops[start + i, 1 + p] - top
            total += sums[i, p] * np.exp(lower)
            shifted_sum += shifted_sums[i, p] + np.float32(right - left) * lower
        tops[start + i, 0], totals[start + i] = top, total
        if targets[start + i] < 0:
            losses[start + i] = _ZERO
            continue
        log_sum_exp, shifted = np.log(total), at_target[i] - top
        losses[start + i, 0] = log_sum_exp - a * shifted - b * shifted_sum
        losses[start + i, 1] = log_sum_exp - shifted


@of_rows
def _exponentials(logits, i, width, kept, e, row, column):
    """The top of the first `width` logits of row i, Σ exp(logit - top), and Σ (logit - top).

    If `kept`, the exponentials are written to e at [row, column], past the caches.
    """
    whole, top = width // LANES * LANES, np.float32(-np.inf)
    if whole:
        top = largest_of(largest_of_lanes(logits, i, whole))
    for j in range(whole, width):
        top = max(top, logits[i, j])
    shift, totals, below = broadcast(top), zeros(), zeros()
    for j in range(0, whole, LANES):
        shifted = load(logits, i, j) - shift
        part = exp_of(shifted)
        if kept:
            stream(e, row, column + j, part)
        totals += part
        below += shifted
    total, shifted_sum = sum_of(totals), sum_of(below)
    for j in range(whole, width):
        shifted = logits[i, j] - top
        part = exp(shifted)
        if kept:
            e[row, column + j] = part
        total += part
        shifted_sum += shifted
    return top, total, shifted_sum


@parallel_loop
def _backward(tile, tiles, e, tops, totals, targets, weight, scale, shift, at_target, dx):
    """Turn e into the gradient of the logits: p · scale - shift, less `at_target` at the target.

    dx: [tokens, d] receives the gradient of x.
    """
    vocabulary, d = weight.shape
    start, end = tile_of(tile, tiles, len(e), HEIGHT)
    out, workspace = (dx, start, 0, end - start, d), new_workspace(0)
    for p in range(tops.shape[1] - 1):
        left, right = block_of(p, vocabulary, PANEL)
        for i in range(start, end):
            row, target = e[i][left:right], targets[i]
            factor = np.exp(tops[i, 1 + p] - tops[i, 0]) / totals[i] * scale
            less = shift
            if target < 0:  # none
                factor, less = _ZERO, _ZERO
            whole, below = row.size // LANES * LANES, min(i + _AHEAD, end - 1)
            factors, shifts = broadcast(factor), broadcast(less)
            for j in range(left, left + whole, LANES):
                fetch(address(e, below, j))
                store(e, i, j, load(e, i, j) * factors - shifts)
            for j in range(whole, row.size):
                row[j] = row[j] * factor - less
            if left <= target < right:
                row[target - left] -= at_target
        gradients, panel = (e, start, left, False), (weight, left, 0, False)
        multiply(out, gradients, panel, right - left, None, NOTHING, p > 0, workspace)


def _covers(x: np.ndarray, weight: np.ndarray, **_: Any) -> bool:
    return x.dtype == weight.dtype


@projected_cross_entropy.on("numpy", covers=_covers)
def fast_projected_cross_entropy(
    x: np.ndarray,
    weight: np.ndarray,
    *,
    targets: np.ndarray,
    smoothing: float = 0.0,
    smoothing_over: str = "vocabulary",
) -> tuple[tuple[Any, Any], Vjp]:
    targets = contiguous(np.asarray(targets, np.int64))
    a, b = map(np.float32, smoothed_target(smoothing, len(weight), smoothing_over))
    x, weight = contiguous(x), contiguous(weight)
    recorded = running_tape() is not None
    # Rows are aligned to cache lines, for non-temporal stores.
    e = aligned(len(x) if recorded else 0, blocks(len(weight), LANES) * LANES)
    tops = np.empty((len(x), 1 + blocks(len(weight), PANEL)), x.dtype)
    totals, losses = np.empty(len(x), x.dtype), np.empty((len(x), 2), x.dtype)
    count = tiles(len(x), HEIGHT, ROWS)
    results = recorded, e, tops, totals, losses
    _forward(count, count, x, weight, packed_rows(weight), targets, a, b, *results)

    def vjp(dloss: Any) -> tuple[np.ndarray, Any]:
        if not recorded:
            raise RuntimeError("no tape was running: the gradient of the logits was not kept")
        scale, dx = np.float32(dloss), aligned(*x.shape)
        rows = e, tops, totals, targets
        _backward(count, count, *rows, weight, scale, b * scale, a * scale, dx)
        return dx, weight_gradient(e, x)

    loss, nll = losses.sum(axis=0, dtype=np.float64).astype(x.dtype)
    return (loss, nll), vjp
