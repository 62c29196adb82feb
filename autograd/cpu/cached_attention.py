"""cached_attention: a group of queries at a time, its keys and values where they lie."""

from __future__ import annotations

import math

import numpy as np

from autograd.cpu.loops import of_rows, parallel_loop, plain
from autograd.cpu.vector import exp, largest
from autograd.ops.cached_attention import cached_attention


@parallel_loop
def _attend(group, q, kv, heads, d_k, d_v, slots, lengths, y):
    """q [groups, n, heads · d_k], kv [slots, capacity, heads · (d_k + d_v)], lengths [groups]."""
    m, per_key = lengths[group], slots.shape[1] > 1
    weights = np.empty(m, np.float32)
    inverse_root = np.float32(1 / math.sqrt(d_k))
    for head in range(heads):
        key_column, value_column = head * d_k, heads * d_k + head * d_v
        for i in range(q.shape[1]):
            query = q[group, i][head * d_k : (head + 1) * d_k]
            out = y[group, i][head * d_v : (head + 1) * d_v]
            for t in range(m):
                place = kv[slots[group, t if per_key else 0], t]
                weights[t] = _dot(query, place[key_column : key_column + d_k]) * inverse_root
            _softmax(weights)
            for j in range(d_v):
                out[j] = 0
            for t in range(m):
                place = kv[slots[group, t if per_key else 0], t]
                _add_scaled(out, place[value_column : value_column + d_v], weights[t])


@of_rows
def _dot(a, b):
    total = np.float32(0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@of_rows
def _add_scaled(out, row, factor):
    for j in range(out.size):
        out[j] += row[j] * factor


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
    d_v = kv.shape[2] // heads - d_k
    slots = plain(np.asarray(slots, np.int64))
    lengths = np.full(groups, length) if key_lengths is None else np.minimum(key_lengths, length)
    if (
        width != heads * d_k
        or kv.shape[2] != heads * (d_k + d_v)
        or not length <= kv.shape[1]
        or slots.shape[0] != groups
        or not (slots.shape[1] == 1 or slots.shape[1] >= length)
        or lengths.shape != (groups,)
        or (slots.size and not 0 <= slots[:, :length].min() <= slots[:, :length].max() < len(kv))
    ):
        raise ValueError(
            f"q {q.shape}, kv {kv.shape}, slots {slots.shape} and length {length} do not fit"
        )
    y = np.empty((groups, n, heads * d_v), q.dtype)
    _attend(groups, plain(q), plain(kv), heads, d_k, d_v, slots, lengths.astype(np.int64), y)
    return y
