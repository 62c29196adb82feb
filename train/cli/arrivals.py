"""Lines of a stream, as many at a time as have arrived."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import BinaryIO

from npformer.errors import UserError

_FIRST = 100  # lines, so that the first answers come soon; then twice as many each time
_CHARACTERS = 1 << 22  # of the lines that are held together


class ArrivingLines:
    """A binary stream that tells whether its next line is there, without waiting for it.

    Lines of a terminal or of a pipe may be there or not, and those of a file always are.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held = bytearray()
        self._searched = 0  # bytes at the beginning of those held that have no line feed
        self._has_ended = False
        try:
            self._descriptor: int | None = file.fileno()
        except OSError:  # held in memory
            self._descriptor = None

    def readline(self, limit: int) -> bytes:
        """The next line with its line feed, or at most `limit` bytes of it; b"" at the end."""
        while not (self._has_line() or self._has_ended or len(self._held) >= limit):
            self._read()
        end = min(self._searched + self._has_line(), limit)
        line = bytes(self._held[:end])
        del self._held[:end]
        self._searched = max(self._searched - end, 0)
        return line

    def is_there(self) -> bool:
        """Whether the next line, or the end, can be read without waiting."""
        while not (self._has_line() or self._has_ended or len(self._held) > _CHARACTERS):
            if not self._can_be_read():
                return False
            self._read()
        return True

    def _has_line(self) -> bool:
        found = self._held.find(b"\n", self._searched)
        self._searched = len(self._held) if found < 0 else found
        return found >= 0

    def _read(self) -> None:
        """Read what has arrived; waits if nothing has."""
        read = self._file.read1(1 << 16)  # type: ignore[attr-defined]
        self._held += read
        self._has_ended = not read

    def _can_be_read(self) -> bool:
        if self._descriptor is None:
            return True
        try:
            return bool(select.select([self._descriptor], [], [], 0)[0])
        except OSError:  # Windows asks sockets alone
            return not self._file.isatty()


def chunks(lines: Iterator[str], is_there: Callable[[], bool], most: int) -> Iterator[list[str]]:
    """Lines, at most `most` at a time, and no more than are there once the first of them is.

    The first chunks are smaller. A UserError of `lines` comes after the lines before it.
    """
    chunk: list[str] = []
    now, characters = min(_FIRST, most), 0
    try:
        for line in lines:
            chunk.append(line)
            characters += len(line)
            if len(chunk) == now or characters >= _CHARACTERS or not is_there():
                yield chunk
                chunk, now, characters = [], min(2 * now, most), 0
    except UserError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
