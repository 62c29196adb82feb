"""attention: each head of each sentence by itself, side by side on all cores.

A head of a sentence is some dozen rows. Copied out, with zeros up to whole vector registers, its
matrices stay in the nearest cache, and plain loops multiply them faster than a library that is made
for large ones.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from autograd.cpu import pool
from autograd.cpu.loops import of_rows, parallel_loop, plain
from autograd.cpu.philox import dropout_factors, mask_of, words_for
from autograd.cpu.registers import (
    larger,
    largest_of,
    load,
    spread,
    store,
    sum_of,
    transpose,
    zeros,
)
from autograd.cpu.vector import exp
from autograd.dropout import DropoutSite
from autograd.op import Vjp
from autograd.ops.attention import HEAD_COLUMNS, attention
from autograd.tape import running_tape


class _Plan(NamedTuple):
    """Where things lie. Sentence s has the queries from starts[s] to starts[s + 1], and so on.

    `weights` says where the weights of each sentence's first head begin; those of the other heads
    follow. Each head's are a matrix of `_padded` rows and columns. `tasks` says where each share
    of the work begins; a task is a head of a sentence, counted sentence by sentence.
    """

    starts: np.ndarray
    key_starts: np.ndarray
    weights: np.ndarray
    tasks: np.ndarray
    most_queries: int
    most_keys: int
    heads: int
    d_k: int
    d_v: int
    key_column: int
    value_column: int
    causal: bool


def _plan(
    lengths: np.ndarray,
    key_lengths: np.ndarray,
    heads: int,
    d_k: int,
    d_v: int,
    key_column: int,
    causal: bool,
) -> _Plan:
    lengths, key_lengths = np.asarray(lengths, np.int64), np.asarray(key_lengths, np.int64)
    sizes = _padded.py_func(lengths) * _padded.py_func(key_lengths)
    # A task costs its products, and the copying of its rows.
    cost = np.repeat(sizes + 8 * (lengths + key_lengths), heads)
    limits = np.linspace(0, cost.sum(), 8 * pool.threads() + 1)
    tasks = np.searchsorted(_starts(cost), limits)
    tasks[-1] = len(cost)
    return _Plan(
        _starts(lengths),
        _starts(key_lengths),
        _starts(sizes * heads),
        tasks,
        int(lengths.max(initial=0)),
        int(key_lengths.max(initial=0)),
        heads,
        d_k,
        d_v,
        key_column,
        key_column + heads * d_k,
        causal,
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


@of_rows
def _padded(n):
    """The next multiple of the 16 numbers in a vector."""
    return (n + 15) // 16 * 16


@of_rows
def _room(rows, columns):
    return np.zeros((_padded(rows), _padded(columns)), np.float32)


@of_rows
def _copy(out, matrix, first, rows, column, columns, factor):
    """A block of `matrix`, times a factor, to the corner of `out`, with zeros up to the padding."""
    width = _padded(columns)
    for i in range(rows):
        row, source = out[i][:width], matrix[first + i][column : column + columns]
        for j in range(columns):
            row[j] = source[j] * factor
        for j in range(columns, width):
            row[j] = 0
    for i in range(rows, _padded(rows)):
        for j in range(width):
            out[i, j] = 0


@of_rows
def _copied(block, out):
    for i in range(len(block)):
        for j in range(block.shape[1]):
            out[i, j] = block[i, j]
    return out


@of_rows
def _store(matrix, first, column, block, rows, columns, factor):
    """A block times a factor to its place in `matrix`."""
    for i in range(rows):
        out, row = matrix[first + i][column : column + columns], block[i]
        for j in range(columns):
            out[j] = row[j] * factor


@of_rows
def _transpose(out, block, rows, columns):
    for i in range(0, rows, 16):
        for j in range(0, columns, 16):
            transpose(out, j, i, block, i, j)


@of_rows
def _product(out, a, b, n, k, m):
    """out [n, m] = a [n, k] b [k, m]; n and m are rounded up, k is not."""
    for j in range(0, m, 16):
        for i in range(0, n, 4):
            # Four rows of 16 sums that never leave the registers.
            y0, y1, y2, y3 = zeros(), zeros(), zeros(), zeros()
            for s in range(k):
                row = load(b, s, j)
                y0 += spread(a[i, s]) * row
                y1 += spread(a[i + 1, s]) * row
                y2 += spread(a[i + 2, s]) * row
                y3 += spread(a[i + 3, s]) * row
            store(out, i, j, y0)
            store(out, i + 1, j, y1)
            store(out, i + 2, j, y2)
            store(out, i + 3, j, y3)


@of_rows
def _softmax(scores, n, m, causal):
    """Softmax of the rows of scores [n, m], in place; zeros where nothing is to be seen."""
    width = scores.shape[1]
    if width == 0:
        return
    for i in range(n):
        for j in range(min(i + 1, m) if causal else m, width):
            scores[i, j] = -np.inf
        top = load(scores, i, 0)
        for j in range(16, width, 16):
            top = larger(top, load(scores, i, j))
        top = spread(largest_of(top))
        for j in range(0, width, 16):
            store(scores, i, j, load(scores, i, j) - top)
    flat = scores.reshape(-1)
    for j in range(n * width):
        flat[j] = exp(flat[j])
    for i in range(n):
        total = zeros()
        for j in range(0, width, 16):
            total += load(scores, i, j)
        inverse = spread(np.float32(1) / sum_of(total))
        for j in range(0, width, 16):
            store(scores, i, j, load(scores, i, j) * inverse)


@of_rows
def _drop(weights, n, m, mask, row, column, factors, words):
    """weights [n, m] times the factors of dropout, in place."""
    if mask is not None:
        for i in range(n):
            dropout_factors(factors[:m], words[: 4 * ((m + 7) // 8)], mask, row + i, column)
            for j in range(m):
                weights[i, j] *= factors[j]


@of_rows
def _softmax_gradient(dp, p, n):
    """dp becomes the gradient of the scores: p (dp - Σ dp p). Both [n, m]."""
    for i in range(n):
        along = zeros()
        for j in range(0, p.shape[1], 16):
            along += load(dp, i, j) * load(p, i, j)
        along = spread(sum_of(along))
        for j in range(0, p.shape[1], 16):
            store(dp, i, j, load(p, i, j) * (load(dp, i, j) - along))


@of_rows
def _weights_of(kept, plan, s, head, n, m):
    """The place where the weights of a head are kept, a matrix of `_padded` rows and columns."""
    rows, columns = _padded(n), _padded(m)
    start = plan.weights[s] + head * rows * columns
    return kept[start : start + rows * columns].reshape(rows, columns)


@parallel_loop
def _forward(share, q, kv, plan, mask, kept, y):
    """q and kv hold queries, keys and values in the plan's columns; y [tokens, heads · d_v].

    `kept` is what the backward pass needs, the weights before dropout; empty if there is none.
    """
    d_k, d_v, most_n, most_m = plan.d_k, plan.d_v, plan.most_queries, plan.most_keys
    Q, K, V = _room(most_n, d_k), _room(most_m, d_k), _room(most_m, d_v)
    KT, Y, spare = _room(d_k, most_m), _room(most_n, d_v), _room(most_n, most_m).reshape(-1)
    factors, words = np.empty(most_m, np.float32), words_for(most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        query, key = plan.starts[s], plan.key_starts[s]
        n, m = plan.starts[s + 1] - query, plan.key_starts[s + 1] - key
        _copy(Q, q, query, n, head * d_k, d_k, inverse_root)
        _copy(K, kv, key, m, plan.key_column + head * d_k, d_k, one)
        _copy(V, kv, key, m, plan.value_column + head * d_v, d_v, one)
        _transpose(KT, K, m, d_k)
        rows, columns = _padded(n), _padded(m)
        P = spare[: rows * columns].reshape(rows, columns)
        if kept.size:
            P = _weights_of(kept, plan, s, head, n, m)
        _product(P, Q, KT, n, d_k, m)
        _softmax(P, n, m, plan.causal)
        if mask is not None:
            P = _copied(P, spare[: P.size].reshape(P.shape))
            _drop(P, n, m, mask, query, head * HEAD_COLUMNS, factors, words)
        _product(Y, P, V, n, m, d_v)
        _store(y, query, head * d_v, Y, n, d_v, one)


@parallel_loop
def _backward(share, dy, q, kv, plan, mask, kept, dq, dkv):
    """dq and dkv are laid out like q and kv, and are one array where q and kv are."""
    d_k, d_v, most_n, most_m = plan.d_k, plan.d_v, plan.most_queries, plan.most_keys
    Q, DQ, DY = _room(most_n, d_k), _room(most_n, d_k), _room(most_n, d_v)
    K, DK, V, DV = _room(most_m, d_k), _room(most_m, d_k), _room(most_m, d_v), _room(most_m, d_v)
    VT, DP = _room(d_v, most_m), _room(most_n, most_m)
    factors, words = np.empty(most_m, np.float32), words_for(most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        query, key = plan.starts[s], plan.key_starts[s]
        n, m = plan.starts[s + 1] - query, plan.key_starts[s + 1] - key
        key_column, value_column = plan.key_column + head * d_k, plan.value_column + head * d_v
        drop_column = head * HEAD_COLUMNS
        _copy(Q, q, query, n, head * d_k, d_k, inverse_root)
        _copy(DY, dy, query, n, head * d_v, d_v, one)
        _copy(K, kv, key, m, key_column, d_k, one)
        _copy(V, kv, key, m, value_column, d_v, one)
        _transpose(VT, V, m, d_v)
        P = _weights_of(kept, plan, s, head, n, m)
        _product(DP, DY, VT, n, d_v, m)
        _drop(DP, n, m, mask, query, drop_column, factors, words)
        _softmax_gradient(DP, P, n)
        _drop(P, n, m, mask, query, drop_column, factors, words)
        _product(DV, P.T, DY, m, n, d_v)
        _product(DQ, DP, K, n, m, d_k)
        _product(DK, DP.T, Q, m, n, d_k)
        _store(dq, query, head * d_k, DQ, n, d_k, inverse_root)
        _store(dkv, key, key_column, DK, m, d_k, one)
        _store(dkv, key, value_column, DV, m, d_v, one)


def _is_covered(
    q: np.ndarray,
    kv: np.ndarray | None,
    heads: int,
    d_k: int,
    lengths: np.ndarray,
    key_lengths: np.ndarray | None,
) -> bool:
    """Whether everything fits together; the loops would not notice, and the reference does."""
    keys = q if kv is None else kv
    width = heads * (2 * d_k if kv is None else d_k)
    counts = np.asarray(lengths), np.asarray(lengths if key_lengths is None else key_lengths)
    return (
        q.ndim == keys.ndim == 2
        and q.dtype == keys.dtype
        and (kv is None or q.shape[1] == heads * d_k)
        and keys.shape[1] >= width
        and (keys.shape[1] - width) % heads == 0
        and counts[0].ndim == 1
        and counts[0].shape == counts[1].shape
        and all(np.all(c >= 0) for c in counts)
    )


@attention.on("numpy")
def fast_attention(
    q: np.ndarray,
    kv: np.ndarray | None = None,
    *,
    heads: int,
    d_k: int,
    lengths: np.ndarray,
    key_lengths: np.ndarray | None = None,
    causal: bool = False,
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    if not _is_covered(q, kv, heads, d_k, lengths, key_lengths):
        return attention.reference(
            q,
            kv,
            heads=heads,
            d_k=d_k,
            lengths=lengths,
            key_lengths=key_lengths,
            causal=causal,
            site=site,
        )
    q = plain(q)
    source = q if kv is None else plain(kv)
    key_column = heads * d_k if kv is None else 0
    d_v = (source.shape[1] - key_column) // heads - d_k
    key_lengths = lengths if key_lengths is None else key_lengths
    plan = _plan(lengths, key_lengths, heads, d_k, d_v, key_column, causal)
    if plan.starts[-1] != len(q) or plan.key_starts[-1] != len(source):
        raise ValueError("the lengths of the sentences do not add up to the rows")
    mask = mask_of(site)
    recorded = running_tape() is not None
    kept = np.empty(plan.weights[-1] if recorded else 0, q.dtype)
    y = np.empty((len(q), heads * d_v), q.dtype)
    _forward(len(plan.tasks) - 1, q, source, plan, mask, kept, y)

    def vjp(dy: np.ndarray) -> Any:
        if not recorded:
            raise RuntimeError("no tape was running: the attention weights were not kept")
        dq = np.empty(q.shape, q.dtype)
        dkv = dq if kv is None else np.empty(source.shape, source.dtype)
        _backward(len(plan.tasks) - 1, plain(dy), q, source, plan, mask, kept, dq, dkv)
        return dq if kv is None else (dq, dkv)

    return y, vjp
