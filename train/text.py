"""Reading text: one sentence a line, whatever the line holds.

A line ends at a line feed and nowhere else. `str.splitlines` also splits at U+0085, U+2028, form
feeds and more, which real corpora hold, and shifts all pairs after them by one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from npformer.errors import UserError

logger = logging.getLogger("npformer")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# How files begin that hold no text as it is, and what makes text of them.
_PACKED = {
    b"\x1f\x8b": ("compressed by gzip", "gunzip"),
    b"BZh": ("compressed by bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("compressed by xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unzstd"),
    b"PK\x03\x04": ("a zip archive", "unzip"),
}

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class TextFile:
    """What one reading of a text file found: its path, lines, size in bytes, and SHA-256."""

    path: str
    lines: int
    bytes: int
    sha256: str


def read_lines(path: PathLike, *, warn: bool = True) -> Iterator[str]:
    """The lines of a UTF-8 text file one by one, as `decode_lines` gives them.

    Raises UserError for a file that cannot be read, is empty, or is not UTF-8.
    """
    empty = True
    try:
        with open(path, "rb") as file:
            for line in decode_lines(file, os.fspath(path), warn=warn):
                empty = False
                yield line
    except OSError as error:
        raise _unreadable(path, error) from error
    if empty:
        raise UserError(f"{path} is empty; it must hold one sentence a line")


def decode_lines(file: BinaryIO, name: str, *, warn: bool = True) -> Iterator[str]:
    """The lines of UTF-8 text one by one, without their ends; `name` is for messages.

    A byte-order mark at the beginning is dropped, a carriage return before the line feed too (a
    warning tells how many, at the end). The last line needs no line feed. Raises UserError for
    text that is not UTF-8, with the line and the byte, or that is compressed.
    """
    number = carriage_returns = 0
    beginning = b""
    # A binary file's lines end at b"\n" alone.
    for number, raw in enumerate(file, start=1):
        line = raw.removesuffix(b"\n")
        if raw.endswith(b"\r\n"):
            carriage_returns += 1
            line = line.removesuffix(b"\r")
        dropped = 0
        if number == 1:
            beginning = raw[:16]
        if number == 1 and line.startswith(_BYTE_ORDER_MARK):
            line = line.removeprefix(_BYTE_ORDER_MARK)
            dropped = len(_BYTE_ORDER_MARK)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            _refuse_packed(beginning, name)
            raise UserError(
                f"{name}, line {number}: byte {error.start + dropped + 1} of the line "
                f"(0x{line[error.start]:02x}) is not UTF-8; convert the text to UTF-8"
            ) from error
        yield text
    if warn and carriage_returns:
        logger.warning(
            "%s: %d of %d lines end in CRLF; the carriage returns are left out",
            name,
            carriage_returns,
            number,
        )


def _refuse_packed(beginning: bytes, name: str) -> None:
    """Raise UserError where what is no UTF-8 is a known other thing, by how it begins."""
    for mark, (kind, unpack) in _PACKED.items():
        if beginning.startswith(mark):
            raise UserError(f"{name} is no plain text but {kind}; unpack it first: {unpack}")


def survey(path: PathLike) -> TextFile:
    """Read a text file and tell what it is. Warns and raises as `read_lines` does.

    Raises UserError for a pipe or another thing that cannot be read twice, without opening it.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UserError(
                f"{path} is no file but a pipe or a device, and its text is read several times; "
                "write it to a file first"
            )
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    lines = sum(1 for _ in read_lines(path))
    return TextFile(os.fspath(path), lines, size, digest.hexdigest())


def survey_parallel(
    sources: Sequence[PathLike], targets: Sequence[PathLike]
) -> tuple[list[TextFile], list[TextFile]]:
    """Survey files of which the n-th source and the n-th target hold each other's translations.

    Raises UserError where a pair of files differs in its number of lines, or a file has no partner.
    """
    if len(sources) != len(targets):
        raise UserError(
            f"{len(sources)} source files and {len(targets)} target files are given; "
            "each source file needs its target file"
        )
    if not sources:
        raise UserError("no text files are given")
    found = [survey(path) for path in sources], [survey(path) for path in targets]
    for source, target in zip(*found, strict=True):
        if source.lines != target.lines:
            raise _differ(source.path, source.lines, target.path, target.lines)
    return found


def read_parallel(
    sources: Sequence[PathLike], targets: Sequence[PathLike]
) -> Iterator[tuple[str, str]]:
    """The pairs of lines of files that `survey_parallel` has accepted (so: no more warnings).

    Raises UserError as `read_lines` does, and where the files have changed and no longer match.
    """
    for source_path, target_path in zip(sources, targets, strict=True):
        source, target = read_lines(source_path, warn=False), read_lines(target_path, warn=False)
        pairs = 0
        while (left := next(source, None)) is not None:
            if (right := next(target, None)) is None:
                raise _differ(source_path, pairs + 1 + sum(1 for _ in source), target_path, pairs)
            pairs += 1
            yield left, right
        if (extra := sum(1 for _ in target)) > 0:
            raise _differ(source_path, pairs, target_path, pairs + extra)


def read_both(source: PathLike, target: PathLike) -> tuple[list[str], list[str]]:
    """All lines of two files that hold each other's translations. Raises as `survey_parallel`."""
    sources, targets = list(read_lines(source)), list(read_lines(target))
    if len(sources) != len(targets):
        raise _differ(source, len(sources), target, len(targets))
    return sources, targets


def _unreadable(path: PathLike, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}")


def _differ(source: PathLike, source_lines: int, target: PathLike, target_lines: int) -> UserError:
    return UserError(
        f"{source} has {source_lines} lines, but {target} has {target_lines}; "
        "line n of one must be the translation of line n of the other"
    )
