"""Standard input, output and error, which may be closed or lack characters."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO, TextIO, cast

from npformer.errors import UserError


def make_printable() -> None:
    """Make printing safe whatever the console's encoding is, and if streams are closed.

    Characters that the encoding lacks are printed as escapes. A closed stream is None in Python,
    and the next file that is opened would get its descriptor, so that libraries would print into
    that file; the null device takes the descriptor instead. Commands that write their results to
    standard output check it with `require_output`. Messages on standard error are not needed for
    the work to continue: they are dropped once nobody reads them, or their disk is full.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr is None:  # print() would take None for standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, until the end
    elif not isinstance(sys.stderr, _Lasting):
        sys.stderr = cast("TextIO", _Lasting(sys.stderr))


def tell(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


class _Lasting:
    """A text stream that discards everything from its first error on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        with open(os.devnull, "wb") as nothing, suppress(OSError):
            # Also for what the stream still holds, and for libraries that print by themselves.
            os.dup2(nothing.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _occupy(number: int) -> None:
    """Open the null device as this descriptor if it is closed."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def input_bytes(command: str) -> BinaryIO:
    """Standard input. Raises UserError if it is closed."""
    if sys.stdin is None:
        raise UserError(f"standard input is closed, but {command} reads its text from it")
    return sys.stdin.buffer


def require_output(command: str) -> None:
    """Raise UserError if standard output is closed, before any work is done."""
    if sys.stdout is None:
        raise UserError(f"standard output is closed, but {command} writes its results to it")


def drop_output() -> None:
    """Drop what cannot be written to standard output, or Python would try again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
