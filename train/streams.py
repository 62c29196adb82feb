"""Standard input, output and error, whatever stands behind them."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

from npformer.errors import UserError


def make_printable() -> None:
    """Let everything be printed: characters that a console lacks, and where streams are closed.

    What a console's encoding lacks is shown as an escape. Closed, a stream is None in Python, and
    the next file that is opened gets its number, into which libraries would then print; the null
    device takes that place. A command whose product is what it prints refuses that, by
    `require_output`.
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
    """Put the null device in the place of a closed descriptor."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def input_bytes(command: str) -> BinaryIO:
    """Standard input. Raises UserError where it is closed."""
    if sys.stdin is None:
        raise UserError(f"standard input is closed, and {command} reads its text there")
    return sys.stdin.buffer


def require_output(command: str) -> None:
    """Raise UserError where standard output is closed, before work is done for it."""
    if sys.stdout is None:
        raise UserError(f"standard output is closed, and {command} writes its results there")


def drop_output() -> None:
    """Drop what cannot be written to standard output; at its end Python would try again."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
