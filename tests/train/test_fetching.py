"""Datasets: archives become texts with one sentence per line, completely or not at all."""

import gzip
import hashlib
import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from npformer.errors import UserError
from tests.kills import kills_itself_at
from tests.train.faulty_server import FaultySite, served
from train.datasets import fetching
from train.datasets.catalogue import DATASETS, PARTS, Dataset, Pair
from train.datasets.download import Download
from train.datasets.fetching import fetch, fetched_texts

TALKS = """<url>http://www.ted.com/talks/1</url>
<keywords>talks, words</keywords>
<speaker>Somebody</speaker>
<talkid>1</talkid>
<title> Somebody: On words &amp; deeds </title>
<description>TED Talk Subtitles</description>
 {} one. \r
A < b.
{} three.\u2028And more.
<reviewer></reviewer>
"""
SGM = """<srcset setid="newstest2014" srclang="any">
<doc docid="1">
<p>
<seg id="1">{} &quot;a&quot; &amp; b.</seg>
<SEG id="2"> {}
two. </SEG>
</p></doc></srcset>
"""


def archive(
    members: dict[str, str | bytes], links: tuple[str, ...] = (), mode: str = "w:gz"
) -> bytes:
    """A tar archive of these files, and of symbolic links to /etc/passwd."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


GOOD = archive(
    {
        "../../outside.txt": "outside",
        "/outside.txt": "outside",
        "./talks/train.tags.de-en.de": TALKS.format("Satz", "Satz"),
        "talks/train.tags.de-en.en": TALKS.format("Line", "Line"),
        "talks/test.de.sgm": SGM.format("Satz", "Satz"),
        "talks/test.en.sgm": SGM.format("Line", "Line"),
        "talks/more.de.gz": gzip.compress(b"Mehr\nNoch mehr\n"),
        "talks/more.en.gz": gzip.compress(b"More\nEven more"),
    }
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def site() -> Iterator[FaultySite]:
    with served({"talks.tgz": GOOD}) as site:
        yield site


def dataset(site: FaultySite, **changes: object) -> Dataset:
    content = site.files["talks.tgz"]
    sha256 = hashlib.sha256(content).hexdigest()
    made = Dataset(
        name="talks",
        about="Talks about words",
        terms="free",
        source="de",
        target="en",
        downloads=(Download(f"{site.address}/talks.tgz", len(content), sha256),),
        train=(
            Pair("talks.tgz/talks/train.tags.de-en.de", "talks.tgz/talks/train.tags.de-en.en"),
            Pair("talks.tgz/talks/more.de.gz", "talks.tgz/talks/more.en.gz"),
        ),
        valid=(),
        test=(Pair("talks.tgz/talks/test.de.sgm", "talks.tgz/talks/test.en.sgm"),),
        text_bytes=1000,
        held_out=4,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def refusal(wanted: Dataset, out: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch(wanted, out, print)
    return str(caught.value)


def texts(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_file())


def test_archives_become_texts(site: FaultySite, tmp_path: Path) -> None:
    out = tmp_path / "data" / "talks"
    said: list[str] = []
    fetch(dataset(site), out, said.append)
    assert (out / "train.de").read_text().split("\n") == [
        "Somebody: On words & deeds",
        "TED Talk Subtitles",
        "Satz one.",
        "Satz three.\u2028And more.",
        "Mehr",
        "Noch mehr",
        "",
    ]
    assert (out / "train.en").read_text().endswith("More\nEven more\n")
    assert (out / "valid.de").read_text() == (out / "valid.en").read_text() == "A < b.\n"
    assert (out / "test.en").read_text() == 'Line "a" & b.\nLine two.\n'
    assert said[-2:] == [
        "train: 6 pairs, valid: 1 pair, test: 2 pairs",
        f"{out} is complete; {out / 'downloads'} may be deleted",
    ]
    checked = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(checked, cwd=out, check=False).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_fetched_texts_are_known_by_what_they_were(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "talks", dataset(site))
    fetched, mine = tmp_path / "fetched", tmp_path / "mine"
    fetch(dataset(site), fetched, print)
    mine.mkdir()
    (mine / "train.de").write_bytes((fetched / "train.de").read_bytes())
    (fetched / "notes.de").write_text("mine\n")
    paths = [
        fetched / "train.de",
        fetched / "train.en",
        fetched / "notes.de",
        mine / "train.de",
        "-",
    ]
    expected = {
        hashlib.sha256((fetched / f"train.{code}").read_bytes()).hexdigest(): {
            "dataset": "talks",
            "language": code,
        }
        for code in ("de", "en")
    }
    assert fetched_texts(paths) == expected
    (fetched / "train.de").write_text("changed\n")  # has another checksum, which is not known
    assert fetched_texts(paths) == expected
    (fetched / "SHA256SUMS").write_text("mine\n")
    assert fetched_texts(paths) == {}


def test_a_complete_dataset_needs_no_network(site: FaultySite, tmp_path: Path) -> None:
    fetch(dataset(site), tmp_path, print)
    (tmp_path / "downloads" / "talks.tgz").unlink()
    said: list[str] = []
    fetch(dataset(site), tmp_path, said.append)
    assert len(site.asked) == 1
    assert said == [f"{tmp_path}: Talks about words, verified"]


def test_a_lost_text_is_written_again(site: FaultySite, tmp_path: Path) -> None:
    fetch(dataset(site), tmp_path, print)
    before = (tmp_path / "train.de").read_bytes()
    (tmp_path / "train.de").unlink()
    fetch(dataset(site), tmp_path, print)
    assert (tmp_path / "train.de").read_bytes() == before
    assert len(site.asked) == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_text_of_the_user_is_not_replaced(after: bool, site: FaultySite, tmp_path: Path) -> None:
    if after:
        fetch(dataset(site), tmp_path, print)
    (tmp_path / "train.en").write_text("mine\n")
    assert f"{tmp_path / 'train.en'} was not fetched by npformer" in refusal(
        dataset(site), tmp_path
    )
    assert (tmp_path / "train.en").read_text() == "mine\n"


def test_without_a_published_checksum_later_downloads_must_equal_the_first(
    site: FaultySite, tmp_path: Path
) -> None:
    [known] = dataset(site).downloads
    wanted = dataset(site, downloads=(replace(known, sha256=None),))
    said: list[str] = []
    fetch(wanted, tmp_path, said.append)
    first = known.sha256
    assert f"talks.tgz: no checksum is published; this download has SHA-256 {first}" in said
    (tmp_path / "train.de").unlink()
    (tmp_path / "downloads" / "talks.tgz").unlink()
    site.files["talks.tgz"] = GOOD[:-1] + b"x"
    assert f"and not {first}" in refusal(wanted, tmp_path)


def test_a_damaged_download_without_a_published_checksum_may_be_replaced(
    site: FaultySite, tmp_path: Path
) -> None:
    [known] = dataset(site).downloads
    wanted = dataset(site, downloads=(replace(known, sha256=None),))
    site.files["talks.tgz"] = GOOD[: len(GOOD) // 2] + bytes(len(GOOD) - len(GOOD) // 2)
    assert "is damaged" in refusal(wanted, tmp_path)
    (tmp_path / "downloads" / "talks.tgz").unlink()
    site.files["talks.tgz"] = GOOD
    fetch(wanted, tmp_path, print)
    assert (tmp_path / "train.en").is_file()


def test_pairs_that_are_not_utf8_are_left_out_and_counted(site: FaultySite, tmp_path: Path) -> None:
    site.files["talks.tgz"] = archive({"a.de": b"gut\nsch\xf6n\n", "a.en": "good\nnice\n"})
    said: list[str] = []
    pair = (Pair("talks.tgz/a.de", "talks.tgz/a.en"),)
    fetch(dataset(site, train=pair, test=()), tmp_path, said.append)
    assert (tmp_path / "train.en").read_text() == "good\n"
    assert "1 pair left out, for bytes that are not UTF-8" in said


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (archive({"a.de": "eins\nzwei\n", "a.en": "one\n"}), "one of them has no sentence 2"),
        (archive({"a.de": "eins\n"}), "has no file a.en"),
        (archive({"a.de": "eins\n"}, links=("a.en",)), "has no file a.en"),
        (archive({"a.de": "eins\n" * 9999, "a.en": "one\n" * 9999})[:-60], "is damaged"),
        (b"<html>Log in to go on</html>" * 40, "is damaged"),
        (gzip.compress(b"no archive" * 100), "is damaged"),
    ],
    ids=["missing line", "missing file", "link", "cut short", "web page", "other content"],
)
def test_an_archive_without_the_texts_is_refused(
    content: bytes, problem: str, site: FaultySite, tmp_path: Path
) -> None:
    site.files["talks.tgz"] = content
    pair = (Pair("talks.tgz/a.de", "talks.tgz/a.en"),)
    assert problem in refusal(dataset(site, train=pair, test=()), tmp_path)
    assert texts(tmp_path) == ["SHA256SUMS"]


def test_missing_disk_space_is_reported_before_downloading(
    site: FaultySite, tmp_path: Path
) -> None:
    message = refusal(dataset(site, text_bytes=10**18), tmp_path)
    assert "talks needs 1000000000.0 GB more, and" in message
    assert site.asked == []


def test_an_invalid_list_of_checksums_is_refused(site: FaultySite, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("abc  ../../x\n")
    assert "SHA256SUMS, line 1, is not a checksum" in refusal(dataset(site), tmp_path)


def test_a_kill_between_two_texts_is_repaired(
    site: FaultySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are listed before they are put in place, so that they count as npformer's."""

    class KilledError(BaseException):
        pass

    add, calls = fetching._Sums.add, []

    def killed(sums: fetching._Sums, more: dict[str, str]) -> None:
        add(sums, more)
        calls.append(more)
        if len(calls) == 2:
            raise KilledError

    monkeypatch.setattr(fetching._Sums, "add", killed)
    with pytest.raises(KilledError):
        fetch(dataset(site), tmp_path, print)
    assert texts(tmp_path) == ["SHA256SUMS"]
    monkeypatch.undo()
    fetch(dataset(site), tmp_path, print)
    assert len(texts(tmp_path)) == 7


@pytest.mark.parametrize(
    ("published", "stride"),
    [
        (True, 4),
        *(pytest.param(published, 1, marks=pytest.mark.campaign) for published in (True, False)),
    ],
)
def test_a_fetch_that_is_killed_at_any_change_of_a_file_ends_the_same(
    published: bool, stride: int, site: FaultySite, tmp_path: Path
) -> None:
    def files(out: Path) -> dict[str, bytes]:
        paths = (path for path in out.rglob("*") if path.is_file())
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}

    wanted, number = dataset(site), 1 - stride
    if not published:
        wanted = replace(wanted, downloads=(replace(wanted.downloads[0], sha256=None),))
    fetch(wanted, tmp_path / "whole", print)
    killed = True
    while killed:
        number += stride
        out = tmp_path / f"{number}"
        killed = kills_itself_at(number, lambda out=out: fetch(wanted, out, print))  # type: ignore[misc]
        fetch(wanted, out, print)
        assert files(out) == files(tmp_path / "whole"), number
    assert number > 30


def test_what_a_kill_left_unfinished_is_removed_and_nothing_else(
    site: FaultySite, tmp_path: Path
) -> None:
    ours, another = tmp_path / ".train.en.0123abcd.tmp", tmp_path / ".notes.0123abcd.tmp"
    for path in (ours, another):
        path.write_text("half")
    fetch(dataset(site), tmp_path, print)
    assert not ours.exists()
    assert another.exists()


@pytest.mark.parametrize("known", DATASETS.values(), ids=str)
def test_each_dataset_is_described_completely(known: Dataset) -> None:
    names = {download.name for download in known.downloads}
    places = [
        place
        for part in PARTS
        for pair in getattr(known, part)
        for place in (pair.source, pair.target)
    ]
    assert {place.partition("/")[0] for place in places} == names
    assert len(set(places)) == len(places)
    assert known.train
    assert known.test
    assert bool(known.valid) != bool(known.held_out)
    for download in known.downloads:
        assert download.address.startswith("https://")
        assert download.sha256 is None or len(bytes.fromhex(download.sha256)) == 32
        assert download.size > 10_000
