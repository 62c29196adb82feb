"""cached_attention: one group of queries at a time, with keys and values read in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autograd.cpu.loops import (
    blocks,
    contiguous,
    of_rows,
    parallel_loop,
    row_loop,
    rows_of,
    rows_of_a_task,
)
from autograd.cpu.memory import empty
from autograd.cpu.registers import LANES, broadcast, load, load_some, store, store_some, zeros
from autograd.cpu.scores import exponentials, four_dots
from autograd.ops.large.cache import append_to_cache, cached_attention, count_up

_GROUPS = 8  # groups of a task: hypotheses of one sentence share keys in the cache
_FEW = 16  # queries that are so few that each is a task


@row_loop("q y")
def _attend(task, size, q, n, kv, capacity, heads, d_k, d_v, slots, lengths, y):
    """q: [groups · n, heads · d_k or more]; kv: [slots · capacity, heads · (d_k + d_v)]."""
    inverse_root = np.float32(1 / math.sqrt(d_k))
    rows = np.empty(capacity + 3, np.int64)
    scores = np.empty((1, heads * (capacity + LANES)), np.float32)
    m, of_group = 0, -1
    for i in range(task * size, min((task + 1) * size, len(y))):
        if of_group != i // n:
            of_group = i // n
            m = _rows_of_keys(rows, slots[of_group], lengths[of_group], capacity)
        if not m:
            y[i] = 0
            continue
        wide = (m + LANES - 1) // LANES * LANES  # each head's scores are padded to whole vectors
        for t in range(0, m, 4):
            keys = (rows[t], rows[t + 1], rows[t + 2], rows[t + 3])
            for head in range(heads):
                column = head * d_k
                four_dots(scores, 0, head * wide + t, q, i, column, kv, keys, column, d_k)
        for head in range(heads):
            total = exponentials(scores, 0, head * wide, m, wide, inverse_root)
            column, factor = heads * d_k + head * d_v, np.float32(1) / total
            _sum(y, i, head * d_v, kv, rows[:m], column, d_v, scores, head * wide, factor)


@of_rows
def _rows_of_keys(rows, slots, length, capacity):
    """The rows of kv that hold the keys of a group, which has `length` tokens; returns how many.

    The last is repeated three times, since keys are taken four at a time.
    """
    m = min(length, capacity)
    begin = (length - 1) // capacity * capacity  # the token in the first place
    for t in range(m + 3 if m else 0):
        place = min(t, m - 1)
        token = begin + place if begin + place < length else begin + place - capacity
        rows[t] = slots[token if slots.size > 1 else 0] * capacity + place
    return m


@of_rows
def _sum(y, i, y_column, kv, keys, column, d, weights, start, factor):
    """d numbers of row i of y: the weighted sum of kv's rows `keys`, from `column` on, · factor."""
    whole, factors = d // LANES * LANES, broadcast(factor)
    for c in range(0, whole - LANES, 2 * LANES):  # two at a time share a weight
        first, second = zeros(), zeros()
        for t in range(keys.size):
            weight = broadcast(weights[0, start + t])
            first += weight * load(kv, keys[t], column + c)
            second += weight * load(kv, keys[t], column + c + LANES)
        store(y, i, y_column + c, first * factors)
        store(y, i, y_column + c + LANES, second * factors)
    for c in range(whole // (2 * LANES) * (2 * LANES), d, LANES):
        total, count = zeros(), min(LANES, d - c)
        for t in range(keys.size):
            part = load_some(kv, keys[t], column + c, count)
            total += broadcast(weights[0, start + t]) * part
        store_some(y, i, y_column + c, total * factors, count)


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
    y = empty((groups, n, heads * d_v))
    rows = groups * n
    size = rows_of_a_task(rows, 1 if rows <= _FEW else _GROUPS * n)
    _attend(
        blocks(rows, size),
        size,
        contiguous(q).reshape(rows, width),
        n,
        contiguous(kv).reshape(-1, kv.shape[2]),
        capacity,
        heads,
        d_k,
        d_v,
        _int32(slots),
        _int32(lengths),
        y.reshape(rows, heads * d_v),
    )
    return y


@row_loop("new", written="kv")
def _append(task, size, new, kv, slots, lengths):
    """Copy the last columns of new: [rows, columns] to kv: [slots, capacity, fewer columns]."""
    before = new.shape[1] - kv.shape[2]
    for i in rows_of(task, len(new), size):
        row, target = new[i], kv[slots[i], (lengths[i] - 1) % kv.shape[1]]
        for j in range(target.size):
            target[j] = row[before + j]


def _covers_append(new: np.ndarray, kv: np.ndarray, **_: Any) -> bool:
    return kv.flags.carray and kv.dtype == new.dtype


@append_to_cache.on("numpy", covers=_covers_append)
def fast_append_to_cache(
    new: np.ndarray, kv: np.ndarray, *, slots: np.ndarray, lengths: np.ndarray
) -> None:
    size = rows_of_a_task(len(new), _GROUPS)
    _append(blocks(len(new), size), size, contiguous(new), kv, _int32(slots), _int32(lengths))


@parallel_loop
def _count_up(task, lengths):
    for i in range(len(lengths)):
        lengths[i] += 1


def _covers_count(lengths: np.ndarray) -> bool:
    return lengths.flags.carray


@count_up.on("numpy", "int32", covers=_covers_count)
def fast_count_up(lengths: np.ndarray) -> None:
    _count_up(1, lengths)


def _int32(numbers: np.ndarray) -> np.ndarray:
    """Integers as the loops read them."""
    return contiguous(np.asarray(numbers, np.int32))
