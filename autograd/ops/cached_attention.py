"""Attention of a few new queries to keys and values that are kept, for decoding."""

from __future__ import annotations

import math

from autograd.backend import Array, array_module
from autograd.op import kernel


@kernel
def cached_attention(
    q: Array, kv: Array, *, heads: int, d_k: int, key_lengths: Array | None = None
) -> Array:
    """softmax(QKᵀ/√d_k) V, without a gradient.

    q [groups, n, heads · d_k] attends to kv [groups, m, heads · (d_k + d_v)], K‖V, of which only
    the first `key_lengths` [groups] count, if given. Returns [groups, n, heads · d_v].
    """
    module = array_module(q)
    groups, n, _ = q.shape
    m = kv.shape[1]
    width = heads * d_k
    queries = q.reshape(groups, n, heads, d_k).transpose(0, 2, 1, 3)
    keys = kv[:, :, :width].reshape(groups, m, heads, d_k).transpose(0, 2, 3, 1)
    values = kv[:, :, width:].reshape(groups, m, heads, -1).transpose(0, 2, 1, 3)
    scores = queries @ keys / math.sqrt(d_k)  # [groups, heads, n, m]
    if key_lengths is not None:
        absent = module.arange(m)[None, :] >= key_lengths[:, None]  # [groups, m]
        scores = module.where(absent[:, None, None, :], -math.inf, scores)
    scores -= scores.max(axis=-1, keepdims=True)
    p = module.exp(scores)
    p /= p.sum(axis=-1, keepdims=True)
    return (p @ values).transpose(0, 2, 1, 3).reshape(groups, n, -1)
