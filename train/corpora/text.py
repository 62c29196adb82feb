"""Reading text with one sentence per line.

A line ends at a line feed and nowhere else. `str.splitlines` also splits at U+0085, U+2028, form
feeds and others. Real corpora contain these, and each would shift all later pairs by one line.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from npformer.errors import UserError
from train.corpora.compression import GZIP, XZ, ZSTD, unpacked
from train.wording import counted

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

logger = logging.getLogger("npformer")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_LONGEST = 1 << 24  # bytes in a line: far more than a sentence has, and little memory

# What a stream that is not unpacked may begin with: what it is, and the program that unpacks it.
_PACKED = {
    GZIP: ("compressed by gzip", "gunzip"),
    b"BZh": ("compressed by bzip2", "bunzip2"),
    XZ: ("compressed by xz", "unxz"),
    ZSTD: ("compressed by zstd", "unzstd"),
    b"PK\x03\x04": ("a zip archive", "unzip"),
}

# Byte-order marks of other encodings of Unicode, as Windows writes them; the longer ones first.
_OTHER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

PathLike = str | os.PathLike[str]

BadLines = Literal["refuse", "replace", "skip"]
_TREATED = {"replace": "replaced by U+FFFD", "skip": "skipped with its line"}


@dataclass(frozen=True)
class TextFile:
    """A text file: its path, its lines and characters, and the bytes and SHA-256 of the file.

    A compressed file has the lines and characters of its contents. `unpacked` is their size in
    bytes, with uniform line ends. `kept` is a copy of what can be read only once.
    """

    path: str
    lines: int
    characters: int
    bytes: int
    sha256: str
    unpacked: int = 0
    kept: Path | None = None

    @property
    def readable(self) -> PathLike:
        """The path to read the text from."""
        return self.kept or self.path

    @property
    def name(self) -> str:
        """What messages call it."""
        return _name(self.path)

    def facts(self) -> dict[str, str | int]:
        """Its entry in a manifest."""
        names = ("path", "lines", "characters", "bytes", "sha256")
        return {name: getattr(self, name) for name in names}


@contextmanager
def open_text(path: PathLike) -> Iterator[BinaryIO]:
    """Open a text file, which may be compressed, for reading the bytes of its lines.

    Raises UserError if it cannot be read or unpacked, then or later within the `with` block.
    """
    try:
        opened = open(path, "rb")  # noqa: SIM115, closed below
    except OSError as error:
        raise _unreadable(path, error) from error
    with opened as file:
        yield unpacked(file, os.fspath(path))


def read_lines(path: PathLike, *, warn: bool = True) -> Iterator[str]:
    """The lines of a UTF-8 text file, which may be compressed, lazily, as by `decode_lines`.

    Raises UserError for a file that cannot be read or unpacked, is empty, or is not UTF-8.
    """
    with open_text(path) as file:
        yield from _not_empty(decode_lines(file, os.fspath(path), warn=warn), path)


def _not_empty(lines: Iterator[str], path: PathLike) -> Iterator[str]:
    empty = True
    for line in lines:
        empty = False
        yield line
    if empty:
        raise UserError(f"{path} is empty; it must hold one sentence a line")


class Readable(Protocol):
    """What lines of bytes are read from."""

    def readline(self, limit: int, /) -> bytes:
        """The next line with its line feed, or at most `limit` bytes of it; b"" at the end."""


def decode_lines(
    file: Readable,
    name: str,
    *,
    warn: bool = True,
    first: int = 1,
    bad_lines: BadLines = "refuse",
) -> Iterator[str]:
    """The lines of UTF-8 text, lazily, without line ends.

    name, first: the name of the text and the number of its first line here, for messages. Drops a
    byte-order mark at the beginning, and carriage returns before line feeds, with a warning at the
    end that tells how many. The last line needs no line feed. Raises UserError, with the line and
    the byte, for text that is not UTF-8, for a line of more than 16 MB, and for compressed text.

    bad_lines: "replace" bytes that are not UTF-8 by U+FFFD, or "skip" their lines, which become
    empty; each is told. A line of more than 16 MB is then skipped.
    """
    number = carriage_returns = 0
    beginning = b""
    # In a binary file, lines end only at b"\n".
    for number, raw in enumerate(iter(lambda: file.readline(_LONGEST), b""), start=first):
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
        if len(raw) == _LONGEST and not raw.endswith(b"\n"):
            fault = f"{name}, line {number}, has more than {_LONGEST >> 20} MB"
            if bad_lines == "refuse":
                raise UserError(
                    f"{fault}, so it is not a sentence; give text with one sentence per line"
                )
            logger.warning("%s; it is skipped", fault)
            while len(raw) == _LONGEST and not raw.endswith(b"\n"):
                raw = file.readline(_LONGEST)
            yield ""
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            _refuse_packed(beginning, name)
            fault = (
                f"{name}, line {number}: byte {error.start + dropped + 1} of the line "
                f"(0x{line[error.start]:02x}) is not UTF-8"
            )
            if bad_lines == "refuse":
                raise UserError(
                    f"{fault}; convert the text to UTF-8{_how_to_convert(beginning)}"
                ) from error
            text = line.decode(errors="replace") if bad_lines == "replace" else ""
            logger.warning("%s; it is %s", fault, _TREATED[bad_lines])
        yield text
    if warn and carriage_returns:
        logger.warning(
            "%s: %d of %d lines end in CRLF; the carriage returns are left out",
            name,
            carriage_returns,
            number,
        )


def _how_to_convert(beginning: bytes) -> str:
    """The program that converts text to UTF-8, if its first bytes tell what it is."""
    for mark, encoding in _OTHER_MARKS.items():
        if beginning.startswith(mark):
            return f": iconv -f {encoding} -t utf-8"
    return ""


def _refuse_packed(beginning: bytes, name: str) -> None:
    """Raise UserError if the first bytes are those of a compressed file."""
    for mark, (kind, unpack) in _PACKED.items():
        if beginning.startswith(mark):
            raise UserError(f"{name} is not plain text but {kind}; unpack it first: {unpack}")


def survey(path: PathLike, spool: Path | None = None) -> TextFile:
    """Read a text file to count and hash it. Warns and raises like `read_lines`.

    spool: a folder for the text of "-", which is standard input, of pipes and of devices: these can
    be read only once. Without a folder, it is not kept.
    """
    given, name = os.fspath(path), _name(path)
    lines = characters = size = 0
    kept = None
    if spool is not None and not _can_be_read_again(path):
        path = kept = _spooled(path, spool)
    try:
        with open(path, "rb", buffering=0) as raw:
            hashed = _Hashed(raw)
            file = io.BufferedReader(hashed, 1 << 20)
            for line in _not_empty(decode_lines(unpacked(file, name), name), name):
                lines += 1
                characters += len(line)
                size += 1 + (len(line) if line.isascii() else len(line.encode()))
            # The hash is of the whole file, of what an unpacker has left unread, too.
            while file.read(1 << 20):
                continue
    except OSError as error:
        raise _unreadable(name, error) from error
    digest = hashed.digest.hexdigest()
    return TextFile(given, lines, characters, hashed.size, digest, size, kept)


STANDARD_INPUT = "-"


def _name(path: PathLike) -> str:
    """What messages call a text."""
    name = os.fspath(path)
    return "standard input" if name == STANDARD_INPUT else name


def _can_be_read_again(path: PathLike) -> bool:
    if os.fspath(path) == STANDARD_INPUT:
        return False
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        raise _unreadable(path, error) from error
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind)  # a directory is refused when it is opened


def _spooled(path: PathLike, folder: Path) -> Path:
    """A copy of what can be read only once, in a temporary folder."""
    if is_stdin := os.fspath(path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise UserError("standard input is closed, but text must be read from it")
        source: BinaryIO = sys.stdin.buffer
    else:
        try:
            source = open(path, "rb")  # noqa: SIM115, closed below
        except OSError as error:
            raise _unreadable(path, error) from error
    try:
        _check_space_for(source, folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="spooled.", delete=False) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    finally:
        if not is_stdin:
            source.close()
    return Path(copy.name)


def _check_space_for(source: BinaryIO, folder: Path) -> None:
    """Raise UserError if a copy will not fit. Of pipes and of devices nobody knows the size."""
    with suppress(OSError):  # a stream without a descriptor
        about = os.fstat(source.fileno())
        size, free = about.st_size, shutil.disk_usage(folder).free
        if stat.S_ISREG(about.st_mode) and size > free:
            raise UserError(
                f"standard input has {size / 1e6:,.1f} MB, of which a copy is kept beside the "
                f"corpus, and there are only {free / 1e6:,.1f} MB left; give the file by its name"
            )


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read, from its beginning to its end."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        count = self._file.readinto(buffer)
        self.size += count or 0
        self.digest.update(memoryview(buffer)[:count])
        return count


def survey_parallel(
    sources: Sequence[PathLike], targets: Sequence[PathLike], spool: Path | None = None
) -> tuple[list[TextFile], list[TextFile]]:
    """Survey parallel files: the n-th target file is the translation of the n-th source file.

    spool: a folder as for `survey`. Raises UserError if two files of a pair differ in their number
    of lines, or one is missing.
    """
    if len(sources) != len(targets):
        raise UserError(
            f"{len(sources)} source files and {len(targets)} target files are given; "
            "each source file needs its target file"
        )
    if not sources:
        raise UserError("no text files are given")
    found = [survey(path, spool) for path in sources], [survey(path, spool) for path in targets]
    for source, target in zip(*found, strict=True):
        if source.lines != target.lines:
            error = _differ(source.name, source.lines, target.name, target.lines)
            raise UserError(f"{error}{_where_they_may_part(source, target)}")
    return found


def _where_they_may_part(source: TextFile, target: TextFile) -> str:
    """The first line that is empty in one file alone, which a lost or added line often makes."""
    both = (read_lines(file.readable, warn=False) for file in (source, target))
    for number, (left, right) in enumerate(zip(*both, strict=False), start=1):
        if bool(left.strip()) != bool(right.strip()):
            alone = target if left.strip() else source
            return f". They may part before: line {number:,} is empty in {alone.name} alone"
    return ""


def read_both(source: PathLike, target: PathLike) -> tuple[list[str], list[str]]:
    """All lines of two parallel files. Raises UserError if their numbers of lines differ."""
    sources, targets = list(read_lines(source)), list(read_lines(target))
    if len(sources) != len(targets):
        raise _differ(source, len(sources), target, len(targets))
    return sources, targets


def _unreadable(path: PathLike, error: OSError) -> UserError:
    return UserError(f"cannot read {path}: {error.strerror}")


def _differ(source: PathLike, source_lines: int, target: PathLike, target_lines: int) -> UserError:
    longer, shorter = (source, target) if source_lines > target_lines else (target, source)
    return UserError(
        f"{source} has {counted(source_lines, 'line')}, but {target} has "
        f"{target_lines:,}; line n of one must be the translation of line n of the other, and line "
        f"{min(source_lines, target_lines) + 1:,} of {longer} has none in {shorter}"
    )
