"""cached_attention: one group of queries at a time, with keys and values read in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autograd.cpu.loops import blocks, contiguous, of_rows, parallel_loop, rows_of
from autograd.cpu.registers import (
    LANES,
    broadcast,
    load,
    load_some,
    store,
    store_some,
    sum_of,
    zeros,
)
from autograd.cpu.scores import four_dots, shift
from autograd.cpu.vector import exp
from autograd.ops.large.cache import append_to_cache, cached_attention

_GROUPS = 8  # groups of a task: hypotheses of one sentence share keys in the cache


@parallel_loop
def _attend(task, q, n, kv, capacity, heads, d_k, d_v, slots, lengths, y):
    """q: [groups · n, heads · d_k or more]; kv: [slots · capacity, heads · (d_k + d_v)]."""
    inverse_root = np.float32(1 / math.sqrt(d_k))
    rows = np.empty(capacity + 3, np.int64)
    scores = np.empty((1, heads * (capacity + LANES)), np.float32)
    for group in range(task * _GROUPS, min((task + 1) * _GROUPS, len(lengths))):
        length = lengths[group]
        m = min(length, capacity)
        if not m:
            y[group * n : (group + 1) * n] = 0
            continue
        # The rows of kv that hold the group's keys. The last is repeated three times, since keys
        # are taken four at a time. Each head's scores are padded to whole vectors.
        begin = (length - 1) // capacity * capacity  # the token in the first place
        for t in range(m + 3):
            place = min(t, m - 1)
            token = begin + place if begin + place < length else begin + place - capacity
            slot = slots[group, token if slots.shape[1] > 1 else 0]
            rows[t] = slot * capacity + place
        wide = (m + LANES - 1) // LANES * LANES
        for i in range(group * n, (group + 1) * n):
            for t in range(0, m, 4):
                keys = (rows[t], rows[t + 1], rows[t + 2], rows[t + 3])
                for head in range(heads):
                    column = head * d_k
                    four_dots(scores, 0, head * wide + t, q, i, column, kv, keys, column, d_k)
            for head in range(heads):
                shift(scores, 0, head * wide, m, wide, inverse_root)
            weights = scores[0, : heads * wide]
            for j in range(weights.size):
                weights[j] = exp(weights[j])
            for head in range(heads):
                column = heads * d_k + head * d_v
                _sum(y, i, head * d_v, kv, rows[:m], column, d_v, scores, head * wide)


@of_rows
def _sum(y, i, y_column, kv, keys, column, d, weights, start):
    """d numbers of row i of y: the weighted mean of kv's rows `keys`, from `column` on."""
    total = zeros()
    for t in range(0, keys.size, LANES):
        total += load(weights, 0, start + t)
    inverse = np.float32(1) / sum_of(total)
    whole = d // LANES * LANES
    for c in range(0, whole, LANES):
        mean = zeros()
        for t in range(keys.size):
            mean += broadcast(weights[0, start + t]) * load(kv, keys[t], column + c)
        store(y, i, y_column + c, mean * broadcast(inverse))
    if whole < d:
        mean, left = zeros(), d - whole
        for t in range(keys.size):
            mean += broadcast(weights[0, start + t]) * load_some(kv, keys[t], column + whole, left)
        store_some(y, i, y_column + whole, mean * broadcast(inverse), left)


@cached_attention.on("numpy")
def fast_cached_attention(
    q: np.ndarray,
    kv: np.ndarray,
    *,
    heads: int,
    d_k: int,
    slots: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    groups, n, width = q.shape
    capacity = kv.shape[1]
    d_v = kv.shape[2] // heads - d_k
    y = np.empty((groups, n, heads * d_v), q.dtype)
    _attend(
        blocks(groups, _GROUPS),
        contiguous(q).reshape(groups * n, width),
        n,
        contiguous(kv).reshape(-1, kv.shape[2]),
        capacity,
        heads,
        d_k,
        d_v,
        _int32(slots),
        _int32(lengths),
        y.reshape(groups * n, heads * d_v),
    )
    return y


@parallel_loop
def _append(block, new, kv, slots, lengths):
    """Copy the last columns of new: [rows, columns] to kv: [slots, capacity, fewer columns]."""
    before = new.shape[1] - kv.shape[2]
    for i in rows_of(block, len(new), _GROUPS):
        row, target = new[i], kv[slots[i], (lengths[i] - 1) % kv.shape[1]]
        for j in range(target.size):
            target[j] = row[before + j]


def _covers_append(new: np.ndarray, kv: np.ndarray, **_: Any) -> bool:
    return kv.flags.carray and kv.dtype == new.dtype


@append_to_cache.on("numpy", covers=_covers_append)
def fast_append_to_cache(
    new: np.ndarray, kv: np.ndarray, *, slots: np.ndarray, lengths: np.ndarray
) -> None:
    _append(blocks(len(new), _GROUPS), contiguous(new), kv, _int32(slots), _int32(lengths))


def _int32(numbers: np.ndarray) -> np.ndarray:
    """Integers as the loops read them."""
    return contiguous(np.asarray(numbers, np.int32))
