"""The manifest of a prepared corpus: what is in its directory, and what it was made from.

It holds the SHA-256 of every other file and of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from npformer.directories import how_to_restore
from npformer.errors import UnreadableError, UserError
from npformer.reading import is_version, open_plain, read_json
from npformer.tokenizer import TOKENIZER_FILES
from train.corpora import kept_text

FORMAT = "npformer corpus"
VERSION = 2

# The files that the manifest has checksums of, besides the tokenizers.
CONTENTS = [
    *(
        f"{split}.{side}.{array}.npy"
        for split in ("train", "valid")
        for side in ("source", "target")
        for array in ("tokens", "offsets")
    ),
    "valid.source.txt",
    "valid.target.txt",
]
OURS = {*CONTENTS, *kept_text.FILES, *TOKENIZER_FILES, "manifest.json"}


class OtherVersionError(UserError):
    """A corpus, but one that this version cannot read."""


def damaged(directory: Path, what: str) -> UserError:
    return UserError(f"the corpus {directory} is damaged: {what}; prepare it again")


@contextmanager
def told_as_damage(directory: Path) -> Iterator[None]:
    """Tell what is wrong with files of a corpus as its damage, unless they cannot be read."""
    try:
        yield
    except UnreadableError:
        raise
    except UserError as error:
        raise damaged(directory, str(error)) from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest. Raises UserError unless it is intact and complete."""
    try:
        with told_as_damage(directory):
            manifest = read_json(directory / "manifest.json")
    except OSError as error:
        raise UserError(
            f"{directory} holds no prepared corpus (manifest.json: {error.strerror})"
            f"{how_to_restore(directory) or '; make one with: npformer prepare'}"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(
            f"{directory} is not a prepared corpus: another program wrote its manifest.json"
        )
    version = manifest.get("version")
    if not is_version(version, VERSION):
        raise OtherVersionError(
            f"the corpus {directory} has version {version!r:.20}, but this npformer reads "
            f"{VERSION}; prepare the corpus again, or use the npformer that wrote it"
        )
    if manifest.get("sha256") != signature(manifest):
        raise damaged(directory, "manifest.json has been altered")
    if not _is_complete(manifest):
        raise damaged(directory, "manifest.json is incomplete")
    return manifest


def signature(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest without its own checksum."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _is_complete(manifest: dict[str, Any]) -> bool:
    """Whether a manifest has all that `Corpus.open` reads, with the right types."""
    contents, splits = manifest.get("contents"), manifest.get("splits")
    if not isinstance(contents, dict) or not isinstance(splits, dict):
        return False
    settings = manifest.get("settings")
    if not isinstance(settings, dict) or type(settings.get("max_length")) is not int:
        return False
    if not isinstance(manifest.get("tokenizers"), dict):
        return False
    if set(contents) not in ({*CONTENTS}, {*CONTENTS, *kept_text.FILES}):
        return False
    if set(splits) != {"train", "valid"}:
        return False
    if not all(isinstance(f, dict) and f.keys() == {"bytes", "sha256"} for f in contents.values()):
        return False
    counts = [
        split.get(count) if isinstance(split, dict) else None
        for split in splits.values()
        for count in ("pairs", "source_tokens", "target_tokens")
    ]
    return all(type(count) is int and 0 < count < 1 << 48 for count in counts)


def checksums(directory: Path) -> dict[str, dict[str, Any]]:
    """The size in bytes and the SHA-256 of each file that the manifest covers."""
    found = {}
    for name in CONTENTS + [name for name in kept_text.FILES if (directory / name).exists()]:
        with open_plain(directory / name) as file:
            found[name] = {"bytes": os.fstat(file.fileno()).st_size, "sha256": _sha256(file)}
    return found


def check_contents(directory: Path, manifest: dict[str, Any]) -> None:
    """Raise UserError unless the files have the sizes and checksums in the manifest.

    Files of the right size are read and hashed completely.
    """
    for name, expected in manifest["contents"].items():
        try:
            with open_plain(directory / name) as file:
                if os.fstat(file.fileno()).st_size != expected["bytes"]:
                    raise damaged(directory, f"{name} is cut short, or too long")
                if _sha256(file) != expected["sha256"]:
                    raise damaged(directory, f"{name} has been altered")
        except OSError as error:
            raise damaged(directory, f"{name} cannot be read ({error.strerror})") from error


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
