"""attention of packed sentences: on tensor cores in bfloat16, otherwise one warp per query."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import Array, Backend, backend_of
from autograd.cuda.device import FLOAT32, Blocks, blocks, contiguous, device_of, is_contiguous
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.packed_attention import EVERYWHERE, attention, reach_of
from autograd.sentences import Sentences

# Queries or keys in a block of attention.cu: as many as a sentence needs, up to 64.
_TILES = (16, 32, 48, 64)
_WIDTHS = range(16, 129, 16)  # of a head that attention.cu supports
_WARPS = 4  # of a block of warp_attention.cu
_MOST_COLUMNS = 1024  # of a head that warp_attention.cu keeps in registers


class _Tiles(NamedTuple):
    """Blocks of `size` queries or keys: [tiles, 5], the fields of Tile in attention.cu.

    `more_queries` has the queries of sentences with more than one tile of keys. `blocks` are the
    numbers of all three, without those that have no sentence.
    """

    size: int
    queries: Array
    keys: Array
    more_queries: Array
    blocks: tuple[int | Blocks, ...]


class _Plan(NamedTuple):
    """The layout of the sentences, on the device.

    starts and key_starts: [sentences + 1] are the first rows of the sentences; sentence_ids:
    [tokens] and key_sentence_ids: [keys] the sentence of each row. A sentence is in the smallest of
    `tiles` that it fits into. tokens and keys are the numbers of rows.

    All arrays are parts of `flat`. Of sentences that recur they have room for more: the plans of
    many have one `layout`, so that one can take another one's place. A tile without a sentence has
    zeros, and a sentence that is not there ends where it begins. counts: [kinds, sizes] are the
    numbers of tiles.
    """

    starts: Array
    key_starts: Array
    sentence_ids: Array
    key_sentence_ids: Array
    tiles: tuple[_Tiles, ...]
    tokens: int
    keys: int
    flat: Array
    layout: tuple[int, ...]
    counts: np.ndarray

    def overwrite(self, other: _Plan) -> None:
        """Take over what another plan of this layout has."""
        self.flat[...] = other.flat
        self.counts[...] = other.counts


def plan(backend: Backend, queries: Sentences, keys: Sentences) -> _Plan:
    """The layout of the sentences on a device, made once for all layers and both passes."""
    return queries.cached(
        ("tiles", backend.name), lambda: _plan(backend, queries, keys), beside=keys
    )


def _plan(backend: Backend, queries: Sentences, keys: Sentences) -> _Plan:
    n, m = queries.lengths, keys.lengths
    tile_index = np.searchsorted(_TILES[:-1], np.maximum(n, m))  # [sentences], into _TILES
    size = np.array(_TILES)[tile_index]
    of_queries = -(-n // size)  # [sentences]: how many tiles
    of_keys = np.where((n > 0) | (m > 0), np.maximum(1, -(-m // size)), 0)
    kinds = of_queries, of_keys, np.where(m > size, of_queries, 0)
    by_size = np.argsort(tile_index, kind="stable")
    sentences = np.stack([queries.offsets[:-1], n, keys.offsets[:-1], m], axis=1)
    # [kinds, sizes]: how many tiles there are, and how many there is room for.
    counts = np.stack([np.bincount(tile_index, c, len(_TILES)) for c in kinds]).astype(np.int64)
    room, count = counts, len(n)
    if queries.recurring:
        found = _room_for(max(queries.rows, keys.rows), counts, len(n))
        room, count = found[:-1].reshape(counts.shape), int(found[-1])
    lists = [
        *(np.pad(x.offsets, (0, count - len(n)), mode="edge") for x in (queries, keys)),
        np.repeat(np.arange(len(n)), n),
        np.repeat(np.arange(len(m)), m),
        *(
            _spread(_tiles(kind, size, sentences, by_size), *of_kind)
            for kind, *of_kind in zip(kinds, counts, room, strict=True)
        ),
    ]
    # One copy to the device for all of them.
    flat = backend.asarray(np.concatenate([x.reshape(-1) for x in lists]).astype(np.int32))
    ends = np.cumsum([x.size for x in lists])
    parts = [flat[end - x.size : end].reshape(x.shape) for x, end in zip(lists, ends, strict=True)]
    # [kinds, sizes + 1]: where the tiles of each size begin.
    bounds = np.cumsum(np.pad(room, ((0, 0), (1, 0))), axis=1).tolist()

    def tiles_of(i: int) -> _Tiles:
        of_queries, of_keys, more = (
            x[own[i] : own[i + 1]] for x, own in zip(parts[4:], bounds, strict=True)
        )
        blocks = [
            Blocks(counts, (k, i), most) if queries.recurring else most
            for k, most in enumerate(room[:, i].tolist())
        ]
        return _Tiles(_TILES[i], of_queries, of_keys, more, tuple(blocks))

    tiles = tuple(map(tiles_of, np.flatnonzero(room[1]).tolist()))
    layout = queries.rows, keys.rows, count, *room.ravel().tolist()
    starts, key_starts, ids, key_ids = parts[:4]
    rows = queries.rows, keys.rows
    return _Plan(starts, key_starts, ids, key_ids, tiles, *rows, flat, layout, counts)


_room = np.zeros(0, np.int64)
_OF_TILE = 0.4  # that a sentence fills of a tile, if there are many of one size


def _room_for(rows: int, counts: np.ndarray, sentences: int) -> np.ndarray:
    """Room for tiles and sentences, at least as many as there are: [kinds · sizes + 1].

    It is that of all sentences before, and at first rather too much, so that there are few layouts.
    Room that is not used costs little: a part of a copy that nothing waits for.
    """
    global _room
    needed = np.append(counts.ravel(), sentences)
    known = _room if len(_room) else np.zeros_like(needed)
    if (needed > known).any():
        most = np.append(np.tile(rows / (_OF_TILE * np.array(_TILES)), len(counts)), rows / 4)
        more = 1 << np.frexp(np.maximum(needed, most))[1]  # the next power of two
        known = _room = np.maximum(known, more)
    return known


def _spread(tiles: np.ndarray, counts: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Tiles with zeros behind those of each size, up to its room; counts, room: [sizes]."""
    spread = np.zeros((room.sum(), tiles.shape[1]), tiles.dtype)
    shifts = (np.cumsum(room) - room) - (np.cumsum(counts) - counts)
    spread[np.arange(len(tiles)) + np.repeat(shifts, counts)] = tiles
    return spread


def _tiles(
    counts: np.ndarray, size: np.ndarray, sentences: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """The position of each tile's first row and its sentence, sentences in `order`: [tiles, 5].

    counts: [sentences], the tiles of each sentence; size: [sentences], their rows; sentences:
    [sentences, 4], the first query, the number of queries, the first key and the number of keys.
    """
    counts = counts[order]
    before = np.repeat(np.cumsum(counts) - counts, counts)
    ids = np.repeat(order, counts)
    first = (np.arange(len(ids)) - before) * size[ids]
    return np.concatenate([first[:, None], sentences[ids]], axis=1)


def _covers(q: Array, kv: Array | None = None, *, heads: int, d_k: int, **_: Any) -> bool:
    keys = q if kv is None else kv
    width = heads * (2 * d_k if kv is None else d_k)
    return (
        q.dtype == keys.dtype
        and d_k <= _MOST_COLUMNS
        and (keys.shape[1] - width) // heads <= _MOST_COLUMNS
        and is_contiguous(q)
        and is_contiguous(keys)
    )


@attention.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_attention(
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
    device, empty = device_of(q), backend_of(q).empty
    source = q if kv is None else kv
    key_column = heads * d_k if kv is None else 0
    value_column = key_column + heads * d_k
    d_v = (source.shape[1] - value_column) // heads
    layout = plan(backend_of(q), sentences, key_sentences or sentences)
    behind, ahead = (r if r < EVERYWHERE else -1 for r in reach_of(causal, window))
    constants = {
        "D_K": d_k,
        "D_V": d_v,
        "BEHIND": behind,
        "AHEAD": ahead,
        "DROPOUT": int(site is not None),
        "REAL_BYTES": q.itemsize,
    }
    tiled = q.itemsize == 2 and d_k in _WIDTHS and d_v in _WIDTHS
    common: dict[str, Any] = {
        "factor": 1 / math.sqrt(d_k),
        "mask": mask_of(site),
        "tokens": layout.tokens,
    }
    k_row, v_row = 2 * (d_k + 8), 2 * (d_v + 8)  # bytes of shared memory

    def matrix(x: Array, column: int = 0) -> tuple[int, int]:
        """The part of a matrix from a column on, as a pointer and a stride."""
        return x.data.ptr + x.itemsize * column, x.shape[1]

    def launch_tiles(
        name: str, size: int, tiles: Array, count: int | Blocks, row: int, **arguments: Any
    ) -> None:
        """One block per tile and head, with `row` bytes of shared memory for each of its rows."""
        grid, chosen = (count, heads), {**constants, "TILE_ROWS": size}
        device.launch(
            *("attention", chosen, name, grid, 2 * size, row * size), tiles=tiles, **arguments
        )

    def launch_warps(name: str, rows: int, **arguments: Any) -> None:
        """One warp per row and head."""
        grid = (blocks(rows, _WARPS), heads)
        device.launch(
            *("warp_attention", constants, name, grid, 32 * _WARPS),
            starts=layout.starts,
            key_starts=layout.key_starts,
            **arguments,
        )

    y = empty((len(q), heads * d_v), q.dtype)
    log_sum_exp = empty((heads, len(q)), FLOAT32)
    # Queries, keys and values are in one matrix or in two.
    common |= {
        "q": matrix(q),
        "k": matrix(source, key_column),
        "v": matrix(source, value_column),
        "log_sum_exp": log_sum_exp,
    }
    if tiled:
        row = max(k_row, v_row) + k_row + v_row
        for size, tiles, _, _, (count, _, _) in layout.tiles:
            launch_tiles("attention", size, tiles, count, row, **common, y=matrix(y))
    else:
        ids = layout.sentence_ids
        launch_warps("warp_attention", layout.tokens, **common, sentence_ids=ids, y=matrix(y))

    def vjp(dy: Array) -> Any:
        dy = contiguous(dy)
        dq = empty(q.shape, q.dtype)
        dsource = dq if kv is None else empty(source.shape, source.dtype)
        of_keys: dict[str, Any] = {
            "dk": matrix(dsource, key_column),
            "dv": matrix(dsource, value_column),
        }
        of_queries = {**common, "y": matrix(y), "dy": matrix(dy), "dq": matrix(dq)}
        if tiled:
            row = 2 * (k_row + v_row)
            for size, _, tiles, more, (_, count, of_more) in layout.tiles:
                with_scores, name = row + 2 * (size + 8), "attention_gradient"
                launch_tiles(name, size, tiles, count, with_scores, **of_queries, **of_keys)
                launch_tiles("attention_query_gradient", size, more, of_more, row, **of_queries)
        else:
            along = empty((heads, len(q)), FLOAT32)
            of_queries |= {"sentence_ids": layout.sentence_ids, "along": along}
            launch_warps("warp_query_gradient", layout.tokens, **of_queries)
            key_ids = layout.key_sentence_ids
            of_keys |= {"key_sentence_ids": key_ids, "along": along, "keys": layout.keys}
            launch_warps("warp_key_gradient", layout.keys, **common, dy=matrix(dy), **of_keys)
        return dq if kv is None else (dq, dsource)

    return y, vjp
