"""Attention of a few new queries to cached keys and values, for decoding.

How many tokens there are is read from arrays, so that a step of decoding is the same work each time
and can be recorded (`Backend.record`).
"""

from __future__ import annotations

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import are_rows, are_whole, are_within, has_shape, is_matrix, shape_of
from autograd.operation import function
from autograd.ops.large.dot_product import scaled_dot_product

_MOST = np.iinfo(np.int32).max  # tokens


@function
def count_up(lengths: Array) -> None:
    """One more token in each row; lengths: [rows], integers, the tokens of each so far."""
    lengths += 1


@count_up.checked
def _check_count(lengths: Array) -> None:
    are_whole("count_up: lengths", lengths)


@function
def append_to_cache(new: Array, kv: Array, *, slots: Array, lengths: Array) -> None:
    """Write K‖V of each row's last token to its place in the row's slot.

    The token at position t has the place t % capacity, where it replaces an older one: so a cache
    needs room only for the tokens that are attended to.

    new: [rows, heads · (d_k + d_v) or more], with K‖V in the last columns. kv: [slots, capacity,
    heads · (d_k + d_v)]. slots: [rows], all different; row i is written to slots[i]. lengths:
    [rows], the tokens of each row, at least 1: the last one is the new one.
    """
    kv[slots, (lengths - 1) % kv.shape[1]] = new[:, new.shape[1] - kv.shape[2] :]


@append_to_cache.checked
def _check_append(new: Array, kv: Array, *, slots: Array, lengths: Array) -> None:
    is_matrix("append_to_cache: new", new, "[rows, columns]")
    of_kv = shape_of(kv)
    if len(of_kv) != 3 or new.shape[1] < of_kv[2]:
        raise ValueError(
            f"append_to_cache: new {new.shape} and kv {of_kv} do not match, [rows, columns] and "
            "[slots, capacity, at most as many columns]"
        )
    are_rows("append_to_cache: slots", slots, (new.shape[0],), "[rows]", of_kv[0])
    has_shape("append_to_cache: lengths", lengths, new.shape[:1], "[rows]")
    are_within("append_to_cache: lengths", lengths, 1, _MOST)


@function
def cached_attention(
    q: Array, kv: Array, *, heads: int, d_k: int, slots: Array, lengths: Array
) -> Array:
    """softmax(QKᵀ/√d_k) V, without a gradient.

    q: [groups, n, heads · d_k or more], with the queries in the first columns. kv: [slots,
    capacity, heads · (d_k + d_v)], K‖V. lengths: [groups]; attention is to all tokens of a group,
    or to the last ones that the cache has, if these are fewer. The token at position t has the
    place t % capacity (`append_to_cache`); what lies in other places is not read. slots: [groups,
    1] gives the slot of each group, or slots: [groups, tokens] the slot of each single token, so
    that hypotheses with a common prefix need no copies of it. Returns [groups, n, heads · d_v]; a
    query without keys gets zeros.
    """
    xp = array_module(q)
    (groups, n, _), capacity = q.shape, kv.shape[1]
    width, d_v = heads * d_k, kv.shape[2] // heads - d_k
    if not capacity:
        return xp.zeros((groups, n, heads * d_v), q.dtype)
    places, lengths = xp.arange(capacity), lengths[:, None]
    tokens = lengths - 1 - (lengths - 1 - places) % capacity  # the last one of each place
    hidden = tokens < 0  # there is none
    if slots.shape[1] > 1:
        slots = xp.take_along_axis(slots, xp.maximum(tokens, 0), axis=1)
    cached = xp.where(hidden[:, :, None], 0, kv[slots, places])  # [groups, capacity, columns]
    queries = q[:, :, :width].reshape(groups, n, heads, d_k).transpose(0, 2, 1, 3)
    keys = cached[:, :, :width].reshape(groups, capacity, heads, d_k).transpose(0, 2, 1, 3)
    values = cached[:, :, width:].reshape(groups, capacity, heads, d_v).transpose(0, 2, 1, 3)
    hidden = hidden[:, None, None, :]
    y, _ = scaled_dot_product.reference(queries, keys, values, hidden=hidden)
    return y.transpose(0, 2, 1, 3).reshape(groups, n, heads * d_v)


@cached_attention.checked
def _check(q: Array, kv: Array, *, heads: int, d_k: int, slots: Array, lengths: Array) -> None:
    shape, of_kv = shape_of(q), shape_of(kv)
    if len(shape) != 3 or len(of_kv) != 3:
        raise ValueError(
            f"cached_attention: q {shape} is not [groups, n, columns], or kv {of_kv} not [slots, "
            "capacity, columns]"
        )
    if q.dtype != kv.dtype:
        raise TypeError(f"cached_attention: q is {q.dtype} and kv {kv.dtype}")
    width = heads * d_k
    if width < 1 or shape[2] < width or of_kv[2] <= width or of_kv[2] % heads:
        raise ValueError(
            f"cached_attention: {heads} heads of d_k {d_k} do not match q {shape}, [groups, n, "
            f"heads · d_k or more], and kv {of_kv}, [slots, capacity, heads · (d_k + d_v)]"
        )
    are_whole("cached_attention: slots", slots)
    if slots.ndim != 2 or slots.shape[0] != shape[0]:
        raise ValueError(
            f"cached_attention: slots {tuple(slots.shape)} are not [groups, 1] or [groups, "
            f"tokens], of {shape[0]} groups"
        )
    are_rows("cached_attention: slots", slots, tuple(slots.shape), "", of_kv[0])
    has_shape("cached_attention: lengths", lengths, shape[:1], "[groups]")
    most = slots.shape[1] if slots.shape[1] != 1 else of_kv[1]
    are_within("cached_attention: lengths", lengths, 0, most)
