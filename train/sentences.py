"""Sentences of token ids as two arrays, and pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npformer.packed import Packed


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences of token ids, in two arrays.

    `tokens` is [total], unsigned; `offsets` is [sentences + 1], int64: sentence i is
    tokens[offsets[i] : offsets[i + 1]]. Begin and end ids are left out.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int]]) -> Sentences:
        """Sentences in memory."""
        packed = Packed.of(sentences)
        return cls(packed.tokens, packed.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[Any]:
        """The token ids of sentence i, a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"there is no sentence {i} among {len(self)}")
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[sentences]: token ids of each."""
        return np.diff(self.offsets)

    def take(self, indices: NDArray[np.integer[Any]]) -> Packed:
        """The sentences at `indices` [n], in that order: Packed, int32."""
        lengths = self.lengths[indices]
        # Token k of the result lies as far into its sentence as k is beyond the sentence's start.
        shifts = self.offsets[:-1][indices] - (np.cumsum(lengths) - lengths)
        positions = np.arange(lengths.sum()) + np.repeat(shifts, lengths)
        return Packed(self.tokens[positions].astype(np.int32), lengths)


@dataclass(frozen=True, eq=False)
class ParallelTokens:
    """Pairs of sentences as token ids: sources[i] and targets[i] are a pair."""

    sources: Sentences
    targets: Sentences

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources, but {len(self.targets)} targets")

    @classmethod
    def of(
        cls, sources: Iterable[Sequence[int]], targets: Iterable[Sequence[int]]
    ) -> ParallelTokens:
        """Pairs in memory."""
        return cls(Sentences.of(sources), Sentences.of(targets))

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
