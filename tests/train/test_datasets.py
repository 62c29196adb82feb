"""Downloads: verified, and limited in size and time."""

import hashlib
import io
import itertools
import time
import urllib.request
from pathlib import Path

import pytest

from npformer.errors import UserError
from train import datasets
from train.datasets import Dataset, fetch

CONTENT = b"a line\n" * 100
DATASET = Dataset(
    "words",
    "https://host.example/",
    "free",
    {"words.txt": hashlib.sha256(CONTENT).hexdigest()},
    largest=len(CONTENT),
)


class Endless(io.BytesIO):
    """A server that sends forever, `block` bytes at a time."""

    block = 1 << 16

    def read1(self, size: int | None = -1, /) -> bytes:
        return b"x" * self.block


def answering(patch: pytest.MonkeyPatch, answer: io.BytesIO) -> None:
    patch.setattr(urllib.request, "urlopen", lambda *_, **__: answer)


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, io.BytesIO(CONTENT))
    messages: list[str] = []
    fetch(DATASET, tmp_path, messages.append)
    fetch(DATASET, tmp_path, messages.append)
    assert (tmp_path / "words.txt").read_bytes() == CONTENT
    assert len(messages) == 1


def test_a_download_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, Endless())
    with pytest.raises(UserError, match=r"words\.txt \(it has more than 700 bytes\)"):
        fetch(DATASET, tmp_path, print)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_takes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Endless()
    slow.block = 1
    answering(monkeypatch, slow)
    hours = itertools.count(0, 100)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    with pytest.raises(UserError, match=r"it takes more than 300 seconds"):
        fetch(DATASET, tmp_path, print)
    assert datasets.MULTI30K.largest > 2_150_008  # its longest file
