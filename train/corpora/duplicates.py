"""Finds the repeated pairs of a corpus, in memory that does not grow with it.

Pairs are known by their hashes. These are divided by their bits into files, small enough that the
hashes of one fit into memory; equal pairs are in the same file, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.corpora.blocks import Block, pair_hash

_IN_MEMORY = 1 << 19  # hashes: some 60 MB as a set of Python's
_MOST_FILES = 256  # open at once
_RECORD = np.dtype([("hash", "V16"), ("pair", "<i8")])
SPACE = _RECORD.itemsize + 1  # bytes on the disk for each pair


def find_duplicates(
    blocks: Iterable[Block], pairs: int, folder: Path, advance: Callable[[int], None]
) -> NDArray[np.bool_]:
    """[pairs], mapped from a file in `folder`: true for each pair that equals an earlier one.

    advance: called with the number of pairs read so far.
    """
    parts = min(_MOST_FILES, -(-pairs // _IN_MEMORY))
    paths = [folder / f"hashes.{part}" for part in range(parts)]
    done = 0
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for block in blocks:
            advance(done)
            records = np.empty(block.lines, _RECORD)
            hashes = [pair_hash(*pair) for pair in zip(*block.pairs(), strict=True)]
            records["hash"] = np.frombuffer(b"".join(hashes), "V16")
            records["pair"] = np.arange(done, done + block.lines)
            part_of = np.frombuffer(b"".join(hashes), "<u8")[::2] % np.uint64(parts)
            for part, file in enumerate(files):
                file.write(records[part_of == part].tobytes())
            done += block.lines
    with open(folder / "duplicates", "wb") as file:
        # A file with holes would end the process where it is written to and the disk is full.
        for begin in range(0, pairs, _IN_MEMORY):
            file.write(bytes(min(_IN_MEMORY, pairs - begin)))
    found = np.memmap(folder / "duplicates", np.bool_, "r+", shape=(pairs,))
    for path in paths:
        seen: set[bytes] = set()
        with open(path, "rb") as records_of_part:
            while content := records_of_part.read(_RECORD.itemsize << 16):
                for digest, pair in np.frombuffer(content, _RECORD).tolist():
                    if digest in seen:
                        found[pair] = True
                    seen.add(digest)
        path.unlink()
    return found
