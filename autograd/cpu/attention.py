"""attention: a task for each head of each sentence, in parallel on all cores.

A head of a sentence has a few dozen rows of queries, keys and values. They are multiplied in place,
four rows at a time, and products that causal attention hides are not computed. Meanwhile the rows
of the next sentence are prefetched: a head has only a few numbers of each row, an access pattern
that hardware prefetchers do not recognise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from autograd.cpu import pool
from autograd.cpu.loops import contiguous, of_rows, parallel_loop
from autograd.cpu.philox import dropout_factors, mask_of, words_for
from autograd.cpu.registers import (
    LANES,
    address,
    broadcast,
    fetch,
    first_of,
    load,
    store,
    sum_of,
    zeros,
)
from autograd.cpu.scores import four_dots, rest_of_dot, shift
from autograd.cpu.vector import exp
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.packed_attention import HEAD_COLUMNS, attention
from autograd.sentences import Sentences
from autograd.tape import running_tape

_FEW = 32  # columns of a head that are too few for the hardware prefetcher


class _Plan(NamedTuple):
    """The layout of the sentences and of the work.

    Sentence s has the queries starts[s] to starts[s + 1], and the keys key_starts[s] to
    key_starts[s + 1]. weights[s] is where the weights of its first head begin; those of the other
    heads follow, each a matrix of `_padded` columns. A task is a head of a sentence, numbered
    sentence by sentence; share i of the work has the tasks tasks[i] to tasks[i + 1].
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
    queries: Sentences,
    keys: Sentences,
    heads: int,
    d_k: int,
    d_v: int,
    key_column: int,
    causal: bool,
) -> _Plan:
    lengths, key_lengths = queries.lengths, keys.lengths
    sizes = lengths * _padded.py_func(key_lengths)
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
        queries.longest,
        keys.longest,
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
def _dots(out, n, m, a, a_start, b, b_start, d, causal):
    """out: [n, m] = a bᵀ, for blocks of d columns; a_start is the row and column of a's block.

    Computes four columns of out at a time. Up to three columns after the last are undefined, and
    with `causal` so are those right of the diagonal.
    """
    row, a_column = a_start
    first, b_column = b_start
    for i in range(n):
        for j in range(0, min(i + 1, m) if causal else m, 4):
            rows = (
                first + j,
                first + min(j + 1, m - 1),
                first + min(j + 2, m - 1),
                first + min(j + 3, m - 1),
            )
            four_dots(out, i, j, a, row + i, a_column, b, rows, b_column, d)
    if d % LANES:
        for i in range(n):
            for j in range(min(i + 1, m) if causal else m):
                out[i, j] += rest_of_dot(a, row + i, a_column, b, first + j, b_column, d)


@of_rows
def _product(out, out_start, a, n, k, b, b_start, d, factor, lower, upper):
    """out = factor · a b, for a: [n, k] and d columns of b; places are a row and a column.

    With `lower`, a is zero right of its diagonal; with `upper`, left of it.
    """
    row, column = out_start
    first, b_column = b_start
    factors = broadcast(factor)
    whole = d // LANES * LANES
    for i in range(0, n, 4):
        # Four rows of a at a time; if fewer are left, the last one is repeated.
        i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        start, end = i if upper else 0, min(i + 4, k) if lower else k
        for c in range(0, whole, 2 * LANES):
            # Two vectors of each row, or the last one twice; the sums stay in registers.
            left, right = c, min(c + LANES, whole - LANES)
            y0, y1, y2, y3 = zeros(), zeros(), zeros(), zeros()
            z0, z1, z2, z3 = zeros(), zeros(), zeros(), zeros()
            for s in range(start, end):
                y, z = load(b, first + s, b_column + left), load(b, first + s, b_column + right)
                y0 += broadcast(a[i, s]) * y
                z0 += broadcast(a[i, s]) * z
                y1 += broadcast(a[i1, s]) * y
                z1 += broadcast(a[i1, s]) * z
                y2 += broadcast(a[i2, s]) * y
                z2 += broadcast(a[i2, s]) * z
                y3 += broadcast(a[i3, s]) * y
                z3 += broadcast(a[i3, s]) * z
            store(out, row + i, column + left, y0 * factors)
            store(out, row + i, column + right, z0 * factors)
            store(out, row + i1, column + left, y1 * factors)
            store(out, row + i1, column + right, z1 * factors)
            store(out, row + i2, column + left, y2 * factors)
            store(out, row + i2, column + right, z2 * factors)
            store(out, row + i3, column + left, y3 * factors)
            store(out, row + i3, column + right, z3 * factors)
        for c in range(whole, d):
            for r in range(i, min(i + 4, n)):
                total = np.float32(0)
                for s in range(start, end):
                    total += a[r, s] * b[first + s, b_column + c]
                out[row + r, column + c] = total * factor


@of_rows
def _softmax(scores, n, m, causal, factor):
    """Softmax of factor · scores, in place; scores: [n, m]. Hidden and padded columns get 0."""
    width = scores.shape[1]
    for i in range(n):
        shift(scores, i, 0, min(i + 1, m) if causal else m, width, factor)
    flat = scores.reshape(-1)
    for j in range(n * width):
        flat[j] = exp(flat[j])
    for i in range(n):
        total = zeros()
        for j in range(0, width, LANES):
            total += load(scores, i, j)
        inverse = broadcast(np.float32(1) / sum_of(total))
        for j in range(0, width, LANES):
            store(scores, i, j, load(scores, i, j) * inverse)


@of_rows
def _copied(block, out):
    for i in range(len(block)):
        for j in range(block.shape[1]):
            out[i, j] = block[i, j]
    return out


@of_rows
def _drop(weights, n, m, mask, row, column, factors, words):
    """Multiply weights: [n, m] by the factors of dropout, in place."""
    if mask is not None:
        for i in range(n):
            dropout_factors(factors[:m], words[: 4 * ((m + 7) // 8)], mask, row + i, column)
            for j in range(m):
                weights[i, j] *= factors[j]


@of_rows
def _softmax_gradient(dp, p, n, m, causal):
    """Turn dp into the gradient of the scores, p (dp - Σ dp p). Both are [n, m]."""
    for i in range(n):
        seen = min(i + 1, m) if causal else m
        along, none = zeros(), np.float32(0)
        for j in range(0, p.shape[1], LANES):
            along += first_of(load(dp, i, j), seen - j, none) * load(p, i, j)
        along = broadcast(sum_of(along))
        for j in range(0, p.shape[1], LANES):
            above = first_of(load(dp, i, j), seen - j, none) - along
            store(dp, i, j, load(p, i, j) * above)


@of_rows
def _matrix(memory, start, rows, columns):
    """A matrix in `memory`, with rows padded to whole vectors."""
    columns = _padded(columns)
    return memory[start : start + rows * columns].reshape(rows, columns)


@parallel_loop
def _forward(share, q, kv, plan, mask, saved, y):
    """The output y: [tokens, heads · d_v]. The plan has the columns of keys and values in kv.

    `saved` receives the weights before dropout, for the backward pass; it is empty without one.
    """
    d_k, d_v, most_m = plan.d_k, plan.d_v, plan.most_keys
    spare = np.empty(plan.most_queries * _padded(most_m), np.float32)
    factors, words = np.empty(most_m, np.float32), words_for(most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        query, key = plan.starts[s], plan.key_starts[s]
        n, m = plan.starts[s + 1] - query, plan.key_starts[s + 1] - key
        keys, values = (key, plan.key_column + head * d_k), (key, plan.value_column + head * d_v)
        _fetch(q, plan.starts, s + 1, head * d_k, d_k)
        _fetch(kv, plan.key_starts, s + 1, keys[1], d_k)
        _fetch(kv, plan.key_starts, s + 1, values[1], d_v)
        P = _matrix(spare, 0, n, m)
        if saved.size:
            P = _matrix(saved, plan.weights[s] + head * P.size, n, m)
        _dots(P, n, m, q, (query, head * d_k), kv, keys, d_k, plan.causal)
        _softmax(P, n, m, plan.causal, inverse_root)
        if mask is not None:
            P = _copied(P, _matrix(spare, 0, n, m))
            _drop(P, n, m, mask, query, head * HEAD_COLUMNS, factors, words)
        _product(y, (query, head * d_v), P, n, m, kv, values, d_v, one, plan.causal, False)


@parallel_loop
def _backward(share, dy, q, kv, plan, mask, saved, dq, dkv):
    """The gradients dq and dkv, laid out like q and kv; one array if q and kv are one."""
    d_k, d_v, most_m = plan.d_k, plan.d_v, plan.most_keys
    spare = np.empty(plan.most_queries * _padded(most_m), np.float32)
    factors, words = np.empty(most_m, np.float32), words_for(most_m)
    one, inverse_root = np.float32(1), np.float32(1 / math.sqrt(d_k))
    causal = plan.causal
    for task in range(plan.tasks[share], plan.tasks[share + 1]):
        s, head = task // plan.heads, task % plan.heads
        query, key = plan.starts[s], plan.key_starts[s]
        n, m = plan.starts[s + 1] - query, plan.key_starts[s + 1] - key
        queries, outputs = (query, head * d_k), (query, head * d_v)
        keys, values = (key, plan.key_column + head * d_k), (key, plan.value_column + head * d_v)
        _fetch(dy, plan.starts, s + 1, head * d_v, d_v)
        _fetch(q, plan.starts, s + 1, head * d_k, d_k)
        _fetch(kv, plan.key_starts, s + 1, keys[1], d_k)
        _fetch(kv, plan.key_starts, s + 1, values[1], d_v)
        DP = _matrix(spare, 0, n, m)
        P = _matrix(saved, plan.weights[s] + head * DP.size, n, m)
        _dots(DP, n, m, dy, outputs, kv, values, d_v, causal)
        _drop(DP, n, m, mask, query, head * HEAD_COLUMNS, factors, words)
        _softmax_gradient(DP, P, n, m, causal)
        _drop(P, n, m, mask, query, head * HEAD_COLUMNS, factors, words)
        _product(dkv, values, P.T, m, n, dy, outputs, d_v, one, False, causal)
        _product(dq, queries, DP, n, m, kv, keys, d_k, inverse_root, causal, False)
        _product(dkv, keys, DP.T, m, n, q, queries, d_k, inverse_root, False, causal)


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
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    q = contiguous(q)
    source = q if kv is None else contiguous(kv)
    key_column = heads * d_k if kv is None else 0
    d_v = (source.shape[1] - key_column) // heads - d_k
    keys = key_sentences or sentences
    shape = heads, d_k, d_v, key_column, causal
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
