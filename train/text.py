"""Reading text with one sentence per line.

A line ends at a line feed and nowhere else. `str.splitlines` also splits at U+0085, U+2028, form
feeds and others. Real corpora contain these, and each would shift all later pairs by one line.
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

# The first bytes of compressed files: what they are, and the program that unpacks them.
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
    """A text file: its path, number of lines, size in bytes and SHA-256."""

    path: str
    lines: int
    bytes: int
    sha256: str


def read_lines(path: PathLike, *, warn: bool = True) -> Iterator[str]:
    """The lines of a UTF-8 text file, lazily, as by `decode_lines`.

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
    """The lines of UTF-8 text, lazily, without line ends; `name` is for messages.

    Drops a byte-order mark at the beginning, and carriage returns before line feeds, with a
    warning at the end that tells how many. The last line needs no line feed. Raises UserError,
    with the line and the byte, for text that is not UTF-8, and for compressed text.
    """
    number = carriage_returns = 0
    beginning = b""
    # In a binary file, lines end only at b"\n".
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
    """Raise UserError if the first bytes are those of a compressed file."""
    for mark, (kind, unpack) in _PACKED.items():
        if beginning.startswith(mark):
            raise UserError(f"{name} is not plain text but {kind}; unpack it first: {unpack}")


def survey(path: PathLike) -> TextFile:
    """Read a text file to count and hash it. Warns and raises like `read_lines`.

    Raises UserError, without opening it, for a pipe or anything else that cannot be read twice.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UserError(
                f"{path} is a pipe or a device, but its text is read several times; "
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
    """Survey parallel files: the n-th target file is the translation of the n-th source file.

    Raises UserError if two files of a pair differ in their number of lines, or one is missing.
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
    """The pairs of lines of files that `survey_parallel` has checked, without further warnings.

    Raises UserError like `read_lines`, and if the files have changed and no longer match.
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
    """All lines of two parallel files. Raises UserError if their numbers of lines differ."""
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
