"""Downloads of known size: streamed to the disk, resumed where they broke off, and verified."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from npformer.errors import UnwritableError, UserError
from npformer.files import atomic_write, sync_directory, unfinished
from npformer.reading import read_plain

_TIMEOUT = 30.0  # seconds without a byte
_WINDOW, _SLOWEST = 60.0, 1024  # seconds, and the fewest bytes a second over them
_PAUSES = (1, 2, 5, 10, 30)  # seconds before each new attempt
_PROGRESS = 1 << 20  # bytes after which attempts are counted anew
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Download:
    """A public file: its address, its size in bytes, and its SHA-256 where that is published."""

    address: str
    size: int
    sha256: str | None

    @property
    def name(self) -> str:
        """The name of the file, without folders."""
        return self.address.rpartition("/")[2]


Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there, and its size."""

Say = Callable[[str], None]


def download(
    wanted: Download,
    directory: Path,
    say: Say,
    progress: Progress = lambda name, done, size: None,
    sha256: str | None = None,
) -> str:
    """Put a file into `directory`, unless it is there already; returns its SHA-256.

    What arrives goes to NAME.part, which a later call continues, and is renamed when its size and
    its SHA-256 are right: what is published, else `sha256`, else whatever came.

    Raises UserError without a network, for a server that does not have this file, and for an
    existing file with other bytes.
    """
    path, sha256 = directory / wanted.name, wanted.sha256 or sha256
    if path.exists():
        found = file_sha256(path)
        if path.stat().st_size != wanted.size or found != (sha256 or found):
            raise UserError(
                f"{path} is not the expected file: it has {path.stat().st_size:,} bytes "
                f"and the SHA-256 {found}, not {wanted.size:,} and {sha256 or 'any'}; delete it "
                "and fetch it again"
            )
        return found
    return _Transfer(wanted, path, say, progress).run(sha256)


def remove_unfinished(downloads: Iterable[Download], directory: Path) -> None:
    """Remove what killed processes have left in `directory`, but parts, which are continued."""
    for wanted in downloads:
        version = f"{wanted.name}.part.version"
        for path in unfinished(directory, version.__eq__):
            path.unlink()
        if (directory / wanted.name).exists():
            (directory / version).unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


class _BrokenOffError(Exception):
    """A connection that ended too early; another may continue."""


class _Transfer:
    """A file on its way: connections, one after the other, until all of it is in NAME.part."""

    def __init__(self, wanted: Download, path: Path, say: Say, progress: Progress) -> None:
        self.wanted, self.path, self.say, self.progress = wanted, path, say, progress
        self.part = path.with_name(f"{path.name}.part")
        # What the server said of the version that the part is of: its ETag or its date.
        self.version = path.with_name(f"{path.name}.part.version")
        self.received = 0
        self.continued = False  # whether the part is of several answers, perhaps of several files

    def run(self, sha256: str | None, *, again: bool = False) -> str:
        if not sha256 and not self._known_version():
            self._forget()  # nobody would notice if it did not continue the same file
        if self._size() > 0:
            self.continued = True
            self.say(f"{self.part}: continuing after {self._size():,} bytes")
        self._receive_all(sha256 is not None)
        found = file_sha256(self.part)
        if found != (sha256 or found):
            self._forget()
            if again or not self.continued:
                raise UserError(
                    f"{self.wanted.address} is not the expected file: its SHA-256 is "
                    f"{found} and not {sha256}; try again later"
                )
            self.say(f"{self.part} does not continue the same file; it is fetched from its start")
            self.continued = False
            return self.run(sha256, again=True)
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
        sync_directory(self.path.parent)
        self.version.unlink(missing_ok=True)
        return found

    def _receive_all(self, is_verified: bool) -> None:
        failures, furthest = 0, self._size()
        while self._size() < self.wanted.size:
            try:
                self._receive(is_verified)
            except (_BrokenOffError, OSError, http.client.HTTPException) as error:
                # Further than ever: a server that always begins anew may always break off, too.
                if self._size() - furthest >= _PROGRESS:
                    failures, furthest = 0, self._size()
                failures += 1
                if failures > len(_PAUSES) or (not self.received and _without_network(error)):
                    raise self._undownloadable(getattr(error, "reason", error)) from error
                pause = _PAUSES[failures - 1]
                why = _on_one_line(error) or "broken off"
                self.say(f"{self.wanted.name}: {why}; again in {pause} s")
                time.sleep(pause)

    def _receive(self, is_verified: bool) -> None:
        """Receive from one connection. Raises _BrokenOffError unless it completes the file.

        What is there is continued if the server can say that it still has the same version, or if
        the whole file is verified in the end.
        """
        headers = {"User-Agent": "npformer", "Accept-Encoding": "identity"}
        version = self._known_version()
        begin = self._size() if version or is_verified else 0
        if begin:
            headers["Range"] = f"bytes={begin}-"
            if version:
                headers["If-Range"] = version
        request = urllib.request.Request(self.wanted.address, headers=headers)
        try:
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:  # there is nothing after what we have
                    self._forget()
                elif error.code not in (408, 425, 429) and error.code < 500:
                    raise self._undownloadable(f"{error.code} {error.reason}") from error
                raise _BrokenOffError(f"the server says {error.code} {error.reason}") from error
        except ValueError as error:  # it is redirected to what is no address
            raise self._undownloadable(error) from error
        with answer:
            continues = answer.status == 206
            length = answer.headers.get("Content-Length")
            if continues and not self._is_part(begin, length, answer.headers):
                self._forget()
                raise _BrokenOffError("the server sends a part that was not requested")
            if not continues and length is not None and length != str(self.wanted.size):
                raise self._of_another_size(f"{length} bytes")
            encoding = answer.headers.get("Content-Encoding")
            if length is None and encoding:  # on the way; with a length, it is a .gz file
                raise self._undownloadable(f"the server encodes it as {encoding}")
            if not begin or not continues:
                self._remember_version(answer.headers)
            self.continued = continues and begin > 0
            self._write(answer, "ab" if begin and continues else "wb")
        if self._size() < self.wanted.size:
            raise _BrokenOffError(
                f"broken off after {self._size():,} of {self.wanted.size:,} bytes"
            )

    def _write(self, answer: http.client.HTTPResponse, mode: str) -> None:
        since, then = time.monotonic(), self.received
        with self._opened_part(mode) as file:
            size = file.seek(0, os.SEEK_END)
            while block := answer.read1(_BLOCK):  # what has arrived, without waiting for more
                size += len(block)
                self.received += len(block)
                if size > self.wanted.size:
                    self._forget()
                    raise self._of_another_size("more")
                self._append(file, block)
                self.progress(self.wanted.name, size, self.wanted.size)
                if (now := time.monotonic()) - since > _WINDOW:
                    if self.received - then < _SLOWEST * _WINDOW:
                        raise _BrokenOffError(f"less than {_SLOWEST:,} bytes a second")
                    since, then = now, self.received

    def _opened_part(self, mode: str) -> FileIO:
        try:
            return open(self.part, mode, buffering=0)  # type: ignore[return-value]
        except OSError as error:
            raise self._unwritable(error) from error

    def _append(self, file: FileIO, block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UnwritableError:
        return UnwritableError(f"cannot write {self.part}: {error.strerror}")

    def _is_part(self, begin: int, length: str | None, headers: http.client.HTTPMessage) -> bool:
        """Whether a 206 is the file from `begin` on, as it is and not encoded on the way.

        Raises UserError if it is of a file of another size.
        """
        said = headers.get("Content-Range", "").strip()
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said, re.ASCII)
        if not found:
            return False
        if found[3] not in ("*", str(self.wanted.size)):
            raise self._of_another_size(f"{found[3]} bytes")
        first, last = int(found[1]), int(found[2])
        return first == begin and length in (None, str(last + 1 - first))

    def _size(self) -> int:
        """The bytes of the part that are there; a part that is too long is deleted."""
        try:
            size = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        if size > self.wanted.size:
            self._forget()
            return 0
        return size

    def _known_version(self) -> str | None:
        with suppress(OSError, ValueError):
            version = json.loads(read_plain(self.version, 1 << 16))
            if isinstance(version, str) and version.isprintable():
                return version
        return None

    def _remember_version(self, headers: http.client.HTTPMessage) -> None:
        tag = headers.get("ETag", "")
        version = headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        with atomic_write(self.version) as file:  # If-Range wants a strong ETag, or a date
            file.write(json.dumps(version).encode())

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def _of_another_size(self, found: str) -> UserError:
        return UserError(
            f"{self.wanted.address} is not the expected file: the server sends {found}, "
            f"and it has {self.wanted.size:,} bytes; try again later"
        )

    def _undownloadable(self, reason: object) -> UserError:
        return UserError(
            f"cannot download {self.wanted.address} ({_on_one_line(reason)}); connect to the "
            f"network, or put the file into place yourself: {self.path}"
        )


def _on_one_line(reason: object) -> str:
    """What a server or the network says, which may be anything, as part of a message."""
    text = "".join(c if c.isprintable() else " " for c in str(reason))
    return textwrap.shorten(text, 200, placeholder=" ...")


def _without_network(error: BaseException) -> bool:
    """Whether the server is unreachable, so that waiting would not help."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, socket.gaierror | ConnectionRefusedError)
