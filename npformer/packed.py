"""Sentences laid end to end: the form that every batch has, with no padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograd.backend import Array, backend, backend_of


@dataclass(frozen=True, eq=False)
class Packed:
    """The concatenation of some sentences, and how long each is.

    `tokens` is [total], the ids of all sentences, or [total, ...], a value for each token; it may
    be an array of any backend. `lengths` is [sentences], int64 and always NumPy's, since where
    sentences begin and end decides what is launched, on whatever device. A sentence may be empty.

    Raises ValueError unless the lengths are whole, not negative, and add up to `total`.
    """

    tokens: Array
    lengths: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = _as_lengths(self.lengths)
        total = self.tokens.shape[0]
        if lengths.sum() != total:
            raise ValueError(f"the lengths add up to {lengths.sum()}, but there are {total} tokens")
        object.__setattr__(self, "lengths", lengths)

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int] | NDArray[Any]]) -> Packed:
        """Pack sentences of ids: int32, NumPy."""
        arrays = [_as_ids(sentence) for sentence in sentences]
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int32), *arrays]), lengths)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.lengths)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """[sentences + 1], NumPy: sentence i is tokens[offsets[i] : offsets[i + 1]]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @cached_property
    def places(self) -> Array:
        """The position of each token within its sentence, int32 [total], where the tokens are."""
        positions = np.arange(len(self.tokens)) - np.repeat(self.offsets[:-1], self.lengths)
        return backend_of(self.tokens).asarray(positions.astype(np.int32))

    @property
    def longest(self) -> int:
        """The length of the longest sentence; 0 where there is none."""
        return int(self.lengths.max(initial=0))

    def to(self, name: str) -> Packed:
        """The same sentences with their tokens on the backend `name`."""
        owner = backend(name)
        is_there = backend_of(self.tokens) is owner
        return self if is_there else Packed(owner.asarray(self.tokens), self.lengths)

    def check_ids(self, count: int, what: str) -> None:
        """Raises ValueError unless all tokens on the host are ids below `count`.

        Those on a device are not looked at, for that would wait for it.
        """
        ids = self.tokens
        if not isinstance(ids, np.ndarray) or ids.size == 0:
            return
        if ids.dtype.kind not in "iu":
            raise ValueError(f"{what} has ids, which are whole numbers, and not {ids.dtype}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= count:
            raise ValueError(
                f"{what} has the id {low if low < 0 else high:,}; those of the model's vocabulary "
                f"are 0 to {count - 1:,}"
            )

    def sentences(self) -> list[Array]:
        """Each sentence's part of `tokens`, as views."""
        return [self.tokens[begin:end] for begin, end in pairwise(self.offsets.tolist())]


def pack(padded: Array, lengths: Any) -> Packed:
    """Drop the padding: [batch, length, ...] and [batch] lengths to Packed([total, ...]).

    Sentence i is the first lengths[i] entries of row i. Raises ValueError where the lengths do not
    fit `padded`.
    """
    lengths = _as_lengths(lengths)
    batch, length = padded.shape[:2]
    if len(lengths) != batch or lengths.max(initial=0) > length:
        raise ValueError(
            f"{len(lengths)} lengths up to {lengths.max(initial=0)} do not fit "
            f"a padded batch of {batch} sentences of {length} tokens"
        )
    return Packed(padded[_where(_is_token(lengths, length), padded)], lengths)


def unpack(packed: Packed, pad_id: float = 0) -> tuple[Array, NDArray[np.int64]]:
    """Pad at the end: Packed([total, ...]) to [batch, longest, ...] and [batch] lengths.

    The array is fresh, and of the backend and dtype of `packed.tokens`; places after a sentence's
    end hold `pad_id`.
    """
    longest = int(packed.lengths.max(initial=0))
    is_token = _is_token(packed.lengths, longest)
    # Padding reads token 0 and is overwritten: indexing alone works on an array of any backend.
    positions = np.where(is_token, packed.offsets[:-1, None] + np.arange(longest), 0)
    padded = packed.tokens[backend_of(packed.tokens).asarray(positions)]
    padded[_where(~is_token, padded)] = pad_id
    return padded, packed.lengths


def _is_token(lengths: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """[batch, length]: where a padded batch holds tokens."""
    return np.arange(length) < lengths[:, None]


def _where(condition: NDArray[np.bool_], array: Array) -> tuple[Array, ...]:
    """The index of the places where `condition` holds, as arrays of the backend of `array`."""
    owner = backend_of(array)
    return tuple(owner.asarray(indices) for indices in np.nonzero(condition))


def _as_lengths(lengths: Any) -> NDArray[np.int64]:
    """A read-only copy as int64 [sentences]. Raises ValueError for what cannot be lengths."""
    given = np.asarray(lengths)
    # An empty list has no integer dtype of its own.
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"lengths must be whole numbers [sentences], not {lengths!r}")
    copy = given.astype(np.int64)
    if copy.min(initial=0) < 0:
        raise ValueError(f"a sentence cannot have {copy.min()} tokens")
    copy.flags.writeable = False
    return copy


def _as_ids(sentence: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    given = np.asarray(sentence)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"a sentence must be whole numbers [tokens], not {sentence!r}")
    return given.astype(np.int32)
