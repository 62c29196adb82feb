"""attention: a task for each head of each sentence, in parallel on all cores.

A head of a sentence has a few dozen rows of queries, keys and values. They are multiplied in place
by the microkernel, but for keys and values that are transposed first; products that causal
attention or a window hides are not computed.
Meanwhile the rows of the next sentence are prefetched: a head has only a few numbers of each row,
an access pattern that hardware prefetchers do not recognise.

A sentence is one block of queries and the keys that they see; with a window, it is several, so that
the weights take memory in proportion to the window.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from autograd.cpu import pool
from autograd.cpu.band import (
    product,
    scores,
    softmax,
    softmax_gradient,
    transpose_block,
    transposed,
)
from autograd.cpu.loops import contiguous, of_rows, parallel_loop
from autograd.cpu.philox import MASKED, bits_for, draw, factors_of, mask_of
from autograd.cpu.registers import LANES, address, fetch, load, store
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.packed_attention import EVERYWHERE, HEAD_COLUMNS, attention, reach_of
from autograd.sentences import Sentences
from autograd.tape import running_tape

_FEW = 32  # columns of a head that are too few for the hardware prefetcher
_BLOCK = 32  # queries of a block of a sentence, with a window


class _Plan(NamedTuple):
    """The layout of the sentences and of the work.

    Sentence s has the queries starts[s] to starts[s + 1], and the keys key_starts[s] to
    key_starts[s + 1]. A query sees keys up to `behind` positions behind it and `ahead` of it.
    weights[s] is where the weights of the sentence's first head begin; those of the other heads
    follow, each a matrix of a row for each query, and of `_padded` columns for the keys of a block
    of `block` queries, `most_keys` at most. A task is a head of a sentence, numbered sentence by
    sentence; share i of the work has the tasks tasks[i] to tasks[i + 1].
    """

    starts: np.ndarray
    key_starts: np.ndarray
    weights: np.ndarray
    tasks: np.ndarray
    block: int
    most_queries: int
    most_keys: int
    heads: int
    d_k: int
    d_v: int
    key_column: int
    value_column: int
    behind: int
    ahead: int


def _plan(
    queries: Sentences,
    keys: Sentences,
    heads: int,
    d_k: int,
    d_v: int,
    key_column: int,
    causal: bool,
    window: int | None,
) -> _Plan:
    lengths, key_lengths = queries.lengths, keys.lengths
    block = EVERYWHERE if window is None else _BLOCK
    of_block = EVERYWHERE if window is None else _BLOCK + window - 1 + MASKED - 1
    sizes = lengths * _padded.py_func(np.minimum(key_lengths, of_block))
    # The cost of a task: its products, and reading its rows.
    cost = np.repeat(sizes + 8 * (lengths + key_lengths), heads)
    limits = np.linspace(0, cost.sum(), 8 * pool.threads() + 1)
    tasks = np.searchsorted(_starts(cost), limits)
    tasks[-1] = len(cost)
    return _Plan(
        queries.offsets,
        keys.offsets,
        _starts(sizes * heads),
        tasks,
        block,
        min(queries.longest, block),
        min(keys.longest, of_block),
        heads,
        d_k,
        d_v,
        key_column,
        key_column + heads * d_k,
        *reach_of(causal, window),
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


@of_rows
def _padded(n):
    """n, rounded up to whole vectors."""
    return (n + LANES - 1) // LANES * LANES


@of_rows
def _fetch(matrix, starts, s, column, columns):
    """Prefetch a head's columns of sentence s, if there is such a sentence and they are few."""
    if s + 1 < starts.size and columns <= _FEW:
        for i in range(starts[s], starts[s + 1]):
            for c in range(column, column + columns, LANES):
                fetch(address(matrix, i, c))


@of_rows
def _block(plan, first, n, m):
    """A block of queries of a sentence of n, from `first` on, and what they see of m keys.

    Returns the number of queries, the first key and the number of keys, and the band of weights.
    Keys begin where a call of Philox does.
    """
    queries = min(plan.block, n - first)
    key = max(0, first - plan.behind) // MASKED * MASKED
    # The last block has all keys that are left, for those that no query sees have a gradient too.
    end = m if first + queries == n else min(m, first + queries + plan.ahead)
    return queries, key, end - key, (first - key - plan.behind, first - key + plan.ahead)


@of_rows
def _drop(out, weights, n, m, mask, kept):
    """Write weights: [n, m], times the factors of dropout, to out, which may be the weights."""
    for i in range(n):
        for j in range(0, m, LANES):
            store(out, i, j, load(weights, i, j) * factors_of(kept, mask, i, j, m))


@of_rows
def _matrix(memory, start, rows, columns):
    """A matrix in `memory`, with rows padded to whole vectors."""
    columns = _padded(columns)
    return memory[start : start + rows * columns].reshape(rows, columns)


@of_rows
def _clear(matrix, start, rows, columns):
    """Zeros, in a block of `rows` and `columns`; start is its first row and column."""
    row, column = start
    for i in range(row, row + rows):
        for j in range(column, column + columns):
            matrix[i, j] = 0


@parallel_loop
def _forward(share, q, kv, plan, mask, saved, y):
    """The output y: [tokens, heads · d_v]. The plan has the columns of keys and values in kv.

    `saved` receives the weights before dropout, for the backward pass; it is empty without one.
    """
    d_k, d_v, most_m = plan.d_k, plan.d_v, plan.most_keys
    spare = np.empty(plan.most_queries * _padded(most_m), np.float32)
    panel = np.empty(d_k * _padded(most_m), np.float32)
    kept = bits_for(plan.most_queries, most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        n, m = plan.starts[s + 1] - plan.starts[s], plan.key_starts[s + 1] - plan.key_starts[s]
        key_column, value_column = plan.key_column + head * d_k, plan.value_column + head * d_v
        _fetch(q, plan.starts, s + 1, head * d_k, d_k)
        _fetch(kv, plan.key_starts, s + 1, key_column, d_k)
        _fetch(kv, plan.key_starts, s + 1, value_column, d_v)
        _fetch(y, plan.starts, s + 1, head * d_v, d_v)
        columns = min(m, most_m)
        first, before = 0, plan.weights[s] + head * n * _padded(columns)
        while first < n:
            queries, key, keys, band = _block(plan, first, n, m)
            row, key_row = plan.starts[s] + first, plan.key_starts[s] + key
            P = _matrix(spare, 0, queries, columns)
            if saved.size:
                P = _matrix(saved, before + first * _padded(columns), queries, columns)
            K, V = (kv, key_row, key_column), (kv, key_row, value_column)
            KT = _matrix(panel, 0, d_k, keys)
            transpose_block(KT, K, keys, d_k)
            scores(P, queries, keys, (q, row, head * d_k), KT, d_k, band)
            softmax(P, queries, keys, band, inverse_root)
            if mask is not None:
                weights, P = P, _matrix(spare, 0, queries, columns)
                draw(kept, mask, row, queries, head * HEAD_COLUMNS + key, keys)
                _drop(P, weights, queries, keys, mask, kept)
            product((y, row, head * d_v), P, False, queries, keys, V, d_v, one, band, False)
            first += queries


@parallel_loop
def _backward(share, dy, q, kv, plan, mask, saved, dq, dkv):
    """The gradients dq and dkv, laid out like q and kv; one array if q and kv are one."""
    d_k, d_v, most_m = plan.d_k, plan.d_v, plan.most_keys
    spare = np.empty(plan.most_queries * _padded(most_m), np.float32)
    panel = np.empty(d_v * _padded(most_m), np.float32)
    kept = bits_for(plan.most_queries, most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        n, m = plan.starts[s + 1] - plan.starts[s], plan.key_starts[s + 1] - plan.key_starts[s]
        key_column, value_column = plan.key_column + head * d_k, plan.value_column + head * d_v
        _fetch(dy, plan.starts, s + 1, head * d_v, d_v)
        _fetch(q, plan.starts, s + 1, head * d_k, d_k)
        _fetch(kv, plan.key_starts, s + 1, key_column, d_k)
        _fetch(kv, plan.key_starts, s + 1, value_column, d_v)
        _fetch(dq, plan.starts, s + 1, head * d_k, d_k)
        _fetch(dkv, plan.key_starts, s + 1, key_column, d_k)
        _fetch(dkv, plan.key_starts, s + 1, value_column, d_v)
        columns = min(m, most_m)
        first, before = 0, plan.weights[s] + head * n * _padded(columns)
        shared = n > plan.block or n == 0  # blocks of queries share keys; without any, keys get 0
        if shared:
            _clear(dkv, (plan.key_starts[s], key_column), m, d_k)
            _clear(dkv, (plan.key_starts[s], value_column), m, d_v)
        while first < n:
            queries, key, keys, band = _block(plan, first, n, m)
            row, key_row = plan.starts[s] + first, plan.key_starts[s] + key
            Q, DY = (q, row, head * d_k), (dy, row, head * d_v)
            DQ, K = (dq, row, head * d_k), (kv, key_row, key_column)
            DK, DV = (dkv, key_row, key_column), (dkv, key_row, value_column)
            VT = _matrix(panel, 0, d_v, keys)
            across = transposed(band)
            DP = _matrix(spare, 0, queries, columns)
            P = _matrix(saved, before + first * _padded(columns), queries, columns)
            transpose_block(VT, (kv, key_row, value_column), keys, d_v)
            scores(DP, queries, keys, DY, VT, d_v, band)
            if mask is not None:
                draw(kept, mask, row, queries, head * HEAD_COLUMNS + key, keys)
                _drop(DP, DP, queries, keys, mask, kept)
            softmax_gradient(DP, P, queries, keys, band)
            if mask is not None:
                _drop(P, P, queries, keys, mask, kept)
            product(DV, P, True, keys, queries, DY, d_v, one, across, shared)
            product(DQ, DP, False, queries, keys, K, d_k, inverse_root, band, False)
            product(DK, DP, True, keys, queries, Q, d_k, inverse_root, across, shared)
            first += queries


def _covers(q: np.ndarray, kv: np.ndarray | None = None, **_: Any) -> bool:
    return kv is None or kv.dtype == q.dtype


@attention.on("numpy", covers=_covers)
def fast_attention(
    q: np.ndarray,
    kv: np.ndarray | None = None,
    *,
    heads: int,
    d_k: int,
    sentences: Sentences,
    key_sentences: Sentences | None = None,
    causal: bool = False,
    window: int | None = None,
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    q = contiguous(q)
    source = q if kv is None else contiguous(kv)
    key_column = heads * d_k if kv is None else 0
    d_v = (source.shape[1] - key_column) // heads - d_k
    keys = key_sentences or sentences
    shape = heads, d_k, d_v, key_column, causal, window
    plan = sentences.cached(
        ("loops", *shape, pool.threads()), lambda: _plan(sentences, keys, *shape), beside=keys
    )
    mask = mask_of(site)
    recorded = running_tape() is not None
    saved = np.empty(plan.weights[-1] if recorded else 0, q.dtype)
    y = np.empty((len(q), heads * d_v), q.dtype)
    _forward(len(plan.tasks) - 1, q, source, plan, mask, saved, y)

    def vjp(dy: np.ndarray) -> Any:
        if not recorded:
            raise RuntimeError("no tape was running: the attention weights were not saved")
        dq = np.empty(q.shape, q.dtype)
        dkv = dq if kv is None else np.empty(source.shape, source.dtype)
        _backward(len(plan.tasks) - 1, contiguous(dy), q, source, plan, mask, saved, dq, dkv)
        return dq if kv is None else (dq, dkv)

    return y, vjp
