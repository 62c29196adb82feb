"""Batches of sentence pairs, the input of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences
from autograd.backend import backend_of
from npformer.packed import Packed


@dataclass(frozen=True, eq=False)
class Batch:
    """Sentence pairs, packed, as int32 token ids.

    Attributes:
        source: the source sentences, each followed by the end id
        target_input: what the decoder reads: the target sentences, each preceded by the begin id
        target_output: what it must predict: the target sentences, each followed by the end id

    target_output[k] is the token that follows target_input[k].
    """

    source: Packed
    target_input: Packed
    target_output: Packed

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target_input) or not np.array_equal(
            self.target_input.lengths, self.target_output.lengths
        ):
            raise ValueError(
                "each source sentence needs a target, whose input and output have one length"
            )
        # What is derived from the sentences is derived once for both.
        output = Packed(self.target_output.tokens, self.target_input.sentences)
        object.__setattr__(self, "target_output", output)

    @classmethod
    def of(
        cls,
        sources: Iterable[Sequence[int]],
        targets: Iterable[Sequence[int]],
        *,
        begin_id: int,
        end_id: int,
        source_end_id: int | None = None,
    ) -> Batch:
        """A batch of sentences of token ids, without begin and end ids.

        source_end_id: of the source's vocabulary, if it is another one
        """
        return cls.of_packed(
            Packed.of(sources),
            Packed.of(targets),
            begin_id=begin_id,
            end_id=end_id,
            source_end_id=source_end_id,
        )

    @classmethod
    def of_packed(
        cls,
        sources: Packed,
        targets: Packed,
        *,
        begin_id: int,
        end_id: int,
        source_end_id: int | None = None,
    ) -> Batch:
        """A batch of packed token ids (NumPy), without begin and end ids; otherwise as `of`."""
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources, but {len(targets)} targets")
        source_end_id = end_id if source_end_id is None else source_end_id
        return cls(ended(sources, source_end_id), _begun(targets, begin_id), ended(targets, end_id))

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.source)

    def to(self, backend: str) -> Batch:
        """The same batch on a backend, with what attention computes from lengths prepared."""
        batch = Batch(
            self.source.to(backend, embedded=True),
            self.target_input.to(backend, embedded=True),
            self.target_output.to(backend),
        )
        source, target = self.source.sentences, self.target_input.sentences
        for queries, keys in ((source, source), (target, target), (target, source)):
            backend_of(batch.source.tokens).prepare_attention(queries, keys)
        return batch

    @property
    def target_tokens(self) -> int:
        """The number of tokens to predict."""
        return self.target_output.sentences.rows


def batches_of_similar_length(sentences: Sequence[Sized], tokens: int) -> Iterator[list[int]]:
    """Batches of indices of sentences, longest first, without empty sentences.

    A batch has at most `tokens` tokens when padded to its longest sentence with its end; a longer
    sentence gets a batch of its own.
    """
    sizes = np.array([len(s) for s in sentences], np.int64)
    order = np.argsort(-sizes, kind="stable")
    batch: list[int] = []
    for i in order[sizes[order] > 0].tolist():
        if batch and (len(batch) + 1) * (sizes[batch[0]] + 1) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def ended(packed: Packed, end_id: int) -> Packed:
    """Each sentence with `end_id` after it."""
    return _with_one_more(packed, end_id, packed.offsets[1:])


def _begun(packed: Packed, begin_id: int) -> Packed:
    """Each sentence with `begin_id` before it."""
    return _with_one_more(packed, begin_id, packed.offsets[:-1])


def _with_one_more(packed: Packed, new_id: int, rows: NDArray[Any]) -> Packed:
    """Each sentence with `new_id` inserted before its row of `rows` [sentences]."""
    return Packed(np.insert(packed.tokens, rows, new_id), Sentences(packed.lengths + 1))
