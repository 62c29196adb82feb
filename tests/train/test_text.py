"""Reading text: line n stays line n, whatever its contents."""

import bz2
import gzip
import hashlib
import io
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

import train.corpora.text
from npformer.errors import UserError
from train.corpora.blocks import read_blocks
from train.corpora.text import TextFile, decode_lines, read_lines, survey, survey_parallel
from train.wording import counted

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
        found = survey_parallel([source], [target])
        assert pairs_of(found)[2] == ("three", "drei")
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


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_for_other_encodings_of_unicode_the_error_says_how_to_convert(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffA dog\nEin süßer Hund\n".encode(encoding))
    with pytest.raises(UserError, match=f"convert the text to UTF-8: iconv -f {encoding[:6]} -t"):
        list(read_lines(path))


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
        assert pairs_of(survey_parallel([source], [target])) == [("s", "t")] * source_lines
        return
    with pytest.raises(UserError) as caught:
        survey_parallel([source], [target])
    assert f"{source} has {counted(source_lines, 'line')}, but" in str(caught.value)
    assert f"{target} has {target_lines}" in str(caught.value)
    longer, shorter = (source, target) if source_lines > target_lines else (target, source)
    alone = f"line {min(source_lines, target_lines) + 1} of {longer} has none in {shorter}"
    assert alone in str(caught.value)


def pairs_of(files: tuple[list[TextFile], list[TextFile]]) -> list[tuple[str, str]]:
    return [pair for block in read_blocks(files) for pair in zip(*block.pairs(), strict=True)]


def test_where_files_may_part_is_told(tmp_path: Path) -> None:
    """A line that is empty on one side alone is the usual trace of a line that was lost."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("one\ntwo\n\nthree\nfour\n\n")
    target.write_text("eins\nzwei\n\ndrei\n\nvier\nfünf\n")
    with pytest.raises(UserError, match=r"6 lines, but .* has 7; .* line 5 is empty in .*target"):
        survey_parallel([source], [target])


def test_several_files_are_read_in_turn_and_paired(tmp_path: Path) -> None:
    for name, text in {"a.en": "1\n2", "b.en": "3\n", "a.de": "eins\nzwei", "b.de": "drei"}.items():
        (tmp_path / name).write_text(text)
    sources = [tmp_path / "a.en", tmp_path / "b.en"]
    targets = [tmp_path / "a.de", tmp_path / "b.de"]
    found = survey_parallel(sources, targets)
    assert pairs_of(found) == [("1", "eins"), ("2", "zwei"), ("3", "drei")]
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
def test_the_error_for_a_compressed_stream_names_the_program_that_unpacks_it(
    pack: Callable[[bytes], bytes], unpack: str
) -> None:
    with pytest.raises(UserError, match=f"standard input is not plain text but .*: {unpack}$"):
        list(decode_lines(io.BytesIO(pack(b"a line\n" * 50)), "standard input"))


def test_a_pipe_is_copied_so_that_it_is_read_once(tmp_path: Path) -> None:
    pipe, spool = tmp_path / "pipe", tmp_path / "spool"
    os.mkfifo(pipe)
    spool.mkdir()
    for read in (
        lambda: list(read_lines(pipe)),
        lambda: list(read_lines(survey(pipe, spool).readable)),
    ):
        writer = threading.Thread(target=pipe.write_bytes, args=(b"one\ntwo\n",))
        writer.start()
        assert read() == ["one", "two"]
        writer.join()


def test_standard_input_is_copied_so_that_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gzip.compress(b"one\ntwo\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    found = survey("-", tmp_path)
    assert (found.path, found.lines, found.bytes) == ("-", 2, len(content))
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert list(read_lines(found.readable)) == ["one", "two"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        survey("-", tmp_path)


def test_messages_name_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_text("one\n" * 2000)
    for content, message in (
        (b"one\n" * 1999, f"line 2,000 of {other} has none in standard input$"),
        (b"one\n\xff\n", "^standard input, line 2: byte 1"),
        (b"", "^standard input is empty"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(UserError, match=message):
            survey_parallel([other], ["-"], tmp_path)


def test_a_line_that_is_not_a_sentence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without line ends would be read into memory whole."""
    monkeypatch.setattr(train.corpora.text, "_LONGEST", 100)
    for length in (98, 99):
        assert len(list(decode_lines(io.BytesIO(b"ok\n" + b"x" * length + b"\n"), "text"))) == 2
    with pytest.raises(UserError, match="text, line 2, has more than"):
        list(decode_lines(io.BytesIO(b"ok\n" + b"x" * 100 + b"\n"), "text"))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    for read in (survey, lambda path: list(read_lines(path))):
        with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
            read(tmp_path)
