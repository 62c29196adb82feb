"""Public datasets, downloaded and verified."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from npformer.errors import UserError
from npformer.files import atomic_write


@dataclass(frozen=True)
class Dataset:
    """Files under a public address, with their SHA-256 and licence terms.

    `largest` is the most bytes that a file may have; downloads stop there.
    """

    name: str
    address: str
    terms: str
    files: dict[str, str]
    largest: int


MULTI30K = Dataset(
    name="Multi30k, English and German, lower-cased and tokenised (Elliott et al., 2016)",
    address=(
        "https://raw.githubusercontent.com/multi30k/dataset/"
        "7bee46bc74186b4b6254603143610f730d40bf66/data/task1/tok/"
    ),
    terms="its authors state no licence for the text; use it for research",
    files={
        "train.lc.norm.tok.en": "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119",
        "train.lc.norm.tok.de": "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505",
        "val.lc.norm.tok.en": "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec",
        "val.lc.norm.tok.de": "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00",
        "test_2016_flickr.lc.norm.tok.en": (
            "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2"
        ),
        "test_2016_flickr.lc.norm.tok.de": (
            "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4"
        ),
    },
    largest=4 << 20,
)

_SECONDS = 300.0  # for a file, at most; a connection of 14 kB a second is fast enough
_BLOCK = 1 << 16


def fetch(dataset: Dataset, directory: Path, say: Callable[[str], None]) -> None:
    """Put the files of `dataset` into `directory`, downloading those that are missing.

    All files are verified, also existing ones. Raises UserError without a network, and for a file
    with another checksum.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, sha256 in dataset.files.items():
        path = directory / name
        if not path.exists():
            say(f"fetching {dataset.address}{name} ({dataset.terms})")
            content = _download(dataset.address + name, dataset.largest)
            _verify(content, sha256, dataset.address + name)
            with atomic_write(path) as file:
                file.write(content)
        _verify(path.read_bytes(), sha256, str(path))


def _download(address: str, largest: int) -> bytes:
    """Download an address: at most `largest` bytes, within `_SECONDS`."""
    until = time.monotonic() + _SECONDS
    content = bytearray()
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            while block := answer.read1(_BLOCK):  # what has arrived, without waiting for more
                content += block
                if len(content) > largest:
                    raise _undownloadable(address, f"it has more than {largest:,} bytes")
                if time.monotonic() > until:
                    raise _undownloadable(address, f"it takes more than {_SECONDS:g} seconds")
    except (OSError, http.client.HTTPException) as error:
        raise _undownloadable(address, getattr(error, "reason", error)) from error
    return bytes(content)


def _undownloadable(address: str, reason: object) -> UserError:
    return UserError(
        f"cannot download {address} ({reason}); connect to the network, or put the file into "
        "place yourself"
    )


def _verify(content: bytes, sha256: str, where: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{where} is not the file that is expected: its SHA-256 is {found} and not {sha256}; "
            "delete it and fetch it again"
        )
