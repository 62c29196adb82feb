"""Attention of a few new queries to cached keys and values, for decoding."""

from __future__ import annotations

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import are_rows, are_whole, has_shape, is_matrix, shape_of
from autograd.operation import function
from autograd.ops.large.dot_product import scaled_dot_product


@function
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

    q: [groups, n, heads · d_k or more], with the queries in the first columns. kv: [slots,
    capacity, heads · (d_k + d_v)], K‖V. Attention is to the first `length` positions of a slot, or
    for group g to the first `key_lengths[g]` of them; key_lengths: [groups]. slots: [groups, 1]
    gives the slot of each group, or slots: [groups, length or more] the slot of each single
    position, so that hypotheses with a common prefix need no copies of it. Returns [groups, n,
    heads · d_v]; a query without keys gets zeros.
    """
    xp = array_module(q)
    groups, n, _ = q.shape
    width, d_v = heads * d_k, kv.shape[2] // heads - d_k
    if not length:
        return xp.zeros((groups, n, heads * d_v), q.dtype)
    cached = kv[slots[:, :length], xp.arange(length)]  # [groups, length, heads (d_k + d_v)]
    queries = q[:, :, :width].reshape(groups, n, heads, d_k).transpose(0, 2, 1, 3)
    keys = cached[:, :, :width].reshape(groups, length, heads, d_k).transpose(0, 2, 1, 3)
    values = cached[:, :, width:].reshape(groups, length, heads, d_v).transpose(0, 2, 1, 3)
    hidden = None
    if key_lengths is not None:
        hidden = (xp.arange(length)[None, :] >= key_lengths[:, None])[:, None, None, :]
    y, _ = scaled_dot_product.reference(queries, keys, values, hidden=hidden)
    return y.transpose(0, 2, 1, 3).reshape(groups, n, heads * d_v)


@cached_attention.checked
def _check(
    q: Array,
    kv: Array,
    *,
    heads: int,
    d_k: int,
    slots: Array,
    length: int,
    key_lengths: Array | None = None,
) -> None:
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
    if not 0 <= length <= of_kv[1]:
        raise ValueError(
            f"cached_attention: length must be 0 to the capacity of kv, {of_kv[1]}, got {length}"
        )
    are_whole("cached_attention: slots", slots)
    slots_per_group = slots.shape[1] if slots.ndim == 2 else 0
    if (
        slots.ndim != 2
        or slots.shape[0] != shape[0]
        or not (slots_per_group == 1 or slots_per_group >= length)
    ):
        raise ValueError(
            f"cached_attention: slots {tuple(slots.shape)} are not [groups, 1] or [groups, length "
            f"or more], of {shape[0]} groups and length {length}"
        )
    used = slots[:, :length] if isinstance(slots, np.ndarray) else slots
    are_rows("cached_attention: slots", used, tuple(used.shape), "", of_kv[0])
    if key_lengths is not None:
        are_whole("cached_attention: key_lengths", key_lengths)
        has_shape("cached_attention: key_lengths", key_lengths, shape[:1], "[groups]")


@function
def append_to_cache(new: Array, kv: Array, *, slots: Array, length: int) -> None:
    """Write each row's new K‖V to position `length` of its slot.

    new: [rows, heads · (d_k + d_v) or more], with K‖V in the last columns. kv: [slots, capacity,
    heads · (d_k + d_v)]. slots: [rows], all different; row i is written to slots[i].
    """
    kv[slots, length] = new[:, new.shape[1] - kv.shape[2] :]


@append_to_cache.checked
def _check_append(new: Array, kv: Array, *, slots: Array, length: int) -> None:
    is_matrix("append_to_cache: new", new, "[rows, columns]")
    of_kv = shape_of(kv)
    if len(of_kv) != 3 or new.shape[1] < of_kv[2]:
        raise ValueError(
            f"append_to_cache: new {new.shape} and kv {of_kv} do not match, [rows, columns] and "
            "[slots, capacity, at most as many columns]"
        )
    if not 0 <= length < of_kv[1]:
        raise ValueError(
            f"append_to_cache: length must be below the capacity of kv, {of_kv[1]}, got {length}"
        )
    are_rows("append_to_cache: slots", slots, (new.shape[0],), "[rows]", of_kv[0])
