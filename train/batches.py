"""Batches of sentence pairs of similar lengths, with a budget of tokens (section 5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from npformer.batch import Batch
from npformer.errors import UserError
from train.sentences import ParallelTokens

Indices = NDArray[np.int64]
"""[pairs]: indices of sentence pairs."""


class Batches:
    """The batches of a parallel corpus, epoch after epoch.

    A batch has at most `tokens` source tokens and at most `tokens` target tokens, including the
    end of each sentence. Its sentences have similar lengths on both sides. An epoch has every pair
    exactly once, in an order that depends only on the seed and the epoch, on any machine.

    Raises UserError if a single pair exceeds the budget.
    """

    def __init__(
        self,
        parallel: ParallelTokens,
        *,
        tokens: int = 4096,
        begin_id: int,
        end_id: int,
        seed: int = 0,
    ) -> None:
        self.parallel = parallel
        self.tokens = tokens
        self.begin_id = begin_id
        self.end_id = end_id
        self.seed = seed
        # What each pair takes of the budgets: its tokens and the end.
        self._source_sizes = parallel.source_lengths + 1
        self._target_sizes = parallel.target_lengths + 1
        for side, sizes in (("source", self._source_sizes), ("target", self._target_sizes)):
            if sizes.max(initial=0) > tokens:
                pair = int(sizes.argmax())
                raise UserError(
                    f"pair {pair + 1} of the corpus has {sizes[pair]} {side} tokens, more than a "
                    f"batch may have ({tokens}): raise the tokens of a batch, or prepare the "
                    f"corpus with a max_length of {max(tokens - 1, 1)} or less"
                )

    def plan(self, epoch: int) -> list[Indices]:
        """The indices of the pairs in each batch of an epoch (0, 1, ...), in training order."""
        random = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        order = _by_lengths(self._source_sizes, self._target_sizes, self.tokens, random)
        bounds = _cut(self._source_sizes[order], self._target_sizes[order], self.tokens)
        shuffled = np.argsort(random.random_raw(len(bounds) - 1), kind="stable")
        return [order[bounds[k] : bounds[k + 1]] for k in shuffled.tolist()]

    def batch(self, indices: Indices) -> Batch:
        """The batch of the pairs `indices`."""
        return Batch.of_packed(
            self.parallel.sources.take(indices),
            self.parallel.targets.take(indices),
            begin_id=self.begin_id,
            end_id=self.end_id,
        )

    def epoch(self, epoch: int) -> Epoch:
        """The batches of an epoch (0, 1, ...), built when they are accessed."""
        return Epoch(self, self.plan(epoch))


class Epoch(Sequence[Batch]):
    """The batches of one epoch, a lazy sequence.

    epoch[k:] resumes at batch k without building those before it. epoch[rank::ranks] is the share
    of one of several processes.
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
