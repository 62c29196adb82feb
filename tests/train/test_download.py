"""Downloads from servers that break off, claim wrong sizes, ignore ranges or send other bytes."""

import errno
import hashlib
import itertools
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from npformer.errors import UserError
from tests.train.faulty_server import FaultySite, served
from train.datasets import download as module
from train.datasets.download import Download, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BAD = b"\xff" + CONTENT[1:]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records the pauses instead of waiting."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture
def site() -> Iterator[FaultySite]:
    with served({"words.tgz": CONTENT}) as site:
        yield site


def wanted(site: FaultySite) -> Download:
    return Download(f"{site.address}/data/words.tgz", len(CONTENT), SHA256)


def put(folder: Path, content: bytes, version: str | None = None) -> None:
    """Write a part as an interrupted download leaves it."""
    (folder / "words.tgz.part").write_bytes(content)
    if version is not None:
        (folder / "words.tgz.part.version").write_text(version)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(site: FaultySite, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        download(wanted(site), folder, print)
    assert "words.tgz" not in names(folder)
    return str(caught.value)


def test_a_file_is_downloaded_once(site: FaultySite, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        found = download(wanted(site), tmp_path, print, lambda *now: seen.append(now))
        assert found == SHA256
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT
    assert names(tmp_path) == ["words.tgz"]
    assert len(site.asked) == 1
    assert seen[-1] == ("words.tgz", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("length", [True, False])
def test_an_interrupted_download_is_continued(
    length: bool, site: FaultySite, tmp_path: Path, pauses: list[float]
) -> None:
    site.faults = ["break 1000", "break 50000", "status 503", *([] if length else ["lengthless"])]
    download(wanted(site), tmp_path, print)
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT
    assert site.asked[:3] == [
        (None, None),
        ("bytes=1000-", site.tag),
        ("bytes=51000-", site.tag),
    ]
    assert pauses == [1, 2, 5]


def test_a_download_that_fails_keeps_its_part(
    site: FaultySite, tmp_path: Path, pauses: list[float]
) -> None:
    site.faults = ["break 1000", *["status 500"] * 5]
    assert "the server says 500" in refusal(site, tmp_path)
    assert pauses == [1, 2, 5, 10, 30]
    assert (tmp_path / "words.tgz.part").read_bytes() == CONTENT[:1000]
    download(wanted(site), tmp_path, print)
    assert site.asked[-1] == ("bytes=1000-", site.tag)


def test_progress_resets_the_count_of_attempts(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROGRESS", 1000)
    site.faults = ["break 1000"] * 20
    download(wanted(site), tmp_path, print)
    assert len(site.asked) == 21


def test_a_server_that_always_breaks_off_and_begins_anew_is_given_up(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(module, "_PROGRESS", 1000)
    monkeypatch.setattr(FaultySite, "tag", property(lambda site: f'"{len(site.asked)}"'))
    site.faults = ["break 2000"] * 40  # and with a new tag, all of the file is sent each time
    assert "broken off after 2,000 of" in refusal(site, tmp_path)
    assert pauses == [1, 2, 5, 10, 30]


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        (["redirect http://[::1/words.tgz"], "(Invalid IPv6 URL)"),
        (["redirect words.tgz"] * 20, "redirect error that would lead to an infinite loop"),
        (["encoded"], "(the server encodes it as gzip)"),
    ],
)
def test_an_answer_that_cannot_be_used_ends_a_download(
    faults: list[str], problem: str, site: FaultySite, tmp_path: Path, pauses: list[float]
) -> None:
    site.faults = faults
    assert problem in refusal(site, tmp_path)
    assert not pauses


def test_another_version_on_the_server_is_downloaded_from_its_start(
    site: FaultySite, tmp_path: Path
) -> None:
    put(tmp_path, BAD[:1000], '"\\"version 0\\""')
    download(wanted(site), tmp_path, print)
    assert site.asked == [("bytes=1000-", '"version 0"')]  # answered with the whole file
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT


@pytest.mark.parametrize("version", [None, "null", "{", '"\\n"'])
def test_a_part_of_another_file_is_downloaded_again(
    version: str | None, site: FaultySite, tmp_path: Path
) -> None:
    put(tmp_path, BAD[:1000], version)
    download(wanted(site), tmp_path, print)
    assert site.asked == [("bytes=1000-", None), (None, None)]
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT


def test_a_file_that_changes_on_the_server_meanwhile_is_downloaded_again(
    site: FaultySite, tmp_path: Path
) -> None:
    site.faults = ["break 1000", "inverted"]
    download(wanted(site), tmp_path, print)
    assert site.asked == [(None, None), ("bytes=1000-", site.tag), (None, None)]
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT


def test_a_file_that_changes_again_and_again_is_given_up(site: FaultySite, tmp_path: Path) -> None:
    site.faults = ["break 1000", "inverted"] * 2
    assert f"and not {SHA256}" in refusal(site, tmp_path)
    assert len(site.asked) == 4


def test_what_could_be_of_another_file_is_not_continued(site: FaultySite, tmp_path: Path) -> None:
    site.tag = ""  # the server cannot say whether it still has the same version,
    anything = replace(wanted(site), sha256=None)  # and nothing would show it in the end
    put(tmp_path, BAD[:1000])
    site.faults = ["break 2000"]
    download(anything, tmp_path, print)
    assert site.asked == [(None, None), (None, None)]
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_part_that_is_compressed_on_the_way_is_not_appended(
    sha256: str | None, site: FaultySite, tmp_path: Path
) -> None:
    site.faults = ["break 1000", "gzip"]
    download(replace(wanted(site), sha256=sha256), tmp_path, print)
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT
    assert site.asked[-1] == (None, None)
    put(tmp_path, CONTENT[:1000], '"\\"version 1\\""')
    (tmp_path / "words.tgz").unlink()
    site.faults = ["encoded"]  # without a length, nobody knows what it is
    assert "the server encodes it as gzip" in refusal(site, tmp_path)


def test_what_a_server_says_is_told_on_one_line(
    site: FaultySite, tmp_path: Path, pauses: list[float]
) -> None:
    site.faults = ["redirect words.tgz"] * 20
    assert refusal(site, tmp_path).isprintable()
    site.faults = ["garbage"] * 6
    said: list[str] = []
    with pytest.raises(UserError, match="welcome") as caught:
        download(wanted(site), tmp_path, said.append)
    assert all(line.isprintable() for line in [str(caught.value), *said])


def test_a_part_that_is_complete_needs_no_server(tmp_path: Path) -> None:
    put(tmp_path, CONTENT)
    nowhere = Download("http://127.0.0.1:9/words.tgz", len(CONTENT), SHA256)
    assert download(nowhere, tmp_path, print) == SHA256
    assert names(tmp_path) == ["words.tgz"]


@pytest.mark.parametrize(
    ("fault", "requests"), [("rangeless", 1), ("shift", 2), ("status 416", 2), ("break 7", 2)]
)
def test_ignored_and_wrong_ranges_are_handled(
    fault: str, requests: int, site: FaultySite, tmp_path: Path
) -> None:
    put(tmp_path, CONTENT[:1000])
    site.faults = [fault]
    download(wanted(site), tmp_path, print)
    assert (tmp_path / "words.tgz").read_bytes() == CONTENT
    assert len(site.asked) == requests


@pytest.mark.parametrize("fault", ["claim 10", "claim 300000", "status 404", "status 403"])
def test_a_server_without_the_file_is_not_asked_again(
    fault: str, site: FaultySite, tmp_path: Path
) -> None:
    site.faults = [fault]
    message = refusal(site, tmp_path)
    number = fault.partition(" ")[2]
    assert f"{number} bytes, and it has 256,000" in message or f"({number} " in message
    assert len(site.asked) == 1
    assert names(tmp_path) == []


def test_a_range_of_a_file_of_another_size_is_refused(site: FaultySite, tmp_path: Path) -> None:
    put(tmp_path, CONTENT[:1000])
    site.faults = ["total 300000"]
    assert "the server sends 300000 bytes, and it has 256,000" in refusal(site, tmp_path)


def test_no_more_is_read_than_the_file_has(site: FaultySite, tmp_path: Path) -> None:
    site.files["words.tgz"] = CONTENT * 2
    site.faults = ["lengthless"]
    assert "the server sends more, and it has 256,000 bytes" in refusal(site, tmp_path)
    assert names(tmp_path) == []


def test_damaged_bytes_are_refused(site: FaultySite, tmp_path: Path) -> None:
    site.files["words.tgz"] = BAD
    assert f"and not {SHA256}" in refusal(site, tmp_path)
    assert names(tmp_path) == []
    assert len(site.asked) == 1


def test_without_a_checksum_later_downloads_must_equal_the_first(
    site: FaultySite, tmp_path: Path
) -> None:
    anything = replace(wanted(site), sha256=None)
    site.files["words.tgz"] = BAD
    first = download(anything, tmp_path, print)
    assert first == hashlib.sha256(BAD).hexdigest()
    (tmp_path / "words.tgz").unlink()
    site.files["words.tgz"] = CONTENT
    with pytest.raises(UserError, match=f"and not {first}"):
        download(anything, tmp_path, print, sha256=first)


def test_a_file_that_the_user_downloaded_is_verified(site: FaultySite, tmp_path: Path) -> None:
    for content in (BAD, CONTENT[:-1]):
        (tmp_path / "words.tgz").write_bytes(content)
        with pytest.raises(UserError, match=r"words\.tgz is not the expected file"):
            download(wanted(site), tmp_path, print)
    assert site.asked == []


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), ConnectionRefusedError()])
def test_a_missing_network_is_reported_at_once(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError(error)

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    there = Download("https://host.example/words.tgz", len(CONTENT), SHA256)
    with pytest.raises(UserError, match=r"connect to the network, or put the file into place"):
        download(there, tmp_path, print)
    assert pauses == []
    assert names(tmp_path) == []


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_network(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "open", full, raising=False)
    assert f"cannot write {tmp_path / 'words.tgz.part'}: No space left" in refusal(site, tmp_path)
    assert pauses == []


def test_a_connection_that_is_too_slow_is_closed(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(0, 3600)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    monkeypatch.setattr(module, "_SLOWEST", len(CONTENT))
    monkeypatch.setattr(module, "_BLOCK", 100)
    assert "bytes a second" in refusal(site, tmp_path)
