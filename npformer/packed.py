"""Sentences laid end to end: the form that every batch has, with no padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences
from autograd.backend import Array, backend, backend_of


@dataclass(frozen=True, eq=False)
class Packed:
    """The concatenation of some sentences, and where each begins and ends.

    `tokens` is [total], the ids of all sentences, or [total, ...], a value for each token; it may
    be an array of any backend. `sentences` may be given as their lengths.

    Raises TypeError or ValueError for what cannot be lengths, and where they do not add up to
    `total`.
    """

    tokens: Array
    sentences: Sentences

    def __post_init__(self) -> None:
        if not isinstance(self.sentences, Sentences):
            object.__setattr__(self, "sentences", Sentences(self.sentences))
        rows, total = self.sentences.rows, self.tokens.shape[0]
        if rows != total:
            raise ValueError(f"the lengths add up to {rows}, but there are {total} tokens")

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int] | NDArray[Any]]) -> Packed:
        """Pack sentences of ids: int32, NumPy."""
        arrays = [_as_ids(sentence) for sentence in sentences]
        lengths = Sentences([len(array) for array in arrays])
        return cls(np.concatenate([np.empty(0, np.int32), *arrays]), lengths)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.sentences)

    def __getitem__(self, i: int) -> Array:
        """The part of `tokens` that is sentence i, a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"there is no sentence {i} among {len(self)}")
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[Array]:
        """Each sentence's part of `tokens`, as views."""
        for begin, end in pairwise(self.offsets.tolist()):
            yield self.tokens[begin:end]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[sentences], NumPy: tokens of each."""
        return self.sentences.lengths

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[sentences + 1], NumPy: sentence i is tokens[offsets[i] : offsets[i + 1]]."""
        return self.sentences.offsets

    @property
    def position_ids(self) -> Array:
        """The position of each token within its sentence, int32 [total], where the tokens are."""
        return self.sentences.position_ids(backend_of(self.tokens))

    def to(self, name: str) -> Packed:
        """The same sentences with their tokens, and the positions of these, on a backend."""
        owner = backend(name)
        self.sentences.position_ids(owner)
        is_there = backend_of(self.tokens) is owner
        return self if is_there else Packed(owner.asarray(self.tokens), self.sentences)

    def take(self, indices: NDArray[np.integer[Any]]) -> Packed:
        """The sentences at `indices` [n], in that order: ids of NumPy, as int32."""
        taken = Sentences(self.lengths[indices])
        # Token k of the result lies as far into its sentence as k is beyond the sentence's start.
        shifts = self.offsets[:-1][indices] - taken.offsets[:-1]
        tokens = self.tokens[np.arange(taken.rows) + np.repeat(shifts, taken.lengths)]
        return Packed(tokens.astype(np.int32), taken)

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


def pack(padded: Array, lengths: Any) -> Packed:
    """Drop the padding: [batch, length, ...] and [batch] lengths to Packed([total, ...]).

    Sentence i is the first lengths[i] entries of row i. Raises ValueError where the lengths do not
    fit `padded`.
    """
    sentences = Sentences(lengths)
    batch, length = padded.shape[:2]
    if len(sentences) != batch or sentences.longest > length:
        raise ValueError(
            f"{len(sentences)} lengths up to {sentences.longest} do not fit "
            f"a padded batch of {batch} sentences of {length} tokens"
        )
    return Packed(padded[_where(_is_token(sentences.lengths, length), padded)], sentences)


def unpack(packed: Packed, pad_id: float = 0) -> tuple[Array, NDArray[np.int64]]:
    """Pad at the end: Packed([total, ...]) to [batch, longest, ...] and [batch] lengths.

    The array is fresh, and of the backend and dtype of `packed.tokens`; places after a sentence's
    end hold `pad_id`.
    """
    longest = packed.sentences.longest
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


def _as_ids(sentence: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    given = np.asarray(sentence)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"a sentence must be whole numbers [tokens], not {sentence!r}")
    return given.astype(np.int32)
