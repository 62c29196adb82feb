"""Compressed text is read like plain text, and damage is reported with the name of the file."""

import bz2
import gzip
import hashlib
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from npformer.errors import UserError
from train.corpora.text import read_lines, survey

TEXT = "".join(f"Zeile {i}, {i * 7919 % 1000} Wörter\n" for i in range(3000)).encode()


def zstd(content: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    packed: bytes = zstandard.ZstdCompressor().compress(content)
    return packed


PACKERS = [gzip.compress, bz2.compress, lzma.compress, zstd]
every_packer = pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "bzip2", "xz", "zstd"])


@every_packer
def test_compressed_text_is_read_like_the_original(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "no name says it"
    path.write_bytes(pack(TEXT))
    assert list(read_lines(path)) == TEXT.decode().split("\n")[:-1]
    found = survey(path)
    assert (found.lines, found.characters) == (3000, len(TEXT.decode()) - 3000)
    assert found.bytes == path.stat().st_size < len(TEXT)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@every_packer
def test_separately_compressed_parts_are_read_as_one_text(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "text"
    path.write_bytes(pack(TEXT[:5000]) + pack(b"") + pack(TEXT[5000:]))
    assert "\n".join(read_lines(path)) == TEXT.decode().removesuffix("\n")


@every_packer
def test_a_part_with_a_damaged_beginning_is_not_taken_for_the_end(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "text.packed"
    parts = [pack(TEXT[:5000]), pack(TEXT[5000:])]
    for damaged in (0, 1):
        content = bytearray(b"".join(parts))
        content[len(parts[0]) + damaged] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"text\.packed is damaged: "):
            list(read_lines(path))


@pytest.mark.parametrize("pack", PACKERS[:3], ids=["gzip", "bzip2", "xz"])
def test_zeros_may_pad_a_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "text.packed"
    for size in (4, 1 << 18):
        path.write_bytes(pack(TEXT[:5000]) + bytes(size) + pack(TEXT[5000:]) + bytes(size))
        assert "\n".join(read_lines(path)) == TEXT.decode().removesuffix("\n")


@every_packer
def test_a_truncated_file_is_named(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "text.packed"
    packed = pack(TEXT)
    for kept in (20, len(packed) // 2, len(packed) - 1):
        path.write_bytes(packed[:kept])
        for read in (survey, lambda path: list(read_lines(path))):
            with pytest.raises(UserError, match=r"text\.packed is (cut short|damaged): ") as caught:
                read(path)
            assert "\n" not in str(caught.value)


@every_packer
@given(data=st.data())
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_named_or_gives_the_same_text(
    tmp_path: Path, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    path = tmp_path / "text.packed"
    packed = bytearray(pack(TEXT))
    # After the magic bytes of the format; time stamps are not checked.
    packed[data.draw(st.integers(14, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(packed)
    try:
        found = "\n".join(read_lines(path)) + "\n"
    except UserError as error:
        said = str(error)
        event("refused")
    else:  # zstd has no checksum by default, so damage may change the text
        said = str(path) if found.encode() == TEXT or pack is zstd else "other text"
    assert str(path) in said
    assert "\n" not in said


def test_text_that_begins_like_a_compressed_file_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "text.en"
    for text in ("BZh91AY&SY", "BZh91AY&SYä", "BZh9\x17rE8P", "PK\x03\x04"):
        path.write_text(f"{text}\nand more\n", encoding="utf-8")
        assert list(read_lines(path)) == [text, "and more"]


def test_compressed_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(b"fine\nb\xe4d\n"))
    with pytest.raises(UserError, match=r"text\.gz, line 2: byte 2 .* is not UTF-8"):
        survey(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="is empty"):
        survey(path)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="it is in Python itself")
def test_without_zstandard_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match=r"text\.zst is compressed by zstd.* pip install zstandard"):
        list(read_lines(path))
