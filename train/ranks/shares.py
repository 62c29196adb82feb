"""How the sentences of a training step are shared out over ranks.

A step is that of one process, whatever the number of ranks: the same batches in the same order.
They lie on a line, each of length 1, which is cut into as many equal pieces as there are ranks.
So with as many ranks as batches each rank computes one of them as a whole, and with more ranks a
batch is divided, between sentences, into shares of about equally many tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from npformer.batch import Batch
from train.corpora.batches import Batches, Indices, Place, Planned


@dataclass(frozen=True)
class Part:
    """Where some batches stand in a training step that other ranks share.

    Attributes:
        rows: of each batch, the source and the target tokens of the step before it, on which the
            masks of dropout depend
        target_tokens: of the whole step
    """

    rows: Sequence[tuple[int, int]]
    target_tokens: int

    @classmethod
    def whole(cls, batches: Sequence[Batch]) -> Part:
        """All of a step."""
        sizes = [(batch.source_tokens, batch.target_tokens) for batch in batches]
        ends = np.cumsum([(0, 0), *sizes], axis=0).tolist()
        return cls([(source, target) for source, target in ends[:-1]], ends[-1][1])


class Step(NamedTuple):
    """What a rank computes of a step, and the place in the data after it.

    There may be no batches for a rank if the step has few sentences.
    """

    batches: list[Batch]
    part: Part
    place: Place


def steps(
    batches: Batches, place: Place, accumulate: int = 1, rank: int = 0, size: int = 1
) -> Iterator[Step]:
    """The steps of `accumulate` batches each from a place on, without end, as `rank` of `size`."""
    coming = batches.planned_from(place)
    while True:
        yield _step(batches, list(islice(coming, accumulate)), rank, size)


def _step(batches: Batches, planned: list[Planned], rank: int, size: int) -> Step:
    built: list[Batch] = []
    rows: list[tuple[int, int]] = []
    source_rows = target_rows = 0  # of the batches before this one
    for k, (parallel, indices, _) in enumerate(planned):
        # What each sentence takes: its tokens and its end.
        sources = parallel.sources.lengths_of(indices) + 1
        targets = parallel.targets.lengths_of(indices) + 1
        # On the line, in units of 1/size, this batch begins at k * size, and rank r's piece at
        # r * len(planned).
        begin, end = (
            _cut(sources + targets, r * len(planned) - k * size, size) for r in (rank, rank + 1)
        )
        if begin < end:
            built.append(batches.build(parallel, indices[begin:end]))
            before = int(sources[:begin].sum()), int(targets[:begin].sum())
            rows.append((source_rows + before[0], target_rows + before[1]))
        source_rows += int(sources.sum())
        target_rows += int(targets.sum())
    return Step(built, Part(rows, target_rows), planned[-1].place)


def _cut(tokens: Indices, numerator: int, denominator: int) -> int:
    """The sentence at which this share of a batch ends: 0 for none of it, or all for 1 and more.

    tokens: [sentences], of each. A sentence belongs to where its middle lies.
    """
    if numerator <= 0:
        return 0
    if numerator >= denominator:
        return len(tokens)
    ends = np.cumsum(tokens)
    doubled_middles = 2 * ends - tokens
    return int(np.searchsorted(doubled_middles * denominator, 2 * ends[-1] * numerator))
