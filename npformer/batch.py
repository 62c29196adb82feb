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

FILLER = 16  # tokens of a filler, at most: the smallest tile of attention's kernels has as many
NO_TARGET = -1  # of a filler's tokens; see ops.projected_cross_entropy


@dataclass(frozen=True, eq=False)
class Batch:
    """Sentence pairs, packed, as int32 token ids.

    Attributes:
        source: the source sentences, each followed by the end id
        target_input: what the decoder reads: the target sentences, each preceded by the begin id
        target_output: what it must predict: the target sentences, each followed by the end id
        fillers: how many of the last pairs are there only to fill up the batch, without targets;
            see `filled`

    target_output[k] is the token that follows target_input[k].
    """

    source: Packed
    target_input: Packed
    target_output: Packed
    fillers: int = 0

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
        """The number of pairs, without fillers."""
        return len(self.source) - self.fillers

    def filled(self, source_tokens: int, target_tokens: int) -> Batch:
        """This batch, of NumPy's arrays, with as many tokens of both sides, by fillers at its end.

        So batches of many sizes become batches of few. Fillers are short sentences that repeat the
        batch's first tokens, and have no targets: they change no loss, no gradient and no count,
        and no other row's dropout. Raises ValueError if the batch has more tokens.
        """
        sizes = [(source_tokens, self.source), (target_tokens, self.target_input)]
        missing = [tokens - packed.sentences.rows for tokens, packed in sizes]
        if min(missing) < 0:
            raise ValueError(
                f"a batch of {self.source.sentences.rows} source and "
                f"{self.target_input.sentences.rows} target tokens cannot be filled up to "
                f"{source_tokens} and {target_tokens}"
            )
        count = -(-max(missing) // FILLER)
        source, target = (
            _longer(packed, more, count) for (_, packed), more in zip(sizes, missing, strict=True)
        )
        outputs = np.full(missing[1], NO_TARGET, self.target_output.tokens.dtype)
        output = Packed(np.append(self.target_output.tokens, outputs), target.sentences)
        return Batch(source, target, output, self.fillers + count)

    def to(self, backend: str) -> Batch:
        """The same batch on a backend, with what attention computes from lengths prepared."""
        batch = Batch(
            self.source.to(backend, embedded=True),
            self.target_input.to(backend, embedded=True),
            self.target_output.to(backend),
            self.fillers,
        )
        batch.attention_plans()
        return batch

    def attention_plans(self) -> list[Any]:
        """What `Backend.prepare_attention` gives for each attention of a model."""
        source, target = self.source.sentences, self.target_input.sentences
        pairs = ((source, source), (target, target), (target, source))
        prepare = backend_of(self.source.tokens).prepare_attention
        return [prepare(queries, keys) for queries, keys in pairs]

    @property
    def source_tokens(self) -> int:
        """The number of source tokens, without fillers."""
        return int(self.source.offsets[len(self)])

    @property
    def target_tokens(self) -> int:
        """The number of tokens to predict."""
        return int(self.target_output.offsets[len(self)])


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


def _longer(packed: Packed, tokens: int, count: int) -> Packed:
    """The sentences, and behind them `count` more of so many tokens, some of them empty."""
    lengths = np.clip(tokens - FILLER * np.arange(count), 0, FILLER)
    more = np.resize(packed.tokens, tokens)
    sentences = Sentences(np.append(packed.lengths, lengths), recurring=True)
    return Packed(np.append(packed.tokens, more), sentences)


def ended(packed: Packed, end_id: int) -> Packed:
    """Each sentence with `end_id` after it."""
    return _with_one_more(packed, end_id, packed.offsets[1:])


def _begun(packed: Packed, begin_id: int) -> Packed:
    """Each sentence with `begin_id` before it."""
    return _with_one_more(packed, begin_id, packed.offsets[:-1])


def _with_one_more(packed: Packed, new_id: int, rows: NDArray[Any]) -> Packed:
    """Each sentence with `new_id` inserted before its row of `rows` [sentences]."""
    return Packed(np.insert(packed.tokens, rows, new_id), Sentences(packed.lengths + 1))
