"""Pairs of sentences as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npformer.packed import Packed


@dataclass(frozen=True, eq=False)
class ParallelTokens:
    """Pairs of sentences as token ids: sources[i] and targets[i] are a pair.

    Begin and end ids are left out.
    """

    sources: Packed
    targets: Packed

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources, but {len(self.targets)} targets")

    @classmethod
    def of(
        cls, sources: Iterable[Sequence[int]], targets: Iterable[Sequence[int]]
    ) -> ParallelTokens:
        """Pairs in memory."""
        return cls(Packed.of(sources), Packed.of(targets))

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
        """[pairs]: source token ids of each."""
        return self.sources.lengths

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """[pairs]: target token ids of each."""
        return self.targets.lengths
