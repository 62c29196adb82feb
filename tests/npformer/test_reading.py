"""Reading files: only regular ones of bounded size, and unambiguous JSON."""

import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer.errors import UnreadableError, UserError
from npformer.reading import JSON_LIMIT, open_plain, parse_json, read_json, read_plain


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_plain(tmp_path / "a", 5) == b"12345"
    with open_plain(tmp_path / "link") as file:
        assert file.read() == b"12345"


def test_a_larger_file_than_expected_is_refused_without_reading_it(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than 5 bytes"):
        read_plain(tmp_path / "huge", 5)
    with pytest.raises(OSError, match="larger than 16,777,216 bytes"):
        read_json(tmp_path / "huge")
    assert JSON_LIMIT == 16_777_216


def test_directories_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    started = time.monotonic()
    for path, message in (
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "loop", "symbolic link"),
        (tmp_path / "a\0b", "no file can have this name"),
        (tmp_path / "a\ud800b", "no file can have this name"),
    ):
        with pytest.raises(OSError, match=message) as error:
            open_plain(path)
        assert error.value.filename == str(path) or error.value.filename == path
    assert time.monotonic() - started < 5


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_valid_json_is_parsed(value: Any) -> None:
    assert parse_json(json.dumps(value), "here") == value
    assert parse_json(json.dumps(value).encode(), "here") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("{} {}", "Extra data"),
        ("\ufeff{}", "BOM"),
        (b'"\xff"', "byte 2 is not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1, "b": 2, "a": 1}', "the name 'a' is given twice"),
        ('{"' + "a" * 9999 + '": 1, "' + "a" * 9999 + '": 1}', r"aa\.\.\.aa"),
        ("[NaN]", "NaN is not allowed"),
        ("[-Infinity]", "-Infinity is not allowed"),
        ("1e999", "the number '1e999' is too large"),
        (str(1 << 63), "9223372036854775808... is too large"),
        (str(-(1 << 63) - 1), "too large"),
        ("9" * 100_000, "too large"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 51 + "1" + "]" * 51, "nested too deeply"),
        ('{"a":' * 51 + "1" + "}" * 51, "nested too deeply"),
    ],
)
def test_ambiguous_or_invalid_json_is_refused_with_one_line(
    text: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_json(text, "the/file")
    assert str(error.value).startswith("the/file is not valid JSON (")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_json_may_be_nested_50_deep() -> None:
    assert json.dumps(parse_json("[" * 49 + "1" + "]" * 49, "here")) == "[" * 49 + "1" + "]" * 49


def test_an_invalid_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": [1]}')
    assert read_json(tmp_path / "a") == {"a": [1]}
    (tmp_path / "a").write_text("{]")
    with pytest.raises(UserError, match=f"{tmp_path}/a is not valid JSON"):
        read_json(tmp_path / "a")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EMFILE, r"Too many open files; raise the limit \(ulimit -n\)"),
        (errno.ENFILE, r"Too many open files in system; raise the limit \(sysctl fs.file-max\)"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_a_file_that_may_be_whole_but_cannot_be_opened_is_told_apart(
    tmp_path: Path, number: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    path = tmp_path / "a"
    path.write_bytes(b"whole")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableError) as error:
        open_plain(path)
    assert re.fullmatch(f"cannot read {re.escape(str(path))}: {message}", str(error.value))


def test_integers_of_any_size_are_read_where_they_are_asked_for() -> None:
    assert parse_json(f"[{10**30}, 7]", "x", large=True) == [1e30, 7]
    with pytest.raises(UserError, match="too large"):
        parse_json("9" * 400, "x", large=True)
