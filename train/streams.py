"""Standard input, output and error, which may be closed or lack characters."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

from npformer.errors import UserError


def make_printable() -> None:
    """Make printing safe whatever the console's encoding is, and if streams are closed.

    Characters that the encoding lacks are printed as escapes. A closed stream is None in Python,
    and the next file that is opened would get its descriptor, so that libraries would print into
    that file; the null device takes the descriptor instead. Commands that write their results to
    standard output check it with `require_output`.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr is None:  # print() would take None for standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, until the end


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
        raise UserError(f"standard input is closed, and {command} reads its text there")
    return sys.stdin.buffer


def require_output(command: str) -> None:
    """Raise UserError if standard output is closed, before any work is done."""
    if sys.stdout is None:
        raise UserError(f"standard output is closed, and {command} writes its results there")


def drop_output() -> None:
    """Drop what cannot be written to standard output, or Python would try again at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
