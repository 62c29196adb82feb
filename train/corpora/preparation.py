"""Prepares a corpus from text files: learns the vocabulary and encodes the text."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from npformer.checkpoint import WEIGHTS, load_tokenizers
from npformer.directories import whole_directory
from npformer.errors import UserError
from npformer.reading import reason
from npformer.tokenizer import Algorithm, Normalization, Tokenizer, TokenizerPair
from train.corpora.arrays import OFFSETS, ids_dtype
from train.corpora.blocks import LINES, read_blocks
from train.corpora.corpus import Corpus
from train.corpora.duplicates import SPACE, find_duplicates
from train.corpora.encoding import Encoder, Task
from train.corpora.filters import Filters
from train.corpora.manifest import FORMAT, VERSION, read_manifest
from train.corpora.text import STANDARD_INPUT, PathLike, TextFile, read_lines, survey_parallel
from train.corpora.workers import workers
from train.corpora.writer import check_replaceable, write_manifest, write_split, write_text

logger = logging.getLogger("npformer")

_REPORT_EVERY = 10_000  # lines

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total), in lines or pairs.

Stages are "vocabulary", if one is learned, "duplicates", if they are dropped, "train" and "valid".
"""

Origins = Mapping[str, Mapping[str, str]]
"""By the SHA-256 of a text: its "dataset" and its "language", as `fetched_texts` knows them."""

Files = dict[str, tuple[list[TextFile], list[TextFile]]]
"""By split: the files of both sides."""


def prepare(
    train_source: PathLike | Sequence[PathLike],
    train_target: PathLike | Sequence[PathLike],
    valid_source: PathLike | Sequence[PathLike],
    valid_target: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    vocab_size: int | None = None,
    tokenizer: PathLike | None = None,
    algorithm: Algorithm = "bpe",
    shared: bool = True,
    max_length: int = 256,
    normalization: Normalization = "nmt_nfkc",
    character_coverage: float = 1.0,
    vocabulary_lines: int = 500_000,
    max_ratio: float | None = None,
    drop_copies: bool = False,
    drop_duplicates: bool = False,
    source_script: Sequence[str] = (),
    target_script: Sequence[str] = (),
    keep_text: bool = False,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    origins: Origins | None = None,
) -> Corpus:
    """Learn the vocabulary, encode the text as token ids, and write the corpus directory `out`.

    Text is given as files or lists of files, which may be compressed by gzip, bzip2, xz or zstd;
    the n-th target file is the translation of the n-th source file. A file "-" is standard input.

    With `shared`, both languages get one vocabulary, as in the paper, or else each gets one of
    `vocab_size`. It is learned from at most `vocabulary_lines` evenly spaced lines. In place of
    `vocab_size`, `tokenizer` gives the vocabulary of another corpus or a model, by its directory,
    or a SentencePiece model, by its file.

    A pair is dropped if a side is empty or has more than `max_length` tokens, without the end. The
    training text may be filtered further; see `Filters`. What is dropped is counted in the
    manifest, with examples.

    keep_text: keep the training text too, for other segmentations of it in each epoch of training.

    jobs: processes that encode. With more than one, a script that calls this needs the usual
    `if __name__ == "__main__":`. Memory does not depend on the size of the text: it holds the lines
    that the vocabulary is learned from and a few blocks of lines for each process.

    origins: what is known of the files, for the manifest.

    The directory appears under its name when it is complete. A killed run leaves at most a hidden
    `.name.*.tmp` beside it, which the next one of that name removes. With `overwrite`, an existing
    corpus is replaced, but never anything else. The same files and settings give the same bytes,
    with any number of processes. Raises UserError for unusable files or settings.
    """
    for what, number in (("vocabulary_lines", vocabulary_lines), ("jobs", jobs)):
        if number < 1:
            raise UserError(f"{what} must be at least 1, not {number}")
    filters = Filters(
        max_length,
        max_ratio,
        drop_copies,
        drop_duplicates,
        _listed(source_script),
        _listed(target_script),
    )
    learning = {
        "algorithm": algorithm,
        "shared": shared,
        "normalization": normalization,
        "character_coverage": character_coverage,
    }
    given = _given(tokenizer, vocab_size, learning)
    out = Path(os.path.realpath(out))
    check_replaceable(out, overwrite)
    report = progress or (lambda stage, done, total: None)
    origins = origins or {}
    paths = {
        "train": (_listed(train_source), _listed(train_target)),
        "valid": (_listed(valid_source), _listed(valid_target)),
    }
    _check_standard_input(paths)

    def learn(files: list[TextFile]) -> Tokenizer:
        assert vocab_size is not None
        lines = sum(file.lines for file in files)
        if lines > vocabulary_lines:
            logger.warning(
                "vocabulary: it is learned from %s of the %s lines, evenly spaced; "
                "vocabulary_lines may be raised, and with it the memory",
                f"{vocabulary_lines:,}",
                f"{lines:,}",
            )
        return Tokenizer.train(
            _evenly_spaced(files, vocabulary_lines, report),
            vocab_size,
            algorithm=algorithm,
            normalization=normalization,
            character_coverage=character_coverage,
        )

    try:
        with whole_directory(out) as temporary:
            with TemporaryDirectory(prefix="work.", dir=temporary) as work:
                files = {s: survey_parallel(*both, Path(work)) for s, both in paths.items()}
                known = given.files.values() if given else ()
                largest = max((t.vocab_size for t in known), default=vocab_size or 0)
                _check_space(temporary, files, largest, drop_duplicates, keep_text)
                if given is not None:
                    tokenizers = given
                elif shared:
                    both = learn([*files["train"][0], *files["train"][1]])
                    tokenizers = TokenizerPair(both, both)
                else:
                    tokenizers = TokenizerPair(*map(learn, files["train"]))
                tokenizers.save(temporary)
                splits = _write_splits(
                    temporary, Path(work), files, filters, tokenizers, keep_text, jobs, report
                )
            vocabulary = (
                {"tokenizer": os.fspath(tokenizer)}
                if tokenizer is not None
                else {"vocab_size": vocab_size, **learning, "vocabulary_lines": vocabulary_lines}
            )
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "settings": {**vocabulary, **asdict(filters)},
                "vocabulary": {
                    "shared": tokenizers.shared,
                    "source": tokenizers.source.vocab_size,
                    "target": tokenizers.target.vocab_size,
                },
                "tokenizers": tokenizers.sha256,
                "files": {
                    split: {
                        side: [{**file.facts(), **origins.get(file.sha256, {})} for file in found]
                        for side, found in zip(("source", "target"), both, strict=True)
                    }
                    for split, both in files.items()
                },
                "splits": splits,
            }
            write_manifest(temporary, manifest)
            check_replaceable(out, overwrite)  # again: it may have been created in the meantime
    except OSError as error:
        raise UserError(f"cannot write the corpus {out}: {reason(error)}") from error
    return Corpus.open(out)


def _write_splits(
    directory: Path,
    work: Path,
    files: Files,
    filters: Filters,
    tokenizers: TokenizerPair,
    keep_text: bool,
    jobs: int,
    report: Progress,
) -> dict[str, Any]:
    """Write both splits, and the validation text. Returns their entries in the manifest."""
    pairs = {split: sum(file.lines for file in both[0]) for split, both in files.items()}
    wanted = write_text(directory, "valid", read_blocks(files["valid"]))
    duplicates = None
    if filters.drop_duplicates:
        duplicates = find_duplicates(
            read_blocks(files["train"]),
            pairs["train"],
            work,
            lambda done: report("duplicates", done, pairs["train"]),
        )
    # Validation text is filtered by what training requires alone, so that scores compare.
    filters_of = {"train": filters, "valid": Filters(filters.max_length)}

    def tasks(split: str) -> Iterator[Task]:
        done = 0
        for block in read_blocks(files[split]):
            again = None
            if duplicates is not None and split == "train":
                again = duplicates[done : done + block.lines].copy()
            yield Task(split, block, again)
            done += block.lines

    def counted(split: str) -> Callable[[int], None]:
        return lambda done: report(split, done, pairs[split])

    jobs = min(jobs, -(-pairs["train"] // LINES))
    entries: dict[str, Any] = {}
    found: dict[str, set[bytes]] = {}
    looked_for = frozenset().union(*wanted.values())
    with workers(
        Encoder, (tokenizers.contents, filters_of, looked_for, keep_text), jobs
    ) as encoded:
        for split in files:
            entries[split], found[split] = write_split(
                directory,
                split,
                encoded(tasks(split)),
                filters_of[split],
                tokenizers,
                counted(split),
                keep_text and split == "train",
            )
    shared = {
        what: sum(hashes[digest] for digest in hashes.keys() & found["train"])
        for what, hashes in wanted.items()
    }
    if any(shared.values()):
        logger.warning(
            "of the %s validation pairs, the training text also has: %s; scores on them say little",
            f"{pairs['valid']:,}",
            ", ".join(f"{what} {count:,}" for what, count in shared.items() if count),
        )
    entries["valid"]["in_training_text"] = shared
    return entries


def _given(
    tokenizer: PathLike | None, vocab_size: int | None, learning: dict[str, Any]
) -> TokenizerPair | None:
    """The tokenizers of a corpus, a model or a file; None if a vocabulary is to be learned."""
    if (tokenizer is None) == (vocab_size is None):
        raise UserError(
            "give either vocab_size, to learn a vocabulary, or tokenizer, to use an existing one"
        )
    if tokenizer is None:
        return None
    for name, value in learning.items():
        if value != _DEFAULTS[name]:
            raise UserError(
                f"{name} is for learning a vocabulary, and tokenizer gives one; leave out either"
            )
    return _loaded(Path(tokenizer))


def _loaded(path: Path) -> TokenizerPair:
    """The tokenizers in a file, or of a corpus or a model."""
    if path.is_file():
        one = Tokenizer.load(path)
        return TokenizerPair(one, one)
    if (path / "manifest.json").exists():
        return TokenizerPair.load(path, read_manifest(path)["tokenizers"])
    if (path / WEIGHTS).exists():
        return load_tokenizers(path)
    return TokenizerPair.load(path)


_DEFAULTS = {
    "algorithm": "bpe",
    "shared": True,
    "normalization": "nmt_nfkc",
    "character_coverage": 1.0,
}


def _listed(given: Any) -> tuple[Any, ...]:
    return (given,) if isinstance(given, str | os.PathLike) else tuple(given)


_NAMES_OF_STANDARD_INPUT = (STANDARD_INPUT, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def _check_standard_input(paths: Mapping[str, tuple[tuple[PathLike, ...], ...]]) -> None:
    given = [os.fspath(path) for both in paths.values() for side in both for path in side]
    if sum(path in _NAMES_OF_STANDARD_INPUT for path in given) > 1:
        raise UserError("standard input, -, is given more than once, and can be read only once")


def _check_space(
    directory: Path, files: Files, vocab_size: int, drop_duplicates: bool, keep_text: bool
) -> None:
    """Raise UserError if the disk may not have the space for what will be written.

    A line has at most a token for each of its bytes, and one for the space before it: what the
    vocabulary lacks becomes bytes. (In normalization, few characters become longer.) The copy of
    standard input is on the disk already.
    """
    token = ids_dtype(vocab_size).itemsize
    needed = sum(
        file.unpacked * token + (file.lines + 1) * OFFSETS.itemsize
        for both in files.values()
        for file in itertools.chain(*both)
    )
    needed += sum(file.unpacked for file in itertools.chain(*files["valid"]))  # is kept as text
    if drop_duplicates:
        needed += SPACE * sum(file.lines for file in files["train"][0])
    if keep_text:
        needed += sum(
            file.unpacked + (file.lines + 1) * OFFSETS.itemsize
            for file in itertools.chain(*files["train"])
        )
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"the corpus may take up to {needed / 1e6:,.1f} MB, and there are only "
            f"{free / 1e6:,.1f} MB left at {directory.parent}; make room, or choose another disk"
        )


def _evenly_spaced(files: list[TextFile], limit: int, report: Progress) -> Iterator[str]:
    """At most `limit` lines of the files, evenly spaced."""
    total = sum(file.lines for file in files)
    limit = min(limit, total)
    lines = itertools.chain.from_iterable(read_lines(file.readable, warn=False) for file in files)
    for number, line in enumerate(lines):
        if number % _REPORT_EVERY == 0:
            report("vocabulary", number, total)
        if (number + 1) * limit // total > number * limit // total:
            yield line
    report("vocabulary", total, total)
