"""Attention of a few new queries to keys and values that are kept, for decoding."""

from __future__ import annotations

import math

from autograd.backend import Array, array_module
from autograd.op import kernel


@kernel
def cached_attention(
    q: Array,
    kv: Array,
    *,
    heads: int,
    d_k: int,
    slots: Array,
    length: int,
    key_lengths: Array | None = None,
) -> Array:
    """softmax(QKᵀ/√d_k) V, without a gradient.

    q [groups, n, heads · d_k or more], whose first columns are the queries, attends to kv [slots,
    capacity, heads · (d_k + d_v)], K‖V, of which the first `length` places count, or of group g the
    first `key_lengths[g]` of these. Each group's keys lie in the slot slots[g] (slots [groups, 1]),
    or key by key in slots[g, place] (slots [groups, length] or longer), so that hypotheses that
    share a past need no copies of it. Returns [groups, n, heads · d_v]: zeros where no key counts.
    """
    module = array_module(q)
    groups, n, _ = q.shape
    width = heads * d_k
    kept = kv[slots[:, :length], module.arange(length)]  # [groups, length, heads (d_k + d_v)]
    queries = q[:, :, :width].reshape(groups, n, heads, d_k).transpose(0, 2, 1, 3)
    keys = kept[:, :, :width].reshape(groups, length, heads, d_k).transpose(0, 2, 3, 1)
    values = kept[:, :, width:].reshape(groups, length, heads, -1).transpose(0, 2, 1, 3)
    scores = queries @ keys / math.sqrt(d_k)  # [groups, heads, n, length]
    if key_lengths is not None:
        absent = module.arange(length)[None, :] >= key_lengths[:, None]  # [groups, length]
        scores = module.where(absent[:, None, None, :], -math.inf, scores)
    most = scores.max(axis=-1, keepdims=True)
    p = module.exp(scores - module.where(most == -math.inf, 0, most))
    total = p.sum(axis=-1, keepdims=True)
    p /= module.where(total == 0, 1, total)
    return (p @ values).transpose(0, 2, 1, 3).reshape(groups, n, -1)


@kernel
def append_to_cache(new: Array, kv: Array, *, slots: Array, length: int) -> None:
    """Put each row's new K‖V behind the `length` that its slot has.

    new [rows, heads · (d_k + d_v) or more], whose last columns are K‖V; kv [slots, capacity,
    heads · (d_k + d_v)] is written to, for row i in slots[i], no two of which are the same.
    """
    kv[slots, length] = new[:, new.shape[1] - kv.shape[2] :]
