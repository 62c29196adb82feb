"""Sentence pairs as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences
from npformer.packed import Packed
from train.corpora.arrays import let_go

_AT_A_TIME = 1 << 20  # pairs


@dataclass(frozen=True, eq=False)
class ParallelTokens:
    """Sentence pairs as token ids, without begin and end ids: (sources[i], targets[i])."""

    sources: Packed
    targets: Packed

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources, but {len(self.targets)} targets")

    @classmethod
    def of(
        cls, sources: Iterable[Sequence[int]], targets: Iterable[Sequence[int]]
    ) -> ParallelTokens:
        """Pack pairs of token id sequences."""
        return cls(Packed.of(sources), Packed.of(targets))

    @classmethod
    def joined(cls, parts: Iterable[ParallelTokens]) -> ParallelTokens:
        """The pairs of all parts, in their order."""
        sources, targets = zip(*((part.sources, part.targets) for part in parts), strict=True)
        return cls(_joined(sources), _joined(targets))

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.sources)

    def source(self, i: int) -> NDArray[Any]:
        """The source token ids of pair i, a view."""
        return self.sources[i]

    def target(self, i: int) -> NDArray[Any]:
        """The target token ids of pair i, a view."""
        return self.targets[i]

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """[pairs]: the number of source tokens of each."""
        return self.sources.lengths

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """[pairs]: the number of target tokens of each."""
        return self.targets.lengths

    def let_go(self) -> None:
        """Drop from memory what was read of a corpus on the disk."""
        for side in (self.sources, self.targets):
            let_go(side.tokens, side.offsets)

    @cached_property
    def longest(self) -> dict[str, tuple[int, int]]:
        """By side, "source" and "target": the most tokens of a sentence, and the first such pair.

        Found a part of the corpus at a time, because the lengths of all pairs may be large.
        """
        found = {"source": _longest(self.sources), "target": _longest(self.targets)}
        self.let_go()
        return found


def _joined(parts: Sequence[Packed]) -> Packed:
    lengths = Sentences(np.concatenate([part.lengths for part in parts]))
    return Packed(np.concatenate([part.tokens for part in parts]), lengths)


def _longest(side: Packed) -> tuple[int, int]:
    most, pair = 0, 0
    for begin in range(0, len(side), _AT_A_TIME):
        lengths = np.diff(side.offsets[begin : begin + _AT_A_TIME + 1])
        if lengths.max() > most:
            most, pair = int(lengths.max()), begin + int(lengths.argmax())
    return most, pair
