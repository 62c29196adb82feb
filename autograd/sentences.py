"""Where the sentences of a packed array begin and end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autograd.backend import Array, Backend

T = TypeVar("T")

_MOST_ROWS = 1 << 53  # so that offsets do not overflow


class SealedError(RuntimeError):
    """The lengths of sentences were asked for on the host, where a replay would not ask again."""


class Sentences:
    """The sentences of a packed array, one after another, with a row for each token.

    Sentence i has the rows `offsets[i]` to `offsets[i + 1]`, and may be empty. offsets: [sentences
    + 1] and lengths: [sentences] are read-only int64 arrays of NumPy on every backend, since they
    decide what the host launches. Operations keep here what they derive from the sentences, so that
    all layers share it.

    recurring: whether sentences with as many rows come again, and what is derived from these may be
    overwritten by what is derived from those, while work is replayed.

    Raises TypeError unless lengths are a NumPy array or a list, and ValueError unless they are
    integers of 0 or more.
    """

    def __init__(self, lengths: Any, recurring: bool = False) -> None:
        if not isinstance(lengths, np.ndarray | list | tuple):
            what = type(lengths).__name__
            raise TypeError(f"lengths must be a NumPy array or a list, on the host, got {what}")
        given = np.asarray(lengths)
        # An empty list has no integer dtype of its own.
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"lengths must be integers [sentences], got {lengths!r}")
        if given.size and given.min() < 0:
            raise ValueError(f"a sentence cannot have {given.min()} tokens")
        if given.sum(dtype=np.float64) > _MOST_ROWS:
            raise ValueError("the lengths add up to more rows than any array has")
        offsets = np.zeros(len(given) + 1, np.int64)
        np.cumsum(given, out=offsets[1:])
        self._divide(offsets)
        self.recurring = recurring

    @classmethod
    def between(cls, offsets: NDArray[np.int64], recurring: bool = False) -> Sentences:
        """Sentences between these offsets, an array that must not be changed afterwards."""
        sentences = cls.__new__(cls)
        sentences._divide(offsets)
        sentences.recurring = recurring
        return sentences

    def _divide(self, offsets: NDArray[np.int64]) -> None:
        self._offsets = _read_only(offsets)
        self.rows = int(offsets[-1])
        self._lengths: NDArray[np.int64] | None = None
        self.recurring = self._is_sealed = False
        self._cache: dict[tuple[Hashable, Sentences | None], Any] = {}

    @property
    def offsets(self) -> NDArray[np.int64]:
        if self._is_sealed:
            raise SealedError("the lengths of sentences are used on the host")
        return self._offsets

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Within the block, whatever asks for the lengths on the host raises SealedError."""
        self._is_sealed = True
        try:
            yield
        finally:
            self._is_sealed = False

    def has_only(self, *kinds: str) -> bool:
        """Whether nothing but this has been derived, by what the keys begin with."""
        return all(isinstance(key, tuple) and key[0] in kinds for key, _ in self._cache)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self._offsets) - 1

    def __repr__(self) -> str:
        return f"Sentences({self.lengths.tolist()!r})"

    def __reduce__(self) -> Any:
        """Copies and pickles leave out cached values, which may be on a device."""
        return Sentences.between, (self._offsets, self.recurring)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of rows of each sentence: [sentences]."""
        offsets = self.offsets
        if self._lengths is None:
            self._lengths = _read_only(np.diff(offsets))
        return self._lengths

    @cached_property
    def longest(self) -> int:
        """The length of the longest sentence, or 0 without sentences."""
        return int(self.lengths.max(initial=0))

    def cached(self, key: Hashable, make: Callable[[], T], beside: Sentences | None = None) -> T:
        """The result of `make`, called once for each key and cached as long as this object.

        `beside` are other sentences that the result depends on.
        """
        others = None if beside is self else beside  # avoids a reference cycle
        entry = key, others
        if entry not in self._cache:
            self._cache[entry] = make()
        found: T = self._cache[entry]
        return found

    def position_ids(self, backend: Backend) -> Array:
        """The position of each token within its sentence, from 0: [rows], int32, on `backend`."""

        def make() -> Array:
            return backend.asarray(self._positions())

        return self.cached(("position ids", backend.name), make)

    def position_order(self, backend: Backend) -> Array | None:
        """The tokens in a stable sort by position: [rows], if the backend's embedding needs it."""

        def make() -> Array | None:
            return backend.prepare_embedding(self._positions())

        return self.cached(("position order", backend.name), make)

    def _positions(self) -> NDArray[np.int32]:
        positions = np.arange(self.rows) - np.repeat(self.offsets[:-1], self.lengths)
        return positions.astype(np.int32)


def are_sentences(where: str, sentences: Any, rows: int) -> None:
    """Raise TypeError unless `sentences` is a Sentences, ValueError unless it has `rows` rows."""
    if not isinstance(sentences, Sentences):
        what = type(sentences).__name__
        raise TypeError(f"{where} must be a Sentences, got {what}: write Sentences(lengths)")
    if sentences.rows != rows:
        raise ValueError(f"{where} must have {rows} rows in all, got {sentences.rows}")


def _read_only(x: NDArray[np.int64]) -> NDArray[np.int64]:
    x = x.view()
    x.flags.writeable = False
    return x
