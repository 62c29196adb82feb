"""Reading text: line n stays line n, whatever its contents."""

import bz2
import gzip
import hashlib
import logging
import lzma
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npformer.errors import UserError
from train.text import read_lines, read_parallel, survey, survey_parallel

on_disk = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Any text without a line feed, with the characters that other programs split lines at.
oddities = st.sampled_from("\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0\ufeff ")
lines_of_text = st.lists(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]) | oddities),
    min_size=1,
)

AWKWARD = [
    "@@",
    "Tom &amp; Jerry &quot;x&quot;",
    "ends in spaces  ",
    "a\x85b\u2028c\u2029d",
    "form\x0cfeed\x0b\x1c\x1d\x1e",
    "nul\0nul",
    "carriage\rreturn",
    "",
    "\ufeffnot at the beginning",
]


@given(lines_of_text)
@on_disk
def test_lines_are_read_as_they_were_written(tmp_path: Path, lines: list[str]) -> None:
    lines = [line.rstrip("\r") for line in lines]
    lines[0] = lines[0].lstrip("\ufeff")
    path = tmp_path / "text"
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    assert list(read_lines(path)) == lines


def test_only_line_feeds_separate_lines(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\n".join(AWKWARD).encode() + b"\n")
    assert list(read_lines(path)) == AWKWARD


@given(lines_of_text)
@on_disk
def test_crlf_files_are_read_like_others(tmp_path: Path, lines: list[str]) -> None:
    lines = [line.rstrip("\r") for line in lines]
    lines[0] = lines[0].lstrip("\ufeff")
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(line + "\r\n" for line in lines).encode())
    assert list(read_lines(path)) == lines


def test_the_last_line_needs_no_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo")
    assert list(read_lines(path)) == ["one", "two"]
    assert survey(path).lines == 2


def test_crlf_is_reported_once_with_a_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"one\r\ntwo\nthree\r\n")
    target.write_bytes(b"eins\nzwei\ndrei\n")
    with caplog.at_level(logging.WARNING, "npformer"):
        survey_parallel([source], [target])
        assert list(read_parallel([source], [target]))[2] == ("three", "drei")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{source}: 2 of 3 lines end in CRLF; the carriage returns are left out"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"fine\nb\xe4d\n", "line 2: byte 2 of the line (0xe4)"),
        (b"\xff\xfea\0\n\0", "line 1: byte 1 of the line (0xff)"),
        (b"\xef\xbb\xbfa\xff\n", "line 1: byte 5 of the line (0xff)"),
        (b"a\x85b\nc\nok \xed\xa0\x80\n", "line 1: byte 2 of the line (0x85)"),
        (b"cut \xe2\x82", "line 1: byte 5 of the line (0xe2)"),
    ],
)
def test_bytes_that_are_not_utf8_are_located(tmp_path: Path, content: bytes, place: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_lines(path))
    assert f"{path}, {place} is not UTF-8" in str(caught.value)


def test_files_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="is empty"):
        list(read_lines(tmp_path / "empty"))
    with pytest.raises(UserError, match="No such file"):
        survey(tmp_path / "missing")
    with pytest.raises(UserError, match="directory"):
        list(read_lines(tmp_path))


def test_a_survey_gives_lines_size_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a\r\nb\n")
    found = survey(path)
    assert (found.path, found.lines, found.bytes) == (str(path), 2, 5)
    assert found.sha256 == hashlib.sha256(b"a\r\nb\n").hexdigest()


@given(st.integers(1, 5), st.integers(1, 5))
@on_disk
def test_files_of_different_lengths_are_refused_with_both_counts(
    tmp_path: Path, source_lines: int, target_lines: int
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("s\n" * source_lines)
    target.write_text("t\n" * target_lines)
    if source_lines == target_lines:
        survey_parallel([source], [target])
        assert list(read_parallel([source], [target])) == [("s", "t")] * source_lines
        return
    for read in (survey_parallel, lambda s, t: list(read_parallel(s, t))):
        with pytest.raises(UserError) as caught:
            read([source], [target])
        assert f"{source} has {source_lines} lines" in str(caught.value)
        assert f"{target} has {target_lines}" in str(caught.value)


def test_several_files_are_read_in_turn_and_paired(tmp_path: Path) -> None:
    for name, text in {"a.en": "1\n2", "b.en": "3\n", "a.de": "eins\nzwei", "b.de": "drei"}.items():
        (tmp_path / name).write_text(text)
    sources = [tmp_path / "a.en", tmp_path / "b.en"]
    targets = [tmp_path / "a.de", tmp_path / "b.de"]
    survey_parallel(sources, targets)
    assert list(read_parallel(sources, targets)) == [("1", "eins"), ("2", "zwei"), ("3", "drei")]
    with pytest.raises(UserError, match="2 source files and 1 target files"):
        survey_parallel(sources, targets[:1])
    with pytest.raises(UserError, match="no text files"):
        survey_parallel([], [])


def test_a_long_file_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a line of some forty bytes, many times.\n" * 100_000)
    tracemalloc.start()
    try:
        assert survey(path).lines == 100_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")],
)
def test_the_error_for_compressed_text_names_the_program_that_unpacks_it(
    tmp_path: Path, pack: Callable[[bytes], bytes], unpack: str
) -> None:
    path = tmp_path / "text.en"
    path.write_bytes(pack(b"a line\n" * 50))
    with pytest.raises(UserError, match=f"text.en is not plain text but .*: {unpack}$"):
        list(read_lines(path))


def test_text_that_begins_like_a_compressed_file_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "text.en"
    path.write_bytes(b"BZh91AY&SY\nPK\x03\x04\n")
    assert list(read_lines(path)) == ["BZh91AY&SY", "PK\x03\x04"]


def test_a_pipe_can_be_read_but_not_surveyed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe is a pipe or a device"):
        survey(pipe)  # and does not wait for a writer
    writer = threading.Thread(target=pipe.write_bytes, args=(b"one\ntwo\n",))
    writer.start()
    assert list(read_lines(pipe)) == ["one", "two"]
    writer.join()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    for read in (survey, lambda path: list(read_lines(path))):
        with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
            read(tmp_path)
