"""Reading compressed files: gzip, bzip2, xz and zstd, known by their first bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from npformer.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP, XZ, ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")  # before a block, or the end
_AT_A_TIME = 1 << 17  # bytes


def unpacked(file: BinaryIO, name: str) -> BinaryIO:
    """The contents of an open file at its beginning: unpacked if it is compressed, or as they are.

    name: of the file, for messages. Raises UserError, also later while it is read, if the file
    cannot be read, is damaged or is cut short, and for zstd if nothing that is installed can unpack
    it.
    """
    stream: Any = file
    with _told(name):
        beginning = file.peek(16)  # type: ignore[attr-defined]
    if beginning.startswith(GZIP):
        stream = gzip.GzipFile(fileobj=file)
    elif beginning.startswith(XZ):
        stream = _StreamReader(file, lzma.LZMADecompressor)
    elif beginning.startswith(ZSTD):
        stream = _zstd(file, name)
    # The mark of bzip2 is text, unlike the others; what follows it is not.
    elif _BZIP2.match(beginning) and not _is_utf8(beginning):
        stream = _StreamReader(file, bz2.BZ2Decompressor)
    return io.BufferedReader(_Told(stream, name), _AT_A_TIME)


class _Told(io.RawIOBase):
    """A stream whose errors are told in a sentence, with its name."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with _told(self._name):
            count: int = self._stream.readinto(buffer)
            return count


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise UserError(
            f"{name} is cut short: its compressed contents lack their end; fetch or make it again"
        ) from error
    except (zlib.error, lzma.LZMAError, _ZstdError) as error:
        raise _damaged(name) from error
    except OSError as error:
        if error.errno is not None:
            raise UserError(f"cannot read {name}: {error.strerror}") from error
        raise _damaged(name) from error  # gzip and bz2 raise OSError for damage, without a number


def _damaged(name: str) -> UserError:
    return UserError(f"{name} is damaged: it cannot be unpacked to its end; fetch or make it again")


def _is_utf8(beginning: bytes) -> bool:
    """Whether text may begin with these bytes, which may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return True


class _StreamReader(io.RawIOBase):
    """Reads streams of bzip2 or xz, one after another, as parallel compressors write them.

    Python's own readers take a stream whose first bytes are damaged for the end of the file.
    """

    def __init__(self, file: BinaryIO, decompressor: Any) -> None:
        self._file, self._decompressor = file, decompressor
        self._stream: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        ready = b""
        while not ready:
            packed = b""
            if self._stream is None or self._stream.eof:
                packed = self._next_stream()
                if not packed:
                    break
            elif self._stream.needs_input:
                packed = self._file.read(_AT_A_TIME)
                if not packed:
                    raise EOFError
            ready = self._stream.decompress(packed, len(view))
        view[: len(ready)] = ready
        return len(ready)

    def _next_stream(self) -> bytes:
        """The first bytes of the next stream, after zeros that may pad it; none at the end."""
        packed = b"" if self._stream is None else self._stream.unused_data
        self._stream = self._decompressor()
        while not (packed := packed.lstrip(b"\0")) and (more := self._file.read(_AT_A_TIME)):
            packed = more
        return packed


class _ZstdError(Exception):
    """What a decompressor of zstd raises, whose own error is there only if it is installed."""


def _zstd(file: BinaryIO, name: str) -> io.RawIOBase:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return _ZstdReader(file, zstd.ZstdDecompressor, zstd.ZstdError)
    try:
        import zstandard
    except ImportError as error:
        raise UserError(
            f"{name} is compressed by zstd, and the package zstandard, which unpacks it, is not "
            "installed: pip install zstandard, or unpack the file: unzstd"
        ) from error
    return _ZstdReader(
        file, lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
    )


class _ZstdReader(io.RawIOBase):
    """Reads frames of zstd, one after another.

    zstandard's own reader takes a file that is cut short for a whole one.
    """

    def __init__(self, file: BinaryIO, decompressor: Any, error: type[Exception]) -> None:
        self._file, self._decompressor, self._error = file, decompressor, error
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._ready and (self._packed or self._fill()):
            self._unpack()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _fill(self) -> bool:
        """Read on. Returns false at the end of the file, which must be the end of a frame."""
        self._packed = self._file.read(_AT_A_TIME)
        if not self._packed and self._frame is not None:
            raise EOFError
        return bool(self._packed)

    def _unpack(self) -> None:
        if self._frame is None:
            self._frame = self._decompressor()
        try:
            self._ready = memoryview(self._frame.decompress(self._packed))
        except self._error as error:
            raise _ZstdError(str(error)) from error
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
