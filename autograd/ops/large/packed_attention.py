"""Multi-head scaled dot-product attention over packed sentences (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import is_matrix
from autograd.dropout import DropoutSite, is_site
from autograd.operation import Vjp, op
from autograd.ops.large.dot_product import scaled_dot_product, weights_of
from autograd.sentences import Sentences, are_sentences

HEAD_COLUMNS = 1 << 20  # key j of a head is column head · 2^20 + j of the dropout mask


class _Group(NamedTuple):
    """Sentences of equal shape: the rows of their queries, [g, n], and of their keys, [g, m]."""

    numbers: np.ndarray
    queries: Any
    keys: Any


def _groups(xp: Any, queries: Sentences, keys: Sentences) -> list[_Group]:
    """Sentences grouped by shape, so that a stack of them needs no padding and no mask."""
    return queries.cached(("groups", xp.__name__), lambda: [*_grouped(xp, queries, keys)], keys)


def _grouped(xp: Any, queries: Sentences, keys: Sentences) -> Iterator[_Group]:
    shapes = np.stack([queries.lengths, keys.lengths], axis=1)
    for n, m in np.unique(shapes, axis=0):
        if n and m:
            chosen = np.flatnonzero((shapes == (n, m)).all(axis=1))
            yield _Group(
                chosen,
                xp.asarray(queries.offsets[chosen, None] + np.arange(n)),
                xp.asarray(keys.offsets[chosen, None] + np.arange(m)),
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


def _ahead(xp: Any, group: _Group) -> Array:
    """Which keys are ahead of each query: [n, m]."""
    n, m = group.queries.shape[1], group.keys.shape[1]
    return xp.arange(m)[None, :] > xp.arange(n)[:, None]


def _kept(xp: Any, site: DropoutSite, group: _Group, heads: int) -> Array:
    """Which attention weights dropout keeps: [g, heads, n, m]."""
    keys = xp.arange(group.keys.shape[1])
    columns = xp.arange(heads)[:, None] * HEAD_COLUMNS + keys[None, :]
    return site.keep(xp, group.queries[:, None, :, None], columns[None, :, None, :])


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
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    """`scaled_dot_product` for each head of each sentence (section 3.2.2, before the projection).

    Self-attention: q: [tokens, heads · (d_k + d_k + d_v)] is Q‖K‖V, side by side, of `sentences`.
    Attention to another sequence: q: [tokens, heads · d_k] is Q, and kv: [keys, heads · (d_k +
    d_v)] is K‖V, of as many `key_sentences`. `causal` hides the keys ahead of a query. `site` drops
    attention weights, which the paper does not do. Returns [tokens, heads · d_v]; a query without
    keys gets zeros.
    """
    xp = array_module(q)
    queries, keys, values = _split(q, kv, heads, d_k)
    groups = _groups(xp, sentences, key_sentences or sentences)
    y = xp.zeros((q.shape[0], values.shape[1]), q.dtype)
    vjps = []
    for group in groups:
        of_group, of_group_vjp = scaled_dot_product.reference(
            _heads(queries, group.queries, heads),
            _heads(keys, group.keys, heads),
            _heads(values, group.keys, heads),
            hidden=_ahead(xp, group) if causal else None,
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
            dkeys[group.keys] = _merged(of_keys)
            dvalues[group.keys] = _merged(of_values)
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
    site: DropoutSite | None = None,
    **_: Any,
) -> None:
    is_matrix("attention: q", q, "[tokens, columns]")
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
) -> list[Array]:
    """The weights in `attention` with the same arguments, without dropout.

    Returns an array [heads, n, m] for each sentence. Its rows, each a query's weights, sum to 1.
    """
    _check(q, kv, heads=heads, d_k=d_k, sentences=sentences, key_sentences=key_sentences)
    xp, key_sentences = array_module(q), key_sentences or sentences
    queries, keys, _ = _split(q, kv, heads, d_k)
    weights = [
        xp.zeros((heads, n, m), q.dtype)
        for n, m in zip(sentences.lengths.tolist(), key_sentences.lengths.tolist(), strict=True)
    ]
    for group in _groups(xp, sentences, key_sentences):
        p, _ = weights_of(
            _heads(queries, group.queries, heads),
            _heads(keys, group.keys, heads),
            _ahead(xp, group) if causal else None,
        )
        for i, sentence in enumerate(group.numbers):
            weights[sentence] = p[i]
    return weights
