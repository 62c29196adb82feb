"""Batches of sentence pairs of similar lengths, with a budget of tokens (section 5.1).

The order of an epoch never holds the corpus in memory. The corpus is divided into blocks of
consecutive pairs. An epoch puts the blocks into a random order and takes them a window at a time;
within a window, pairs of similar lengths become batches, and the batches are shuffled. A window
depends on nothing before it, so training can start at any of them. A corpus of one window, half a
million pairs, is shuffled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from npformer.batch import Batch
from npformer.errors import UserError
from train.corpora.sentences import ParallelTokens

Indices = NDArray[np.int64]
"""[pairs]: indices of sentence pairs."""

# A change of either changes the order of all epochs of corpora with more than one window.
BLOCK = 1 << 10  # pairs: enough that they are read from the disk in one go
WINDOW = 1 << 19  # pairs: planned in half a second, and in some 50 MB


class Place(NamedTuple):
    """A place in the data: after `batch` batches of a window of an epoch."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


class Planned(NamedTuple):
    """A batch that is not built yet: `indices` [pairs] of `parallel`, and the place after it."""

    parallel: ParallelTokens
    indices: Indices
    place: Place


class _Window(NamedTuple):
    """A part of an epoch: pairs, and the indices among them of each batch, in training order."""

    parallel: ParallelTokens
    plan: list[Indices]


class Batches:
    """The batches of a parallel corpus, epoch after epoch.

    A batch has at most `tokens` source tokens and at most `tokens` target tokens, including the
    end of each sentence. Its sentences have similar lengths on both sides. An epoch has every pair
    exactly once, in an order that depends only on the seed and the epoch, on any machine.

    block, window: the numbers of pairs in a block, and at most in a window. sample: gives other
    token ids for pairs in an epoch, block by block, whose lengths then decide the batches; see
    `Sampler`. split: which pairs these are, for messages.

    Raises UserError if a single pair exceeds the budget.
    """

    def __init__(
        self,
        parallel: ParallelTokens,
        *,
        tokens: int = 4096,
        begin_id: int,
        end_id: int,
        source_end_id: int | None = None,
        seed: int = 0,
        block: int = BLOCK,
        window: int = WINDOW,
        sample: Callable[[int, Indices], Iterator[ParallelTokens]] | None = None,
        split: str = "training",
    ) -> None:
        self.parallel = parallel
        self.tokens = tokens
        self.begin_id = begin_id
        self.end_id = end_id
        self.source_end_id = source_end_id
        self.seed = seed
        self._sample = sample
        self._block = block
        self._blocks = _ceil(len(parallel), block)
        self.windows = max(1, _ceil(self._blocks, max(1, window // block)))
        self._block_order = lru_cache(maxsize=1)(self._shuffled_blocks)
        for side, (length, pair) in parallel.longest.items():
            if length + 1 > tokens:
                raise UserError(
                    f"{split} pair {pair + 1:,} of the corpus has {length + 1:,} {side} tokens, "
                    f"more than a batch may have: raise batch_tokens, which is {tokens:,}, or "
                    f"prepare the corpus with a max_length of {max(tokens - 1, 1)} or less"
                )

    def plan(self, epoch: int) -> list[Indices]:
        """The indices of the pairs in each batch of an epoch (0, 1, ...), in training order.

        It holds the whole epoch: some 16 bytes a pair.
        """
        return list(chain.from_iterable(self.plan_window(epoch, w) for w in range(self.windows)))

    def plan_window(self, epoch: int, window: int) -> list[Indices]:
        """The indices of the pairs in each batch of one window of an epoch, in training order.

        They are counted within the window if its pairs are sampled.
        """
        return self._window(epoch, window).plan

    def batch(self, indices: Indices) -> Batch:
        """The batch of the pairs `indices`, with their usual token ids."""
        return self.build(self.parallel, indices)

    def epoch(self, epoch: int) -> Epoch:
        """The batches of an epoch (0, 1, ...), built when they are accessed. Nothing is sampled."""
        return Epoch(self, self.plan(epoch))

    def planned_from(self, place: Place) -> Iterator[Planned]:
        """Batches without end, from a place on.

        Only the windows that are reached are planned. What is sampled is sampled one window ahead,
        a share with each batch, so that other processes work on it meanwhile. A `batch` beyond the
        window counts on into the next ones.
        """
        epoch, window, batch = place
        sampled = self._sampled(epoch, window)
        while True:
            parallel, plan = self._window(epoch, window, sampled)
            following = (epoch, window + 1) if window + 1 < self.windows else (epoch + 1, 0)
            sampled = self._sampled(*following)
            ahead: list[ParallelTokens] = []
            share = _ceil(_ceil(self._blocks, self.windows), max(1, len(plan) - batch))
            for done, indices in enumerate(plan[batch:], start=batch + 1):
                yield Planned(parallel, indices, Place(epoch, window, done))
                ahead += islice(sampled, share)
            sampled = chain(ahead, sampled)
            batch = max(0, batch - len(plan))
            epoch, window = following

    def batch_after(self, epoch: int, window: int, pairs: int) -> int:
        """The first batch of a window that has at least `pairs` pairs of it before it.

        So a run continues at the same share of the window with another budget of tokens.
        """
        before = np.cumsum([0, *map(len, self.plan_window(epoch, window))])
        return int(np.searchsorted(before, pairs))

    def _sampled(self, epoch: int, window: int) -> Iterator[ParallelTokens]:
        """The pairs of a window with other token ids, block by block; empty if nothing is sampled.

        Nothing is done before they are asked for.
        """
        if self._sample is None:
            return iter(())
        return self._sample(epoch, self._pairs_in(epoch, window))

    def _window(
        self, epoch: int, window: int, sampled: Iterator[ParallelTokens] | None = None
    ) -> _Window:
        """A window, planned; sampled: what `_sampled` gives for it."""
        self.parallel.let_go()  # what the window before has read
        random = self._random(epoch, window)
        pairs = self._pairs_in(epoch, window)
        parallel = self.parallel
        if self._sample is not None:
            parallel = ParallelTokens.joined(sampled or self._sampled(epoch, window))
            pairs = np.arange(len(parallel))
        # What each pair takes of the budgets: its tokens and the end.
        source_sizes = parallel.sources.lengths_of(pairs) + 1
        target_sizes = parallel.targets.lengths_of(pairs) + 1
        order = _by_lengths(source_sizes, target_sizes, self.tokens, random)
        bounds = _cut(source_sizes[order], target_sizes[order], self.tokens)
        shuffled = np.argsort(random.random_raw(len(bounds) - 1), kind="stable")
        ordered = pairs[order]
        return _Window(parallel, [ordered[bounds[k] : bounds[k + 1]] for k in shuffled.tolist()])

    def build(self, parallel: ParallelTokens, indices: Indices) -> Batch:
        """The batch of the pairs `indices` of `parallel`, as `planned_from` gives them."""
        return Batch.of_packed(
            parallel.sources.take(indices),
            parallel.targets.take(indices),
            begin_id=self.begin_id,
            end_id=self.end_id,
            source_end_id=self.source_end_id,
        )

    def _random(self, epoch: int, *stream: int) -> np.random.Philox:
        """Random numbers of an epoch, for its window or its order of blocks.

        A corpus of one window draws from the stream of the epoch itself.
        """
        key = () if self.windows == 1 else stream
        return np.random.Philox(np.random.SeedSequence([self.seed, epoch], spawn_key=key))

    def _shuffled_blocks(self, epoch: int) -> Indices:
        """[blocks]: the random order of an epoch's blocks."""
        words = self._random(epoch, self.windows).random_raw(self._blocks)
        return np.argsort(words, kind="stable").astype(np.int64)

    def _pairs_in(self, epoch: int, window: int) -> Indices:
        """[pairs]: the pairs of a window of an epoch."""
        if self.windows == 1:
            return np.arange(len(self.parallel))
        bounds = [self._blocks * w // self.windows for w in (window, window + 1)]
        first = self._block_order(epoch)[slice(*bounds)] * self._block
        pairs = (first[:, None] + np.arange(self._block)).ravel()
        return pairs[pairs < len(self.parallel)]


class Epoch(Sequence[Batch]):
    """The batches of one epoch, a lazy sequence.

    epoch[k:] begins at batch k, without building those before it.
    """

    def __init__(self, batches: Batches, plan: list[Indices]) -> None:
        self.batches = batches
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, k: int) -> Batch: ...

    @overload
    def __getitem__(self, k: slice) -> Epoch: ...

    def __getitem__(self, k: int | slice) -> Batch | Epoch:
        if isinstance(k, slice):
            return Epoch(self.batches, self.plan[k])
        return self.batches.batch(self.plan[k])

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batches.batch, self.plan)


def _ceil(number: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-number // divisor)


def _by_lengths(
    source_sizes: Indices, target_sizes: Indices, tokens: int, random: np.random.Philox
) -> Indices:
    """[pairs]: a random order in which neighbours have similar lengths on both sides.

    The pairs are sorted by target length and divided into strips of equally many tokens. Each
    strip is sorted by source length, alternately up and down, so that source lengths do not jump
    between strips. There are about as many strips as batches per strip, so that the lengths within
    a batch vary about as little on one side as on the other.
    """
    sizes = np.maximum(source_sizes, target_sizes)
    strips = max(1, round(float(np.sqrt(sizes.sum() / tokens))))
    by_target = np.argsort(_blurred(target_sizes, random), kind="stable")
    fill = np.cumsum(sizes[by_target])
    strip = np.empty(len(sizes), np.int64)
    strip[by_target] = (fill - 1) * strips // max(int(sizes.sum()), 1)
    by_source = _blurred(source_sizes, random)
    return np.lexsort((np.where(strip % 2, -by_source, by_source), strip)).astype(np.int64)


def _blurred(sizes: Indices, random: np.random.Philox) -> NDArray[np.float64]:
    """Lengths plus random noise of up to a tenth and one token, so that batches differ by epoch.

    The noise is made from the raw stream of the bit generator. NumPy guarantees that stream across
    versions, but not the methods of `Generator`, and the order must not depend on the version.
    """
    uniform = (random.random_raw(len(sizes)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    lengths = sizes.astype(np.float64)
    return lengths + uniform * (1 + 0.1 * lengths)


def _cut(source_sizes: Indices, target_sizes: Indices, tokens: int) -> list[int]:
    """[batches + 1]: the bounds of batches, each as long as both budgets allow."""
    source_ends, target_ends = np.cumsum(source_sizes), np.cumsum(target_sizes)
    bounds, source_done, target_done = [0], 0, 0
    while bounds[-1] < len(source_sizes):
        end = min(
            int(np.searchsorted(source_ends, source_done + tokens, side="right")),
            int(np.searchsorted(target_ends, target_done + tokens, side="right")),
        )
        bounds.append(end)
        source_done, target_done = int(source_ends[end - 1]), int(target_ends[end - 1])
    return bounds
