"""Parallel text in blocks of consecutive pairs, which are read and encoded at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import zip_longest

from npformer.errors import UserError
from train.corpora.text import TextFile, decode_lines, open_text

LINES = 4096  # of a block at most: some hundred kilobytes, and a tenth of a second to encode
_BYTES = 1 << 24  # on both sides together, after which a block ends early


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a file and of its translation, as they are in the files.

    first: the number of the first line, from 1. lines: how many there are on each side.
    """

    source_file: str
    target_file: str
    first: int
    lines: int
    sources: bytes
    targets: bytes

    def pairs(self) -> tuple[list[str], list[str]]:
        """The source and the target of each pair. Raises UserError like `decode_lines`."""
        source, target = (
            list(decode_lines(io.BytesIO(content), name, warn=False, first=self.first))
            for content, name in (
                (self.sources, self.source_file),
                (self.targets, self.target_file),
            )
        )
        return source, target


def read_blocks(files: tuple[list[TextFile], list[TextFile]]) -> Iterator[Block]:
    """The blocks of parallel files that `survey_parallel` has found; none spans two files.

    Raises UserError if a file cannot be read, or no longer has as many lines.
    """
    for source, target in zip(*files, strict=True):
        yield from _blocks_of(source, target)


def _blocks_of(source: TextFile, target: TextFile) -> Iterator[Block]:
    def block() -> Block:
        ours, theirs = (b"".join(side) for side in zip(*pairs, strict=True))
        return Block(source.name, target.name, first, len(pairs), ours, theirs)

    pairs: list[tuple[bytes, bytes]] = []
    first, size = 1, 0
    with open_text(source.readable) as sources, open_text(target.readable) as targets:
        for left, right in zip_longest(sources, targets):
            if left is None or right is None:
                raise _changed(source, target)
            pairs.append((left, right))
            size += len(left) + len(right)
            if len(pairs) == LINES or size >= _BYTES:
                yield block()
                first += len(pairs)
                pairs, size = [], 0
    if pairs:
        yield block()
    if first + len(pairs) - 1 != source.lines:
        raise _changed(source, target)


def _changed(source: TextFile, target: TextFile) -> UserError:
    return UserError(
        f"{source.name} or {target.name} has changed while it was read: they no longer have "
        f"{source.lines:,} lines each; prepare the corpus again"
    )


def pair_hash(source: str, target: str) -> bytes:
    """16 bytes by which a pair is known: no two pairs of any corpus have the same by chance."""
    return blake2b(f"{source}\n{target}".encode(), digest_size=16).digest()


SHARED = ("sources", "targets", "pairs")
"""What validation text may share with training text."""


def shared_hashes(source: str, target: str) -> tuple[bytes, bytes, bytes]:
    """The hashes of a source, of a target and of their pair, in the order of SHARED."""
    sides = {b"source": source, b"target": target}
    ours, theirs = (
        blake2b(line.encode(), digest_size=16, person=side).digest() for side, line in sides.items()
    )
    return ours, theirs, pair_hash(source, target)
