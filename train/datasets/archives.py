"""Sentences in downloaded files: tar archives, gzip, and the markup of WMT and IWSLT.

Nothing is unpacked to the disk: a text is read where it lies in its archive, so no name in an
archive is ever the name of a file.
"""

from __future__ import annotations

import gzip
import html
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from npformer.errors import UserError

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
_ABOUT_A_TALK = re.compile(r"\s*<(title|description)>(.*)</\1>\s*", re.IGNORECASE)
_TAG = re.compile(r"\s*</?[a-z]+[ >]", re.IGNORECASE)
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)


def sentences_of(directory: Path, place: str) -> Iterator[str | None]:
    """The sentences of a text, in order; None for a line that is not UTF-8.

    place: a file in `directory`, or a file in an archive there: "dev.tgz/dev/newstest2013.en"

    The markup follows from the name: .gz is gzip, .sgm and .xml have a <seg> for each sentence
    (WMT's and IWSLT's test sets), train.tags.* have talks between lines of tags (IWSLT). Anything
    else has a sentence a line. Raises UserError if the archive is damaged or lacks the text.
    """
    name, _, member = place.partition("/")
    path = directory / name
    try:
        with _opened(path, member) as file:
            stream = gzip.GzipFile(fileobj=file) if place.endswith(".gz") else file
            yield from _sentences(stream, place)
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}); delete it and fetch it again") from error


@contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with open(path, "rb") as text:
            yield text
        return
    with tarfile.open(path) as archive:
        for info in archive:
            if posixpath.normpath(info.name) == member and info.isreg():
                file = archive.extractfile(info)
                assert file is not None  # it is a regular file
                yield file
                return
    raise UserError(f"{path} has no file {member}; delete it and fetch it again")


def _sentences(lines: IO[bytes] | gzip.GzipFile, place: str) -> Iterator[str | None]:
    if place.endswith((".sgm", ".xml")):
        return _segments(lines.read(), place)
    if posixpath.basename(place).startswith("train.tags."):
        return _spoken(_decoded(lines))
    return _decoded(lines)


def _decoded(lines: Iterable[bytes]) -> Iterator[str | None]:
    for line in lines:
        try:
            yield line.rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            yield None


def _segments(content: bytes, place: str) -> Iterator[str]:
    """The text of each <seg>, on one line, with &amp; and the like resolved."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: byte {error.start + 1} is not UTF-8") from error
    return (html.unescape(" ".join(found.split())) for found in _SEGMENT.findall(text))


def _spoken(lines: Iterable[str | None]) -> Iterator[str | None]:
    """What is said in talks: the lines without tags, and the text of titles and descriptions."""
    for line in lines:
        if line is None:
            yield None
        elif about := _ABOUT_A_TALK.fullmatch(line):
            yield html.unescape(about[2].strip())
        elif not _TAG.match(line):
            yield html.unescape(line.strip())
