"""cached_attention: a group of queries at a time, its keys and values where they lie."""

from __future__ import annotations

import math

import numpy as np

from autograd.cpu.loops import blocks, of_rows, parallel_loop, plain
from autograd.cpu.registers import LANES, load, spread, store, sum_of, zeros
from autograd.cpu.vector import exp, largest
from autograd.ops.cached_attention import cached_attention

_GROUPS = 8  # of a turn: neighbours may share keys, hypotheses of one sentence their past


@parallel_loop
def _attend(turn, q, n, kv, capacity, heads, d_k, d_v, slots, lengths, y):
    """q [groups · n, heads · d_k], kv [slots · capacity, heads · (d_k + d_v)], lengths [groups]."""
    inverse_root = np.float32(1 / math.sqrt(d_k))
    places = np.empty(capacity, np.int64)
    weights = np.empty((heads, capacity), np.float32)
    for group in range(turn * _GROUPS, min((turn + 1) * _GROUPS, len(lengths))):
        m = lengths[group]
        keys = places[:m]  # where they lie: rows of kv
        for t in range(m):
            keys[t] = slots[group, t if slots.shape[1] > 1 else 0] * capacity + t
        for i in range(group * n, (group + 1) * n):
            for t in range(m):
                for head in range(heads):
                    column = head * d_k
                    weights[head, t] = _dot(q, i, kv, keys[t], column, d_k) * inverse_root
            for head in range(heads):
                column = heads * d_k + head * d_v
                _softmax(weights[head, :m])
                _sum(y, i, head * d_v, kv, keys, column, d_v, weights[head])


@of_rows
def _dot(a, i, b, j, column, d):
    """The product of a's row i and b's row j, of d numbers from `column` on."""
    total, whole = zeros(), d // LANES * LANES
    for c in range(column, column + whole, LANES):
        total += load(a, i, c) * load(b, j, c)
    rest = sum_of(total)
    for c in range(column + whole, column + d):
        rest += a[i, c] * b[j, c]
    return rest


@of_rows
def _sum(y, i, y_column, values, places, column, d, weights):
    """d numbers of y's row i: the weighted sum of those of the rows `places` of values."""
    whole = d // LANES * LANES
    for c in range(0, whole, LANES):
        total = zeros()
        for t in range(places.size):
            total += spread(weights[t]) * load(values, places[t], column + c)
        store(y, i, y_column + c, total)
    for c in range(whole, d):
        rest = np.float32(0)
        for t in range(places.size):
            rest += weights[t] * values[places[t], column + c]
        y[i, y_column + c] = rest


@of_rows
def _softmax(row):
    top, total = largest(row), np.float32(0)
    for j in range(row.size):
        row[j] = exp(row[j] - top)
        total += row[j]
    inverse = np.float32(1) / total
    for j in range(row.size):
        row[j] *= inverse


@cached_attention.on("numpy")
def fast_cached_attention(
    q: np.ndarray,
    kv: np.ndarray,
    *,
    heads: int,
    d_k: int,
    slots: np.ndarray,
    length: int,
    key_lengths: np.ndarray | None = None,
) -> np.ndarray:
    groups, n, width = q.shape
    capacity = kv.shape[1]
    d_v = kv.shape[2] // heads - d_k
    slots = plain(np.asarray(slots, np.int64))
    lengths = np.full(groups, length) if key_lengths is None else np.minimum(key_lengths, length)
    if (
        width != heads * d_k
        or kv.shape[2] != heads * (d_k + d_v)
        or length > capacity
        or slots.shape[0] != groups
        or not (slots.shape[1] == 1 or slots.shape[1] >= length)
        or lengths.shape != (groups,)
    ):
        raise ValueError(
            f"q {q.shape}, kv {kv.shape}, slots {slots.shape} and length {length} do not fit"
        )
    if kv.dtype != q.dtype:
        raise TypeError(f"q is {q.dtype} and kv {kv.dtype}")
    if lengths.size and lengths.min() < 1:
        raise ValueError("a group with no key")
    used = slots[:, :length]
    if used.size and not 0 <= used.min() <= used.max() < len(kv):
        raise IndexError(f"a slot outside of the {len(kv)} that there are")
    y = np.empty((groups, n, heads * d_v), q.dtype)
    _attend(
        blocks(groups, _GROUPS),
        plain(q).reshape(groups * n, width),
        n,
        plain(kv).reshape(-1, kv.shape[2]),
        capacity,
        heads,
        d_k,
        d_v,
        slots,
        lengths.astype(np.int64),
        y.reshape(groups * n, heads * d_v),
    )
    return y
