"""cached_attention and append_to_cache: decoding without copies."""

from __future__ import annotations

import math
from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import as_indices, blocks, contiguous, device_of, is_contiguous
from autograd.ops.large.cache import append_to_cache, cached_attention

_WARPS = 4  # of a block
_MOST_QUERIES = 4  # of a group that a warp of cached_attention.cu has
_WIDTHS = (8, 16, 32, 64, 128, 256)  # of a head that cached_attention.cu supports


@cached_attention.on("cupy", "float32", "bfloat16")
def fast_cached_attention(
    q: Array,
    kv: Array,
    *,
    heads: int,
    d_k: int,
    slots: Array,
    lengths: Array,
) -> Array:
    device, q, kv = device_of(q), contiguous(q), contiguous(kv)
    groups, n, width = q.shape
    d_v = kv.shape[2] // heads - d_k
    shared = d_k == d_v and d_k in _WIDTHS and width % 8 == 0
    name = "cached_attention" if shared else "warp_cached_attention"
    constants, count = {"HEADS": heads, "REAL_BYTES": kv.itemsize}, {}
    if shared:
        of_group = blocks(n, _MOST_QUERIES)  # warps
        warps, count["groups"] = groups * of_group, groups
        constants |= {"WIDTH": d_k, "QUERIES": blocks(n, of_group) if n else 1}
    else:
        warps = count["queries"] = groups * n
        constants |= {"D_K": d_k, "D_V": d_v}
    slots = as_indices(slots)
    y = backend_of(q).empty((groups, n, heads * d_v), q.dtype)
    device.launch(
        *(name, constants, name, (blocks(warps, _WARPS), heads), 32 * _WARPS),
        q=q,
        q_stride=width,
        kv=kv,
        capacity=kv.shape[1],
        slots=slots,
        slots_stride=slots.shape[1],
        scattered=int(slots.shape[1] > 1),
        lengths=as_indices(lengths),
        n=n,
        factor=1 / math.sqrt(d_k),
        y=y,
        **count,
    )
    return y


def _covers_append(new: Array, kv: Array, **_: Any) -> bool:
    return bool(new.dtype == kv.dtype) and is_contiguous(kv)


@append_to_cache.on("cupy", "float32", "bfloat16", covers=_covers_append)
def fast_append_to_cache(new: Array, kv: Array, *, slots: Array, lengths: Array) -> None:
    new = contiguous(new)
    _, capacity, columns = kv.shape
    name = "append_to_cache"
    device_of(new).launch(
        *(name, {"REAL_BYTES": kv.itemsize}, name, (len(new),), 256),
        added=new,
        stride=new.shape[1],
        kv=kv,
        capacity=capacity,
        columns=columns,
        slots=as_indices(slots),
        lengths=as_indices(lengths),
    )
