"""Lines of a pipe or a terminal are taken as they arrive, and those of a file many at a time."""

import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import UserError
from train.cli.arrivals import ArrivingLines, chunks
from train.corpora.text import decode_lines


@given(st.binary(max_size=60), st.integers(1, 12))
def test_lines_are_those_of_a_file(content: bytes, limit: int) -> None:
    ours, theirs = ArrivingLines(io.BytesIO(content)), io.BytesIO(content)
    while line := theirs.readline(limit):
        assert ours.is_there()
        assert ours.readline(limit) == line
    assert ours.is_there()
    assert ours.readline(limit) == b""


class Pipe:
    """A pipe whose writer may wait."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self.reader = os.fdopen(self._reading, "rb")

    def write(self, content: bytes) -> None:
        os.write(self._writing, content)

    def close(self) -> None:
        os.close(self._writing)


def test_a_line_of_a_pipe_is_there_once_it_is_whole() -> None:
    pipe = Pipe()
    stream = ArrivingLines(pipe.reader)
    assert not stream.is_there()
    pipe.write(b"a dog")
    assert not stream.is_there()
    pipe.write(b"\nYes.\nNo")
    for line in (b"a dog\n", b"Yes.\n"):
        assert stream.is_there()
        assert stream.readline(100) == line
    assert not stream.is_there()
    pipe.close()
    assert stream.is_there()
    assert stream.readline(100) == b"No"
    assert stream.is_there()
    assert stream.readline(100) == b""
    pipe.reader.close()


def test_what_has_arrived_makes_a_chunk() -> None:
    pipe = Pipe()
    stream = ArrivingLines(pipe.reader)
    arriving = chunks(decode_lines(stream, "a pipe"), stream.is_there, 1000)
    for lines in (["a"], ["b", "c"], ["", "d"]):
        pipe.write("".join(f"{line}\n" for line in lines).encode())
        assert next(arriving) == lines  # does not wait for more
    pipe.write(b"last")
    pipe.close()
    assert list(arriving) == [["last"]]
    pipe.reader.close()


def test_chunks_of_a_file_grow_and_stay_bounded(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"a line\n" * 1000)
    with open(tmp_path / "text", "rb") as file:
        stream = ArrivingLines(file)
        found = list(chunks(decode_lines(stream, "text"), stream.is_there, 300))
    assert [len(chunk) for chunk in found] == [100, 200, 300, 300, 100]


def test_an_endless_stream_is_read_no_further_than_needed() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "x" * 1000

    total = 0
    for chunk in islice(chunks(endless(), lambda: True, 10_000), 12):
        total += len(chunk)
        assert read == total
        assert sum(map(len, chunk)) <= (1 << 22) + 1000
    assert total > 10_000


def test_an_error_comes_after_the_lines_before_it() -> None:
    stream = ArrivingLines(io.BytesIO(b"one\ntwo\n\xff\nfour\n"))
    arriving = chunks(decode_lines(stream, "text"), stream.is_there, 1000)
    assert next(arriving) == ["one", "two"]
    with pytest.raises(UserError, match="line 3: byte 1"):
        next(arriving)
