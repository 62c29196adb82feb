"""Arrays of a prepared corpus: .npy files, written in pieces and memory-mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from npformer.errors import UserError
from npformer.reading import open_plain, refusals_told


def array_header(dtype: np.dtype[Any], length: int) -> bytes:
    """The header of a one-dimensional .npy file, in version 1.0 of the format.

    It always has the same size. So it can be rewritten in place when the length is known, and
    verified by comparison instead of parsing.
    """
    about = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + about.ljust(117).encode() + b"\n"


class ArrayWriter:
    """Writes a one-dimensional .npy file in pieces."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._length = 0
        self._file = open(path, "wb")  # noqa: SIM115, closed by __exit__
        self._file.write(array_header(dtype, 0))

    def append(self, values: Any) -> None:
        array = np.asarray(values, dtype=self._dtype)
        self._file.write(array.data)
        self._length += len(array)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._file.write(array_header(self._dtype, self._length))
            self._file.flush()
            os.fsync(self._file.fileno())


_AT_A_TIME = 1 << 20  # values to read
OFFSETS = np.dtype("<i8")


def ids_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type of a corpus's token ids: uint16 if the vocabulary fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class SentencesWriter:
    """Writes `name`.tokens.npy and `name`.offsets.npy in pieces."""

    def __init__(self, directory: Path, name: str, vocab_size: int) -> None:
        self.tokens = 0
        self._stack = ExitStack()
        self._tokens = self._stack.enter_context(
            ArrayWriter(directory / f"{name}.tokens.npy", ids_dtype(vocab_size))
        )
        self._offsets = self._stack.enter_context(
            ArrayWriter(directory / f"{name}.offsets.npy", OFFSETS)
        )
        self._offsets.append([0])

    def append(self, tokens: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        """Add sentences: their token ids, packed, and the length of each."""
        self._tokens.append(tokens)
        self._offsets.append(self.tokens + np.cumsum(lengths))
        self.tokens += len(tokens)

    def __enter__(self) -> SentencesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def check_offsets(path: Path, length: int, total: int) -> None:
    """Raise UserError unless a file of offsets, [length], begins at 0, rises, and ends at `total`.

    It is read a part at a time.
    """
    last = -1
    for part in read_array(path, OFFSETS, length):
        rises = part[0] > last and bool((part[1:] > part[:-1]).all())
        if not rises or (last < 0 and part[0] != 0):
            last = -1
            break
        last = int(part[-1])
    if last != total:
        raise UserError(f"the offsets in {path.name} are not those of sentences")


def open_array(path: Path, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    """Memory-map a file that an ArrayWriter wrote, [length].

    Raises UserError if the file is missing, or has another type or length.
    """
    with _opened(path, dtype, length) as file:
        mapped = np.memmap(file, dtype, "r", offset=file.tell(), shape=(length,))
    # As a plain array, because slicing an np.memmap takes microseconds.
    return np.asarray(mapped)


def let_go(*arrays: NDArray[Any]) -> None:
    """Drop from this process's memory what it has read of mapped arrays; others are left alone.

    Otherwise it would hold, in the end, the whole files. The system may keep them in its cache, and
    what is read again comes from there.
    """
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)


def read_array(path: Path, dtype: np.dtype[Any], length: int) -> Iterator[NDArray[Any]]:
    """Read the same file a part at a time. Unlike what is mapped, what was read is not kept."""
    with _opened(path, dtype, length) as file:
        while block := file.read(_AT_A_TIME * dtype.itemsize):
            yield np.frombuffer(block, dtype)


@contextmanager
def _opened(path: Path, dtype: np.dtype[Any], length: int) -> Iterator[BinaryIO]:
    """The file of an array, at its first value."""
    header = array_header(dtype, length)
    try:
        with refusals_told(path), open_plain(path) as file:
            if file.read(len(header)) != header:
                raise UserError(f"{path.name} does not belong to its manifest")
            if os.fstat(file.fileno()).st_size != len(header) + length * dtype.itemsize:
                raise UserError(f"{path.name} is cut short, or too long")
            yield file
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror})") from error
