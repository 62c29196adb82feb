"""attention of packed sentences: on tensor cores in bfloat16, otherwise one warp per query."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from autograd.backend import Array, Backend, backend_of
from autograd.cuda.device import (
    FLOAT32,
    Blocks,
    blocks,
    contiguous,
    device_of,
    is_contiguous,
)
from autograd.cuda.mask import mask_of
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.packed_attention import EVERYWHERE, attention, reach_of
from autograd.sentences import Sentences
from autograd.tape import running_tape

# Queries in a block of attention.cu: as many as a sentence needs, or several blocks of the last.
_TILES = (16, 32, 48, 64)
# Queries and keys in a block of attention_gradient.cu: all of a sentence. Longer sentences have
# several blocks of the last of _TILES, in long_attention_gradient.cu.
_WHOLE = (*_TILES, 96, 128)
_MOST_TILES = 65_535  # of a launch: the most that the grid's second axis has
_WIDTHS = range(16, 129, 16)  # of a head that attention.cu supports
_WARPS = 4  # of a block of warp_attention.cu
_MOST_COLUMNS = 1024  # of a head that warp_attention.cu keeps in registers


class _Tiles(NamedTuple):
    """Blocks of queries or keys: [tiles, 8], the fields of Tile in attention_tiles.cuh.

    `there` is how many there are. There may be room for more, with zeros: tiles without a sentence.
    """

    tiles: Array
    there: int | Blocks


class _Longer(NamedTuple):
    """The blocks of sentences that are too long for one: tiles of their queries and their keys."""

    queries: _Tiles
    keys: _Tiles


class _Plan(NamedTuple):
    """The layout of the sentences, on the device.

    starts and key_starts: [sentences + 1] are the first rows of the sentences; sentence_ids:
    [tokens] and key_sentence_ids: [keys] the sentence of each row. tokens and keys are the numbers
    of rows.

    `queries` has tiles by their size, and `whole` has whole sentences, by the size that they fit
    into; both have only sizes that occur. `longer` has the sentences that are longer than a size.

    All arrays are parts of `flat`. Of sentences that recur they have room for more: the plans of
    many have one `layout`, so that one can take another one's place. A sentence that is not there
    ends where it begins. counts: how many tiles there are, group by group. built: for which
    constants kernels have been asked for.
    """

    starts: Array
    key_starts: Array
    sentence_ids: Array
    key_sentence_ids: Array
    queries: dict[int, _Tiles]
    whole: dict[int, _Tiles]
    longer: dict[int, _Longer]
    tokens: int
    keys: int
    flat: Array
    layout: tuple[int, ...]
    counts: np.ndarray
    built: set[tuple[int, ...]]

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
    longest = np.maximum(n, m)
    sizes = np.searchsorted(_WHOLE, longest)  # [sentences], indices into _WHOLE, or one beyond it
    last = len(_TILES) - 1  # the size of tiles of all longer sentences, too
    rows = np.array(_TILES)[np.minimum(sizes, last)]  # [sentences], of a tile
    numbers = (
        -(-n // rows),
        np.where(sizes > last, -(-m // rows), 0),
        np.where(sizes < len(_WHOLE), np.minimum(longest, 1), 0),
    )
    sentences = np.stack([queries.offsets[:-1], n, keys.offsets[:-1], m], axis=1)
    by_size = np.argsort(sizes, kind="stable")
    of_queries, of_keys, of_whole = (_tiles(x, rows, sentences, by_size) for x in numbers)
    # [sizes + 1] for each kind: where the tiles of sentences of each size begin.
    in_queries, in_keys, in_whole = (
        np.cumsum([0, *np.bincount(sizes, x, len(_WHOLE))]).astype(int) for x in numbers
    )
    # The groups that are launched together: queries by size, whole sentences by size, and for each
    # size from the last one on the queries and the keys of sentences that are longer.
    groups = [
        *(of_queries[in_queries[i] : in_queries[i + 1]] for i in range(last)),
        of_queries[in_queries[last] :],
        *(of_whole[in_whole[i] : in_whole[i + 1]] for i in range(len(_WHOLE))),
    ]
    for i in range(last, len(_WHOLE)):
        groups += of_queries[in_queries[i + 1] :], of_keys[in_keys[i + 1] :]
    counts = np.array([len(group) for group in groups])
    room, count = counts, len(n)
    if queries.recurring:
        *most, count = _room_for(max(queries.rows, keys.rows), counts, len(n)).tolist()
        room = np.minimum(np.maximum(counts, _MOST_TILES), most)
    # One copy to the device for all of them, tiles first, for they need to be aligned.
    lists = [
        *(np.pad(x, ((0, k - len(x)), (0, 0))) for x, k in zip(groups, room, strict=True)),
        *(np.pad(x.offsets, (0, count - len(n)), mode="edge") for x in (queries, keys)),
        np.repeat(np.arange(len(n)), n),
        np.repeat(np.arange(len(m)), m),
    ]
    flat = backend.asarray(np.concatenate([x.reshape(-1) for x in lists]).astype(np.int32))
    ends = np.cumsum([x.size for x in lists])
    parts = [flat[end - x.size : end].reshape(x.shape) for x, end in zip(lists, ends, strict=True)]
    *arrays, starts, key_starts, ids, key_ids = parts
    tiles = [
        _Tiles(
            x, Blocks(counts, i, len(x)) if queries.recurring and len(x) <= _MOST_TILES else len(x)
        )
        for i, x in enumerate(arrays)
    ]
    whole, longer = tiles[len(_TILES) :], tiles[len(_TILES) + len(_WHOLE) :]
    return _Plan(
        *(starts, key_starts, ids, key_ids),
        {size: found for size, found in zip(_TILES, tiles, strict=False) if found.there},
        {size: found for size, found in zip(_WHOLE, whole, strict=False) if found.there},
        {
            size: _Longer(*pair)
            for size, *pair in zip(_WHOLE[last:], longer[::2], longer[1::2], strict=True)
        },
        queries.rows,
        keys.rows,
        flat,
        (queries.rows, keys.rows, count, *room.tolist()),
        counts,
        set(),
    )


_room = np.zeros(0, np.int64)
_OF_TILE = 0.4  # that a sentence fills of a tile, if there are many of one size


def _room_for(rows: int, counts: np.ndarray, sentences: int) -> np.ndarray:
    """Room for tiles and sentences, at least as many as there are: [groups + 1].

    It is that of all sentences before, and at first rather too much, so that there are few layouts.
    Room that is not used costs little: a part of a copy that nothing waits for.
    """
    global _room
    needed = np.append(counts, sentences)
    known = _room if len(_room) else np.zeros_like(needed)
    if (needed > known).any():
        sizes = (*_TILES, *_WHOLE, *[_WHOLE[-1]] * (len(counts) - len(_TILES) - len(_WHOLE)))
        most = np.append(rows / (_OF_TILE * np.array(sizes)), rows / 4)
        more = 1 << np.frexp(np.maximum(needed, most))[1]  # the next power of two
        known = _room = np.maximum(known, more)
    return known


def _tiles(
    counts: np.ndarray, rows: np.ndarray, sentences: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """The sentence of each tile and the position of its first row, sentences in `order`.

    counts: [sentences], the tiles of each sentence; rows: [sentences], those of a tile; sentences:
    [sentences, 4], the first query, the number of queries, the first key and the number of keys.
    Returns [tiles, 8], whose last three columns are unused.
    """
    counts = counts[order]
    before = np.repeat(np.cumsum(counts) - counts, counts)
    ids = np.repeat(order, counts)
    tiles = np.zeros((len(ids), 8), np.int64)
    tiles[:, :4] = sentences[ids]
    tiles[:, 4] = (np.arange(len(ids)) - before) * rows[ids]
    return tiles


def shared_bytes(file: str, size: int, d_k: int, d_v: int) -> int:
    """The shared memory of a block with `size` queries or keys, in bytes of bfloat16."""
    k_row, v_row = d_k + 8, d_v + 8
    if file == "attention":
        return 2 * size * (max(k_row, v_row) + k_row + v_row)
    return 2 * size * (2 * k_row + 2 * v_row + max(2 * size + 8, v_row))


def _kernels(layout: _Plan, largest: int) -> Iterator[tuple[str, int]]:
    """The kernels that a plan needs, by source and rows of a tile: its gradient's on a tape."""
    yield from (("attention", size) for size in layout.queries)
    if running_tape() is not None:
        yield from (("attention_gradient", size) for size in layout.whole if size <= largest)
        if layout.longer[largest].keys.there:
            yield "long_attention_gradient", _TILES[-1]


@functools.cache
def _largest(limit: int, d_k: int, d_v: int) -> int:
    """The largest of _WHOLE whose blocks need no more shared memory than `limit` bytes."""
    return max(s for s in _WHOLE if shared_bytes("attention_gradient", s, d_k, d_v) <= limit)


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

    def matrix(x: Array, column: int = 0) -> tuple[int, int]:
        """The part of a matrix from a column on, as a pointer and a stride."""
        return x.data.ptr + x.itemsize * column, x.shape[1]

    def launch_tiles(file: str, name: str, size: int, of: _Tiles, **arguments: Any) -> None:
        """One block per tile and head."""
        if type(of.there) is int and of.there > _MOST_TILES:
            for i in range(0, of.there, _MOST_TILES):
                part = of.tiles[i : i + _MOST_TILES]
                launch_tiles(file, name, size, _Tiles(part, len(part)), **arguments)
            return
        grid, chosen = (heads, of.there), {**constants, "TILE_ROWS": size}
        shared = shared_bytes(file, size, d_k, d_v)
        device.launch(*(file, chosen, name, grid, 2 * size, shared), tiles=of.tiles, **arguments)

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
        if (built := tuple(constants.values())) not in layout.built:
            layout.built.add(built)  # all at once, and not each when it is first launched
            kernels = _kernels(layout, _largest(device.shared_bytes, d_k, d_v))
            device.build((file, {**constants, "TILE_ROWS": size}) for file, size in kernels)
        for size, tiles in layout.queries.items():
            launch_tiles("attention", "attention", size, tiles, **common, y=matrix(y))
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
            largest = _largest(device.shared_bytes, d_k, d_v)
            name, both = "attention_gradient", {**of_queries, **of_keys}
            for size, tiles in layout.whole.items():
                if size <= largest:
                    launch_tiles(name, name, size, tiles, **both)
            longer, name, size = layout.longer[largest], "long_attention_gradient", _TILES[-1]
            if longer.keys.there:
                del both["dq"]
                launch_tiles(name, "attention_key_gradient", size, longer.keys, **both)
            if longer.queries.there:
                launch_tiles(name, "attention_query_gradient", size, longer.queries, **of_queries)
        else:
            along = empty((heads, len(q)), FLOAT32)
            of_queries |= {"sentence_ids": layout.sentence_ids, "along": along}
            launch_warps("warp_query_gradient", layout.tokens, **of_queries)
            key_ids = layout.key_sentence_ids
            of_keys |= {"key_sentence_ids": key_ids, "along": along, "keys": layout.keys}
            launch_warps("warp_key_gradient", layout.keys, **common, dy=matrix(dy), **of_keys)
        return dq if kv is None else (dq, dsource)

    return y, vjp
