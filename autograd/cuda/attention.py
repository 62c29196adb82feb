"""attention of packed sentences: on the tensor cores in bfloat16, else a warp a query."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import Array, array_module, backend, backend_of
from autograd.cuda.device import FLOAT32, blocks, device_of
from autograd.cuda.fallback import reference
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.op import Vjp
from autograd.ops.attention import attention

_TILE = 64  # queries or keys of a block of attention.cu
_WIDTHS = range(16, 129, 16)  # of a head that attention.cu is made for
_WARPS = 4  # of a block, in both sources
_MOST_COLUMNS = 1024  # of a head that plain_attention.cu keeps in registers


class _Plan(NamedTuple):
    """Where things lie, on the device.

    starts and key_starts [sentences + 1] divide the rows, and sentences and key_sentences, one
    number a row, say the same. query_tiles, key_tiles, and more_query_tiles, those of sentences
    with more than one tile of keys, are [tiles, 2]: a sentence, and the first row within it.
    """

    starts: Array
    key_starts: Array
    sentences: Array
    key_sentences: Array
    query_tiles: Array
    key_tiles: Array
    more_query_tiles: Array


@functools.lru_cache(maxsize=64)  # three a batch: those of a step's batches, and of the next
def _plan(owner: str, lengths: bytes, key_lengths: bytes) -> _Plan:
    """The plan of sentences of these lengths: one for all layers, there and back."""
    n, m = np.frombuffer(lengths, np.int64), np.frombuffer(key_lengths, np.int64)
    lists = [
        np.concatenate([[0], np.cumsum(n)]),
        np.concatenate([[0], np.cumsum(m)]),
        np.repeat(np.arange(len(n)), n),
        np.repeat(np.arange(len(m)), m),
        _tiles(n, n > 0),
        _tiles(m, (n > 0) | (m > 0)),
        _tiles(n, (n > 0) & (m > _TILE)),
    ]
    # One copy for all of them.
    moved = backend(owner).asarray(np.concatenate([x.reshape(-1) for x in lists]).astype(np.int32))
    ends = np.cumsum([x.size for x in lists])
    parts = [moved[end - x.size : end].reshape(x.shape) for x, end in zip(lists, ends, strict=True)]
    return _Plan(*parts)


def _tiles(lengths: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """[tiles, 2]: the sentence and the first row of each tile of the chosen ones, one at least."""
    counts = np.where(chosen, np.maximum(1, -(-lengths // _TILE)), 0)
    sentences = np.repeat(np.arange(len(lengths)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([sentences, (np.arange(len(sentences)) - before) * _TILE], axis=1)


def fast_plan_attention(
    tokens: Array, *, lengths: np.ndarray, key_lengths: np.ndarray | None = None
) -> None:
    _plan_of(tokens, lengths, lengths if key_lengths is None else key_lengths)


def _plan_of(x: Array, lengths: np.ndarray, key_lengths: np.ndarray) -> _Plan:
    counts = (n.astype(np.int64).tobytes() for n in (lengths, key_lengths))
    return _plan(backend_of(x).name, *counts)


def _is_covered(q: Array, kv: Array | None, heads: int, d_k: int) -> bool:
    keys = q if kv is None else kv
    width = heads * (2 * d_k if kv is None else d_k)
    return (
        q.ndim == keys.ndim == 2
        and q.dtype == keys.dtype
        and (kv is None or q.shape[1] == heads * d_k)
        and (keys.shape[1] - width) % heads == 0
        and 0 < d_k <= _MOST_COLUMNS
        and 0 < (keys.shape[1] - width) // heads <= _MOST_COLUMNS
        and q.flags.c_contiguous
        and keys.flags.c_contiguous
    )


def fast_attention(
    q: Array,
    kv: Array | None = None,
    *,
    heads: int,
    d_k: int,
    lengths: np.ndarray,
    key_lengths: np.ndarray | None = None,
    causal: bool = False,
    site: DropoutSite | None = None,
) -> tuple[Array, Vjp]:
    if not _is_covered(q, kv, heads, d_k):
        return reference(
            attention,
            q,
            kv,
            heads=heads,
            d_k=d_k,
            lengths=lengths,
            key_lengths=key_lengths,
            causal=causal,
            site=site,
        )
    module, device, empty = array_module(q), device_of(q), backend_of(q).empty
    source = q if kv is None else kv
    key_column = heads * d_k if kv is None else 0
    value_column = key_column + heads * d_k
    d_v = (source.shape[1] - value_column) // heads
    key_lengths = lengths if key_lengths is None else key_lengths
    if lengths.sum() != len(q) or key_lengths.sum() != len(source):
        raise ValueError("the lengths of the sentences do not add up to the rows")
    plan = _plan_of(q, lengths, key_lengths)
    constants = {
        "D_K": d_k,
        "D_V": d_v,
        "CAUSAL": int(causal),
        "DROPOUT": int(site is not None),
        "REAL_BYTES": q.itemsize,
    }
    tiled = q.itemsize == 2 and d_k in _WIDTHS and d_v in _WIDTHS
    source_file = "attention" if tiled else "plain_attention"
    # The first column of queries, keys and values, each in the one or two matrices that hold them.
    columns = (0, key_column, value_column)
    starts = [plan.starts, plan.key_starts]
    settings = [1 / math.sqrt(d_k), *mask_of(site)]
    tokens, keys = len(q), len(source)
    k_tile, v_tile = 2 * _TILE * (d_k + 8), 2 * _TILE * (d_v + 8)  # bytes of shared memory

    def matrix(x: Array, column: int) -> tuple[int, int]:
        return device.address(x) + x.itemsize * column, x.shape[1]

    def launch(name: str, grid: int, arguments: list[Any], shared: int = 0) -> None:
        whole = (grid, heads)
        device.launch(source_file, constants, name, whole, 32 * _WARPS, arguments, shared)

    def matrices(*arrays: Array) -> list[int]:
        """What begins in each at its column, a pointer and a stride each."""
        return [n for x, c in zip(arrays, columns, strict=True) for n in matrix(x, c)]

    inputs = matrices(q, source, source)
    y = empty((len(q), heads * d_v), q.dtype)
    levels = empty((heads, len(q)), FLOAT32)
    results = [*matrix(y, 0), levels, tokens]
    if tiled:
        tiles, room = plan.query_tiles, max(k_tile, v_tile) + k_tile + v_tile
        launch("attention", len(tiles), [*inputs, *starts, tiles, *settings, *results], room)
    else:
        arguments = [*inputs, plan.sentences, *starts, *settings, *results]
        launch("plain_attention", blocks(len(q), _WARPS), arguments)

    def vjp(dy: Array) -> Any:
        dy = module.ascontiguousarray(dy)
        dq = empty(q.shape, q.dtype)
        dsource = dq if kv is None else empty(source.shape, source.dtype)
        out, dout = matrix(y, 0), matrix(dy, 0)
        gradients = matrices(dq, dsource, dsource)
        dqueries, dkeys_dvalues = gradients[:2], gradients[2:]
        if tiled:
            given, room = [*inputs, *out, *dout, levels, *starts], 2 * (k_tile + v_tile)
            tiles, scores = plan.key_tiles, 2 * _TILE * (_TILE + 8)
            arguments = [*given, tiles, *settings, *gradients, tokens]
            launch("attention_gradient", len(tiles), arguments, room + scores)
            tiles = plan.more_query_tiles
            arguments = [*given, tiles, *settings, *dqueries, tokens]
            launch("attention_query_gradient", len(tiles), arguments, room)
        else:
            along = empty((heads, len(q)), FLOAT32)
            given = [*inputs, *out, *dout, levels, plan.sentences, *starts]
            arguments = [*given, *settings, *dqueries, along, tokens]
            launch("plain_query_gradient", blocks(len(q), _WARPS), arguments)
            given = [*inputs, *dout, levels, along, plan.key_sentences, *starts]
            arguments = [*given, *settings, *dkeys_dvalues, tokens, keys]
            launch("plain_key_gradient", blocks(len(source), _WARPS), arguments)
        return dq if kv is None else (dq, dsource)

    return y, vjp
