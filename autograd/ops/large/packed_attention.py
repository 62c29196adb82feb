"""Multi-head scaled dot-product attention over packed sentences (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from operator import index
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import is_matrix
from autograd.dropout import DropoutSite, is_site
from autograd.operation import Vjp, op
from autograd.ops.large.dot_product import scaled_dot_product, weights_of
from autograd.sentences import Sentences, are_sentences

HEAD_COLUMNS = 1 << 20  # key j of a head is column head · 2^20 + j of the dropout mask


class Reach(NamedTuple):
    """How many positions behind a query, and how many ahead of it, keys are seen."""

    behind: int
    ahead: int


EVERYWHERE = 1 << 40  # further than any sentence is long


def reach_of(causal: bool, window: int | None) -> Reach:
    """A window has the last positions up to the query or, without `causal`, those around it.

    If their number is even, there is one more behind the query than ahead of it.
    """
    if window is None:
        return Reach(EVERYWHERE, 0 if causal else EVERYWHERE)
    return Reach(window - 1, 0) if causal else Reach(window // 2, (window - 1) // 2)


class _Group(NamedTuple):
    """Blocks of equal shape: a block has queries of one sentence, and the keys in their reach.

    sentences: [blocks], the number of the sentence of each; first_queries and first_keys: [blocks],
    the positions of its first query and key within the sentence; queries: [blocks, n] and keys:
    [blocks, m], their rows.
    """

    sentences: np.ndarray
    first_queries: np.ndarray
    first_keys: np.ndarray
    queries: Any
    keys: Any


def _groups(
    xp: Any, queries: Sentences, keys: Sentences, reach: Reach, window: int | None
) -> list[_Group]:
    """Blocks grouped by shape, so that a stack of them needs no padding.

    Without a window, a block is a whole sentence. With one, it has as many queries as the window
    has keys, so that the work is in proportion to the window.
    """
    size = window or EVERYWHERE
    return queries.cached(
        ("groups", xp.__name__, reach, size),
        lambda: [*_grouped(xp, queries, keys, reach, size)],
        keys,
    )


def _grouped(
    xp: Any, queries: Sentences, keys: Sentences, reach: Reach, size: int
) -> Iterator[_Group]:
    counts = -(-queries.lengths // size)
    ids = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * size
    last = np.minimum(first + size, queries.lengths[ids])
    first_key = np.maximum(first - reach.behind, 0)
    last_key = np.minimum(last + reach.ahead, keys.lengths[ids])
    # Neighbouring blocks share keys. In different groups, each key is in one block of a group.
    shapes = np.stack([last - first, last_key - first_key, first - first_key, number % 2], axis=1)
    for shape in np.unique(shapes, axis=0):
        n, m = shape[:2].tolist()
        if m > 0:
            chosen = np.flatnonzero((shapes == shape).all(axis=1))
            sentences, queries_from, keys_from = ids[chosen], first[chosen], first_key[chosen]
            query_rows = queries.offsets[sentences] + queries_from
            key_rows = keys.offsets[sentences] + keys_from
            yield _Group(
                sentences,
                queries_from,
                keys_from,
                xp.asarray(query_rows[:, None] + np.arange(n)),
                xp.asarray(key_rows[:, None] + np.arange(m)),
            )


def _heads(x: Array, rows: Array, heads: int) -> Array:
    """The `rows`: [g, n] of x: [tokens, heads · d], as [g, heads, n, d]."""
    return x[rows].reshape(*rows.shape, heads, -1).transpose(0, 2, 1, 3)


def _merged(x: Array) -> Array:
    """x: [g, heads, n, d] as [g, n, heads · d]."""
    g, heads, n, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(g, n, heads * d)


def _split(q: Array, kv: Array | None, heads: int, d_k: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values, as views of the one or two matrices that hold them."""
    width = heads * d_k
    if kv is None:
        return q[:, :width], q[:, width : 2 * width], q[:, 2 * width :]
    return q, kv[:, :width], kv[:, width:]


def _hidden(xp: Any, group: _Group, reach: Reach) -> Array | None:
    """Which keys are out of the reach of each query: [n, m], the same in all blocks of a group."""
    n, m = group.queries.shape[1], group.keys.shape[1]
    between = int(group.first_queries[0] - group.first_keys[0])
    behind = between + xp.arange(n)[:, None] - xp.arange(m)[None, :]  # a negative one is ahead
    if between + n <= reach.behind + 1 and m <= between + reach.ahead + 1:
        return None  # even for the first and the last query
    return (behind > reach.behind) | (-behind > reach.ahead)


def _kept(xp: Any, site: DropoutSite, group: _Group, heads: int) -> Array:
    """Which attention weights dropout keeps: [blocks, heads, n, m]."""
    keys = xp.asarray(group.first_keys)[:, None] + xp.arange(group.keys.shape[1])  # positions
    columns = xp.arange(heads)[:, None] * HEAD_COLUMNS + keys[:, None, :]
    return site.keep(xp, group.queries[:, None, :, None], columns[:, :, None, :])


@op
def attention(
    q: Array,
    kv: Array | None = None,
    *,
    heads: int,
    d_k: int,
    sentences: Sentences,
    key_sentences: Sentences | None = None,
    causal: bool = False,
    window: int | None = None,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    """`scaled_dot_product` for each head of each sentence (section 3.2.2, before the projection).

    Self-attention: q: [tokens, heads · (d_k + d_k + d_v)] is Q‖K‖V, side by side, of `sentences`.
    Attention to another sequence: q: [tokens, heads · d_k] is Q, and kv: [keys, heads · (d_k +
    d_v)] is K‖V, of as many `key_sentences`. `causal` hides the keys ahead of a query. `window`
    restricts self-attention (section 4): a query sees that many positions, around its own or, with
    `causal`, up to its own. `site` drops attention weights, which the paper does not do. Returns
    [tokens, heads · d_v]; a query without keys gets zeros.
    """
    xp, reach = array_module(q), reach_of(causal, window)
    queries, keys, values = _split(q, kv, heads, d_k)
    groups = _groups(xp, sentences, key_sentences or sentences, reach, window)
    y = xp.zeros((q.shape[0], values.shape[1]), q.dtype)
    vjps = []
    for group in groups:
        of_group, of_group_vjp = scaled_dot_product.reference(
            _heads(queries, group.queries, heads),
            _heads(keys, group.keys, heads),
            _heads(values, group.keys, heads),
            hidden=_hidden(xp, group, reach),
            keep=_kept(xp, site, group, heads) if site else None,
            scale=site.scale if site else 1.0,
        )
        y[group.queries] = _merged(of_group)
        vjps.append(of_group_vjp)

    # Each group's vjp holds its rows of Q, K and V, so that q and kv need not be kept.
    dtype, q_shape, kv_shape = q.dtype, q.shape, None if kv is None else kv.shape

    def vjp(dy: Array) -> Any:
        dq = xp.zeros(q_shape, dtype)
        dkv = None if kv_shape is None else xp.zeros(kv_shape, dtype)
        dqueries, dkeys, dvalues = _split(dq, dkv, heads, d_k)
        for group, of_group_vjp in zip(groups, vjps, strict=True):
            of_queries, of_keys, of_values = of_group_vjp(_heads(dy, group.queries, heads))
            dqueries[group.queries] = _merged(of_queries)
            dkeys[group.keys] += _merged(of_keys)
            dvalues[group.keys] += _merged(of_values)
        return dq if dkv is None else (dq, dkv)

    return y, vjp


@attention.checked
def _check(
    q: Array,
    kv: Array | None = None,
    *,
    heads: int,
    d_k: int,
    sentences: Sentences,
    key_sentences: Sentences | None = None,
    window: int | None = None,
    site: DropoutSite | None = None,
    **_: Any,
) -> None:
    is_matrix("attention: q", q, "[tokens, columns]")
    if window is not None and (isinstance(window, bool) or index(window) < 1):
        raise ValueError(f"attention: window must be 1 or more positions, or None; it is {window}")
    if window is not None and (kv is not None or key_sentences not in (None, sentences)):
        raise ValueError("attention: a window is of self-attention, without kv and key_sentences")
    is_site("attention: site", site)
    rows, columns = q.shape
    if heads < 1 or d_k < 1:
        raise ValueError(f"attention: heads and d_k must be at least 1; they are {heads} and {d_k}")
    width = heads * d_k
    if kv is not None:
        is_matrix("attention: kv", kv, "[keys, columns]")
    are_sentences("attention: sentences", sentences, rows)
    keys = rows if kv is None else kv.shape[0]
    if key_sentences is not None or kv is not None:
        of_keys = sentences if key_sentences is None else key_sentences
        are_sentences("attention: key_sentences", of_keys, keys)
        if len(of_keys) != len(sentences):
            raise ValueError(
                f"attention: {len(of_keys)} key_sentences for {len(sentences)} sentences"
            )
    if kv is None:
        if columns <= 2 * width or columns % heads:
            raise ValueError(
                f"attention: q has {columns} columns, not {heads} · ({d_k} + {d_k} + d_v); without "
                "kv it is Q‖K‖V"
            )
        return
    if columns != width:
        raise ValueError(f"attention: q has {columns} columns, not {heads} · {d_k}")
    if kv.shape[1] <= width or kv.shape[1] % heads:
        raise ValueError(f"attention: kv has {kv.shape[1]} columns, not {heads} · ({d_k} + d_v)")


def attention_weights(
    q: Array,
    kv: Array | None = None,
    *,
    heads: int,
    d_k: int,
    sentences: Sentences,
    key_sentences: Sentences | None = None,
    causal: bool = False,
    window: int | None = None,
) -> list[Array]:
    """The weights in `attention` with the same arguments, without dropout.

    Returns an array [heads, n, m] for each sentence. Its rows, each a query's weights, sum to 1.
    """
    _check(
        q,
        kv,
        heads=heads,
        d_k=d_k,
        sentences=sentences,
        key_sentences=key_sentences,
        window=window,
    )
    xp, reach, key_sentences = array_module(q), reach_of(causal, window), key_sentences or sentences
    queries, keys, _ = _split(q, kv, heads, d_k)
    weights = [
        xp.zeros((heads, n, m), q.dtype)
        for n, m in zip(sentences.lengths.tolist(), key_sentences.lengths.tolist(), strict=True)
    ]
    for group in _groups(xp, sentences, key_sentences, reach, window):
        p, _ = weights_of(
            _heads(queries, group.queries, heads),
            _heads(keys, group.keys, heads),
            _hidden(xp, group, reach),
        )
        _, _, n, m = p.shape
        places = zip(group.sentences, group.first_queries, group.first_keys, strict=True)
        for i, (sentence, query, key) in enumerate(places):
            weights[sentence][:, query : query + n, key : key + m] = p[i]
    return weights
