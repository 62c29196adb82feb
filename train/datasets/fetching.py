"""Fetches a dataset: downloads its files, and writes its texts, a sentence a line."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from npformer.directories import check_not_a_file
from npformer.errors import UserError
from npformer.files import atomic_write, unfinished
from npformer.reading import read_plain
from train.datasets.archives import sentences_of
from train.datasets.catalogue import DATASETS, PARTS, Dataset, Pair
from train.datasets.download import Progress, Say, download, file_sha256, remove_unfinished
from train.own_files import only_one_in
from train.wording import counted

_DOWNLOADS, _SUMS = "downloads", "SHA256SUMS"


def fetch(
    dataset: Dataset,
    directory: Path,
    say: Say,
    progress: Progress = lambda name, done, size: None,
) -> None:
    """Download a dataset, and write its texts into `directory`: train.en, train.de, valid.en ...

    Texts have a sentence a line, in UTF-8. The file SHA256SUMS lists the texts and the downloads,
    as `sha256sum --check` reads it. What is there already is verified, not fetched again.

    Raises UserError for what `download` refuses, a lack of space, and a text that is not fetch's
    own or has changed.
    """
    downloads = directory / _DOWNLOADS
    check_not_a_file(downloads, "the texts")
    downloads.mkdir(parents=True, exist_ok=True)
    with only_one_in(directory):
        _remove_unfinished(dataset, directory)
        sums = _Sums(directory)
        if _is_complete(dataset, directory, sums):
            say(f"{directory}: {dataset.about}, verified")
            return
        _check_space(dataset, directory)
        say(f"{dataset.about}; {dataset.terms}")
        unpublished = {}
        for wanted in dataset.downloads:
            name = f"{_DOWNLOADS}/{wanted.name}"
            if not (downloads / wanted.name).exists():
                say(f"fetching {wanted.address} ({wanted.size:,} bytes)")
            found = download(wanted, downloads, say, progress, sums.of(name))
            if wanted.sha256 is None and sums.of(name) is None:
                say(f"{wanted.name}: no checksum is published; this download has SHA-256 {found}")
                unpublished[name] = found  # listed when it can be read, for it may be damaged
            else:
                sums.add({name: found})
        _write_texts(dataset, directory, sums, unpublished, say)
        say(f"{directory} is complete; {downloads} may be deleted")


def fetched_texts(paths: Sequence[str | os.PathLike[str]]) -> dict[str, dict[str, str]]:
    """What is known of those of these texts that `fetch` wrote, by the SHA-256 that they had then.

    Of each, the name of its "dataset", and the code of its "language".
    """
    found = {}
    for path in map(Path, paths):
        try:
            sums = _Sums(path.parent)
        except UserError:  # it is not ours
            continue
        for dataset in DATASETS.values():
            downloads = (f"{_DOWNLOADS}/{wanted.name}" for wanted in dataset.downloads)
            texts = {name for part in PARTS for name in dataset.texts(part)}
            digest = sums.of(path.name)
            if digest and path.name in texts and all(map(sums.of, (*downloads, *texts))):
                language = path.name.rpartition(".")[2]
                found[digest] = {"dataset": dataset.name, "language": language}
    return found


def _remove_unfinished(dataset: Dataset, directory: Path) -> None:
    """Remove unfinished files of killed processes, which are as large as texts."""
    names = {_SUMS, *(name for part in PARTS for name in dataset.texts(part))}
    for path in unfinished(directory, names.__contains__):
        path.unlink()
    remove_unfinished(dataset.downloads, directory / _DOWNLOADS)


def _is_complete(dataset: Dataset, directory: Path, sums: _Sums) -> bool:
    """Whether all texts are there. Raises UserError for a text that is not ours, or has changed."""
    complete = True
    for name in (name for part in PARTS for name in dataset.texts(part)):
        path, known = directory / name, sums.of(name)
        if not os.path.lexists(path):
            complete = False
        elif known is None or file_sha256(path) != known:
            raise UserError(
                f"{path} was not fetched by npformer, or has changed since; move it away, or give "
                "another --out"
            )
    return complete


def _check_space(dataset: Dataset, directory: Path) -> None:
    def size(path: Path) -> int:
        return path.stat().st_size if path.exists() else 0

    downloads = directory / _DOWNLOADS
    needed = dataset.text_bytes + sum(
        d.size - max(size(downloads / d.name), size(downloads / f"{d.name}.part"))
        for d in dataset.downloads
    )
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory}: {dataset.name} needs {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} "
            "GB are free; make room, or give another --out"
        )


def _write_texts(
    dataset: Dataset, directory: Path, sums: _Sums, unpublished: dict[str, str], say: Say
) -> None:
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(atomic_write(directory / name))
            for part in PARTS
            for name in dataset.texts(part)
        }
        counts, undecodable = dict.fromkeys(PARTS, 0), 0
        for part in PARTS:
            for pair in getattr(dataset, part):
                for number, sentences in enumerate(_pairs(directory / _DOWNLOADS, pair), start=1):
                    if None in sentences:
                        undecodable += 1
                        continue
                    held_out = dataset.held_out and number % dataset.held_out == 0
                    goes_to = "valid" if part == "train" and held_out else part
                    counts[goes_to] += 1
                    for name, sentence in zip(dataset.texts(goes_to), sentences, strict=True):
                        files[name].write(f"{sentence}\n".encode())
        for file in files.values():
            file.flush()
        # Listed first: a file that is not listed counts as the user's.
        made = {name: file_sha256(Path(file.name)) for name, file in files.items()}
        sums.add(made | unpublished)
    if undecodable:
        say(f"{counted(undecodable, 'pair')} left out, for bytes that are not UTF-8")
    say(", ".join(f"{part}: {counted(counts[part], 'pair')}" for part in PARTS))


_END: Any = object()


def _pairs(downloads: Path, pair: Pair) -> Iterator[tuple[str | None, str | None]]:
    """The sentences of two texts. Raises UserError if one has more than the other."""
    texts = (sentences_of(downloads, place) for place in (pair.source, pair.target))
    for number, found in enumerate(zip_longest(*texts, fillvalue=_END), start=1):
        if _END in found:
            raise UserError(
                f"{pair.source} and {pair.target} are not parallel: one of them has no sentence "
                f"{number:,}; delete {downloads}, and fetch it again"
            )
        yield found


class _Sums:
    """The file SHA256SUMS: what fetch has put into its directory, by name."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _SUMS
        self._sums: dict[str, str] = {}
        try:
            lines = read_plain(self._path, 1 << 20).decode("ascii", "replace").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror}") from error
        for number, line in enumerate(lines, start=1):
            found = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
            if found is None:
                raise UserError(
                    f"{self._path}, line {number}, is not a checksum; move the directory away, or "
                    "give another --out"
                )
            self._sums[found[2]] = found[1]

    def of(self, name: str) -> str | None:
        """The SHA-256 of a file; None if it is not listed."""
        return self._sums.get(name)

    def add(self, sums: dict[str, str]) -> None:
        """List more files."""
        self._sums.update(sums)
        with atomic_write(self._path) as file:
            for name, sha256 in sorted(self._sums.items()):
                file.write(f"{sha256}  {name}\n".encode())
