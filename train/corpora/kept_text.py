"""The training text that a corpus keeps on request, line by line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npformer.reading import refusals_told
from train.corpora.arrays import OFFSETS, ArrayWriter, check_offsets, open_array

FILES = [f"train.{side}.{kind}" for side in ("source", "target") for kind in ("txt", "lines.npy")]
"""The files of a kept text: the lines of each side, and where each begins, in bytes."""


@dataclass(frozen=True, eq=False)
class KeptText:
    """The lines of one side of the training text: bytes of UTF-8, and where each begins and ends.

    Line i is the text of pair i of the corpus.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, directory: Path, side: str, lines: int) -> KeptText:
        """Map the text of a side. Raises UserError if its files do not fit the number of lines."""
        path, places = directory / f"train.{side}.txt", directory / f"train.{side}.lines.npy"
        offsets = open_array(places, OFFSETS, lines + 1)
        check_offsets(places, lines + 1, path.stat().st_size)
        with refusals_told(path):
            return cls(np.asarray(np.memmap(path, np.uint8, "r")), offsets)

    def lines(self, begin: int, end: int) -> list[str]:
        """Lines `begin` to `end`, without line ends."""
        content = self.text[self.offsets[begin] : self.offsets[end]].tobytes()
        return content.decode().split("\n")[:-1]


class KeptTextWriter:
    """Writes the text of one side in pieces."""

    def __init__(self, directory: Path, side: str) -> None:
        self._file = open(directory / f"train.{side}.txt", "wb")  # noqa: SIM115, closed by __exit__
        self._offsets = ArrayWriter(directory / f"train.{side}.lines.npy", OFFSETS)
        self._offsets.append([0])
        self._size = 0

    def append(self, lines: list[str]) -> None:
        """Add lines, which have no line ends."""
        encoded = [line.encode() + b"\n" for line in lines]
        self._file.writelines(encoded)
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._offsets.append(self._size + np.cumsum(sizes))
        self._size += int(sizes.sum())

    def __enter__(self) -> KeptTextWriter:
        return self

    def __exit__(self, *details: Any) -> None:
        with self._file:
            self._offsets.__exit__(*details)
            self._file.flush()
            os.fsync(self._file.fileno())
