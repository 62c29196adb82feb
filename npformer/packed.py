"""Packed sentences: laid end to end without padding, the form of every batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences, to_host
from autograd.backend import Array, backend, backend_of
from autograd.checks import are_rows


@dataclass(frozen=True, eq=False)
class Packed:
    """Sentences laid end to end, and where each begins and ends.

    Attributes:
        tokens: [total], the token ids of all sentences, or [total, ...], a value for each token;
            an array of any backend
        sentences: where each begins and ends; may be given as their lengths
        order: [total], the tokens in a stable sort by id, if the gradient of an embedding needs it

    Raises TypeError or ValueError if the lengths are not valid, or do not add up to `total`.
    """

    tokens: Array
    sentences: Sentences
    order: Array | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sentences, Sentences):
            object.__setattr__(self, "sentences", Sentences(self.sentences))
        rows, total = self.sentences.rows, self.tokens.shape[0]
        if rows != total:
            raise ValueError(f"the lengths add up to {rows}, but there are {total} tokens")

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int] | NDArray[Any]]) -> Packed:
        """Pack sentences of token ids, as int32 in NumPy."""
        arrays = [_as_ids(sentence) for sentence in sentences]
        lengths = Sentences([len(array) for array in arrays])
        return cls(np.concatenate([np.empty(0, np.int32), *arrays]), lengths)

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.sentences)

    def __getitem__(self, i: int) -> Array:
        """The tokens of sentence i, a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"there is no sentence {i} among {len(self)}")
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[Array]:
        """The tokens of each sentence, as views."""
        for begin, end in pairwise(self.offsets.tolist()):
            yield self.tokens[begin:end]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[sentences] in NumPy: the number of tokens of each."""
        return self.sentences.lengths

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[sentences + 1] in NumPy: sentence i is tokens[offsets[i] : offsets[i + 1]]."""
        return self.sentences.offsets

    @property
    def position_ids(self) -> Array:
        """[total], int32: the position of each token in its sentence, on the tokens' backend."""
        return self.sentences.position_ids(backend_of(self.tokens))

    def to(self, name: str, *, embedded: bool = False) -> Packed:
        """The same sentences, with tokens and position ids on the backend of this name.

        embedded: whether a model will look up the embeddings of the tokens; then `order` is
        prepared, if the backend needs it.
        """
        target = backend(name)
        self.sentences.position_ids(target)
        if backend_of(self.tokens) is target:
            return self
        order = target.prepare_embedding(to_host(self.tokens)) if embedded else None
        return Packed(target.asarray(self.tokens), self.sentences, order)

    def take(self, indices: NDArray[np.integer[Any]]) -> Packed:
        """The sentences at indices: [n], in that order, as int32. For tokens in NumPy."""
        taken = Sentences(self.lengths_of(indices))
        # How far each sentence lies from where it was.
        shifts = self.offsets[indices] - taken.offsets[:-1]
        tokens = self.tokens[np.arange(taken.rows) + np.repeat(shifts, taken.lengths)]
        return Packed(tokens.astype(np.int32), taken)

    def lengths_of(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """[n]: the number of tokens of the sentences at indices: [n], counted from 0.

        Unlike `lengths`, it makes no array of all lengths, which may be many. Raises TypeError
        unless indices are integers, and IndexError if there is no such sentence.
        """
        are_rows("Packed: indices", indices, indices.shape, "[n]", len(self))
        return self.offsets[1:][indices] - self.offsets[:-1][indices]

    def check_ids(self, count: int, what: str, rows: int | None = None) -> None:
        """Raise ValueError unless all tokens are ids from 0 to count - 1; `what` is for messages.

        With `rows`, only that many tokens from the first on are meant. Tokens on a GPU are not
        checked, because that would wait for it.
        """
        ids = self.tokens[:rows]
        if not isinstance(ids, np.ndarray) or ids.size == 0:
            return
        if ids.dtype.kind not in "iu":
            raise ValueError(f"the ids of {what} must be integers, got {ids.dtype}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= count:
            raise ValueError(
                f"{what} has the id {low if low < 0 else high:,}; those of the model's vocabulary "
                f"are 0 to {count - 1:,}"
            )


def pack(padded: Array, lengths: Any) -> Packed:
    """Remove the padding: padded [batch, length, ...] and lengths [batch] to Packed [total, ...].

    Sentence i is padded[i, : lengths[i]]. Raises ValueError if the lengths do not fit `padded`.
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
    """Pad at the end: Packed [total, ...] to padded [batch, longest, ...] and lengths [batch].

    The padded array is new, with the backend and dtype of `packed.tokens`, and holds `pad_id`
    after the end of each sentence.
    """
    longest = packed.sentences.longest
    is_token = _is_token(packed.lengths, longest)
    # Padding reads token 0 and is then overwritten: indexing works on arrays of any backend.
    positions = np.where(is_token, packed.offsets[:-1, None] + np.arange(longest), 0)
    padded = packed.tokens[backend_of(packed.tokens).asarray(positions)]
    padded[_where(~is_token, padded)] = pad_id
    return padded, packed.lengths


def _is_token(lengths: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """[batch, length]: true where a padded batch holds a token."""
    return np.arange(length) < lengths[:, None]


def _where(condition: NDArray[np.bool_], array: Array) -> tuple[Array, ...]:
    """The indices where `condition` is true, on the backend of `array`."""
    target = backend_of(array)
    return tuple(target.asarray(indices) for indices in np.nonzero(condition))


def _as_ids(sentence: Sequence[int] | NDArray[Any]) -> NDArray[np.int32]:
    given = np.asarray(sentence)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(f"a sentence must be integers [tokens], got {sentence!r}")
    ids = given.astype(np.int32)
    if not np.array_equal(ids, given):
        raise ValueError(f"a sentence must be integers of 32 bits, got {sentence!r}")
    return ids
