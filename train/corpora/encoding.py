"""Turns blocks of text into token ids: what the processes of `prepare` do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npformer.tokenizer import TokenizerPair
from train.corpora.arrays import ids_dtype
from train.corpora.blocks import Block, shared_hashes
from train.corpora.filters import Filters

EXAMPLES = 5  # of each reason why pairs are dropped
_SHOWN = 100  # characters of an example's text


class Task(NamedTuple):
    """A block to encode: of which split, and [lines] which pairs repeat earlier ones, if known."""

    split: str
    block: Block
    duplicates: NDArray[np.bool_] | None = None


class Side(NamedTuple):
    """Sentences of one language: their token ids, packed, and the length of each."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int64]


@dataclass
class Dropped:
    """Pairs that were dropped for one reason: how many, and the first ones, as in a manifest."""

    count: int = 0
    examples: list[dict[str, str | int]] = field(default_factory=list)

    def add(self, other: Dropped) -> None:
        """Add those of a later block."""
        self.count += other.count
        self.examples += other.examples[: EXAMPLES - len(self.examples)]


class Encoded(NamedTuple):
    """A block as token ids.

    lines: how many pairs the block had. dropped: by reason. found: the hashes looked for that are
    among those of the pairs which were kept. text: of these pairs, if it is kept too.
    """

    lines: int
    source: Side
    target: Side
    dropped: dict[str, Dropped]
    found: set[bytes]
    text: tuple[list[str], list[str]] | None


class Encoder:
    """Filters and encodes blocks.

    tokenizers: the contents of their files
    filters: by split. wanted: `shared_hashes` to look for. keep_text: whether to return the text.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, bytes],
        filters: dict[str, Filters],
        wanted: frozenset[bytes],
        keep_text: bool,
    ) -> None:
        self._tokenizers = TokenizerPair.of_contents(tokenizers)
        self._filters = filters
        self._wanted = wanted
        self._keep_text = keep_text

    def __call__(self, task: Task) -> Encoded:
        split, block, duplicates = task
        filters = self._filters[split]
        sources, targets = block.pairs()
        again = [False] * block.lines if duplicates is None else duplicates.tolist()
        reasons = [filters.of_text(*pair) for pair in zip(sources, targets, again, strict=True)]
        chosen = [i for i, reason in enumerate(reasons) if reason is None]
        source_ids, target_ids = (
            tokenizer.encode_lines([lines[i] for i in chosen], threads=1)
            for tokenizer, lines in (
                (self._tokenizers.source, sources),
                (self._tokenizers.target, targets),
            )
        )
        source_lengths, target_lengths = _lengths(source_ids), _lengths(target_ids)
        kept = np.ones(len(chosen), bool)
        for reason, is_dropped in filters.of_lengths(source_lengths, target_lengths):
            for i in np.flatnonzero(is_dropped & kept).tolist():
                reasons[chosen[i]] = reason
            kept &= ~is_dropped
        left = [i for i, reason in enumerate(reasons) if reason is None]
        hashes: set[bytes] = set()
        if self._wanted:
            hashes.update(*(shared_hashes(sources[i], targets[i]) for i in left))
        return Encoded(
            block.lines,
            _side(source_ids, source_lengths, kept, self._tokenizers.source.vocab_size),
            _side(target_ids, target_lengths, kept, self._tokenizers.target.vocab_size),
            _dropped(block, sources, targets, reasons),
            hashes & self._wanted,
            ([sources[i] for i in left], [targets[i] for i in left]) if self._keep_text else None,
        )


def _lengths(sentences: list[list[int]]) -> NDArray[np.int64]:
    return np.fromiter(map(len, sentences), np.int64, len(sentences))


def _side(
    sentences: list[list[int]],
    lengths: NDArray[np.int64],
    kept: NDArray[np.bool_],
    vocab_size: int,
) -> Side:
    lengths = lengths[kept]
    ids = chain.from_iterable(sentences[i] for i in np.flatnonzero(kept).tolist())
    return Side(np.fromiter(ids, ids_dtype(vocab_size), int(lengths.sum())), lengths)


def _dropped(
    block: Block, sources: list[str], targets: list[str], reasons: list[str | None]
) -> dict[str, Dropped]:
    found: dict[str, Dropped] = {}
    for i, reason in enumerate(reasons):
        if reason is not None:
            dropped = found.setdefault(reason, Dropped())
            dropped.count += 1
            if len(dropped.examples) < EXAMPLES:
                example: dict[str, str | int] = {
                    "file": block.source_file,
                    "line": block.first + i,
                    "source": _shown(sources[i]),
                    "target": _shown(targets[i]),
                }
                dropped.examples.append(example)
    return found


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
