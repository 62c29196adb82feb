"""Which tokens translate which: IBM Model 1 (Brown et al., 1993), by expectation maximisation.

A target token comes from one of the source tokens of its pair, or from none, with the same
probability each, and is then drawn from the distribution of that source token:

    p(target | source) = Π over target tokens f of Σ over source tokens e of t(f | e) / (l + 1)

where l is the length of the source, and one more e stands for "none".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npformer.packed import Packed

# At a time there are as many numbers in memory: of t(f | e) for some target tokens and all source
# tokens, and of links between the two tokens of a pair.
_CELLS = 1 << 22
_LINKS = 1 << 20


class Lexicon(NamedTuple):
    """The probabilities t(f | e) of target tokens f, given source tokens e.

    Attributes:
        targets: [entries], int32, token ids, ascending
        sources: [entries], int32, token ids; the size of the source vocabulary stands for none
        probabilities: [entries], float32
    """

    targets: NDArray[np.int32]
    sources: NDArray[np.int32]
    probabilities: NDArray[np.float32]


def learn_lexicon(
    sources: Packed,
    targets: Packed,
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    iterations: int = 5,
    least: float = 0.0,
    progress: Callable[[float], object] = lambda log_p: None,
) -> Lexicon:
    """The lexicon that makes these pairs likely; sources and targets: token ids, without ends.

    The first iteration begins with equal probabilities, and each makes the pairs likelier.
    `progress` is called with the log-likelihood per target token, in nats, that each begins with.
    least: smaller probabilities are left out after every iteration, which saves memory; those
    given no source token stay.

    The time is proportional to the links, of each target token to each source token of its pair.
    Memory is needed for the pairs and the lexicon, and little more. The same pairs give the same
    lexicon. Raises ValueError if the numbers of sentences differ, or ids are not in a vocabulary.
    """
    sources.check_ids(source_vocab_size, "a source sentence")
    targets.check_ids(target_vocab_size, "a target sentence")
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources, but {len(targets)} targets")
    links = _Links(sources, targets, source_vocab_size, target_vocab_size)
    blocks = [links.equal_block(b) for b in range(links.blocks)]
    for _ in range(iterations):
        log_p, expected = zip(*map(links.expected, range(links.blocks), blocks), strict=True)
        totals = np.zeros(links.columns)
        for (cells, _), counts in zip(blocks, expected, strict=True):
            totals += np.bincount(cells % links.columns, counts, links.columns)
        for b, ((cells, _), counts) in enumerate(zip(blocks, expected, strict=True)):
            columns = cells % links.columns
            t = (counts / totals[columns]).astype(np.float32)
            stays = (t >= least) | (columns == source_vocab_size)
            blocks[b] = _Block(cells[stays], t[stays])
        progress(sum(log_p) / max(1, len(targets.tokens)))
    return links.lexicon(blocks)


class _Block(NamedTuple):
    """A part of t: a sparse matrix of some target tokens and all source tokens.

    cells: [n], the places in the flat matrix that are not 0, ascending; t: [n], what is there
    """

    cells: NDArray[np.int32]
    t: NDArray[np.float32]


class _Links:
    """The links between the two tokens of a pair, in blocks of target tokens.

    What is expected of t(f | e) depends on other source tokens, but on no other target token. So
    the blocks are computed one after the other.
    """

    def __init__(
        self, sources: Packed, targets: Packed, source_vocab_size: int, target_vocab_size: int
    ) -> None:
        self.columns = source_vocab_size + 1  # the last one is no source token
        self._height = max(1, min(_CELLS // self.columns, target_vocab_size))
        self._vocab_size = target_vocab_size
        self.blocks = -(-target_vocab_size // self._height)
        # The source token "none" precedes each sentence.
        self._sources = np.insert(
            sources.tokens.astype(np.int32), sources.offsets[:-1], source_vocab_size
        )
        self._lengths = sources.lengths + 1
        self._starts = sources.offsets[:-1] + np.arange(len(sources))
        # The target tokens in the order of their ids, and the pair of each.
        order = np.argsort(targets.tokens, kind="stable")
        self._targets = targets.tokens[order].astype(np.int32)
        self._pairs = np.repeat(np.arange(len(targets), dtype=np.int32), targets.lengths)[order]
        self._bounds = np.searchsorted(
            self._targets, np.arange(self.blocks + 1) * self._height
        ).tolist()

    def equal_block(self, b: int) -> _Block:
        """Block b of t with equal probabilities of what occurs together."""
        occurs = np.zeros(self._height * self.columns, bool)
        for cells, _ in self._cells_and_lengths(b):
            occurs[cells] = True
        found = np.flatnonzero(occurs).astype(np.int32)
        return _Block(found, np.full(len(found), 1 / self._vocab_size, np.float32))

    def expected(self, b: int, block: _Block) -> tuple[float, NDArray[np.float64]]:
        """log p of the target tokens of block b, and how often each of its links is expected."""
        t = np.concatenate([[0.0], block.t])
        entry = np.zeros(self._height * self.columns, np.int32)  # 0 is what was left out
        entry[block.cells] = np.arange(1, len(t))
        counts, log_p = np.zeros(len(t)), 0.0
        for cells, lengths in self._cells_and_lengths(b):
            entries = entry[cells]
            p = t[entries]
            sums = np.add.reduceat(p, lengths.cumsum() - lengths)
            log_p += float(np.log(sums / lengths).sum())
            counts += np.bincount(entries, p / sums.repeat(lengths), len(t))
        return log_p, counts[1:]

    def _cells_and_lengths(self, b: int) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """For the target tokens of block b, some at a time, the cells of their links.

        cells: [links], those of a target token side by side; lengths: how many each token has
        """
        for begin, end in self._parts(self._bounds[b], self._bounds[b + 1]):
            pairs = self._pairs[begin:end]
            lengths = self._lengths[pairs]
            ends = lengths.cumsum()
            shifts = self._starts[pairs] - (ends - lengths)
            where = np.arange(ends[-1]) + shifts.repeat(lengths)
            rows = (self._targets[begin:end] - b * self._height) * self.columns
            yield rows.repeat(lengths) + self._sources[where], lengths

    def _parts(self, begin: int, last: int) -> Iterator[tuple[int, int]]:
        """Target tokens from `begin` to `last`, in parts with few links each."""
        done = self._lengths[self._pairs[begin:last]].cumsum()
        first = begin
        while begin < last:
            before = done[begin - first - 1] if begin > first else 0
            end = first + int(np.searchsorted(done, before + _LINKS, "right"))
            end = max(end, begin + 1)
            yield begin, end
            begin = end

    def lexicon(self, blocks: list[_Block]) -> Lexicon:
        """The numbers of all blocks."""
        rows, columns = zip(*(np.divmod(b.cells, self.columns) for b in blocks), strict=True)
        targets = [row + b * self._height for b, row in enumerate(rows)]
        return Lexicon(
            np.concatenate(targets).astype(np.int32),
            np.concatenate(columns).astype(np.int32),
            np.concatenate([block.t for block in blocks]),
        )
