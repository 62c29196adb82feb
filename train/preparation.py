"""Prepares a corpus from text files: learns the vocabulary and encodes the text."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from npformer.errors import UserError
from npformer.files import whole_directory
from npformer.tokenizer import Algorithm, Normalization, Tokenizer, TokenizerPair
from train.corpus import Corpus
from train.corpus_writer import Progress, check_replaceable, write_manifest, write_split, write_text
from train.manifest import FORMAT, VERSION
from train.text import PathLike, TextFile, read_lines, survey_parallel

_REPORT_EVERY = 10_000  # lines


def prepare(
    train_source: PathLike | Sequence[PathLike],
    train_target: PathLike | Sequence[PathLike],
    valid_source: PathLike | Sequence[PathLike],
    valid_target: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    vocab_size: int,
    algorithm: Algorithm = "bpe",
    shared: bool = True,
    max_length: int = 256,
    normalization: Normalization = "nmt_nfkc",
    character_coverage: float = 1.0,
    vocabulary_lines: int = 5_000_000,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Corpus:
    """Learn the vocabulary, encode the text as token ids, and write the corpus directory `out`.

    Text is given as files or lists of files; the n-th target file is the translation of the n-th
    source file. With `shared`, both languages get one vocabulary, as in the paper, or else each
    gets one of `vocab_size`. A pair is dropped, and counted in the manifest, if a side is empty or
    has more than `max_length` tokens, without the end. The vocabulary is learned from at most
    `vocabulary_lines` evenly spaced lines. Only these must fit into memory.

    The directory appears under its name when it is complete. A killed run leaves at most a hidden
    `.name.*.tmp` beside it, which may be deleted. With `overwrite`, an existing corpus is
    replaced, but never anything else. The same files and settings give the same bytes. Raises
    UserError for unusable files or settings.
    """
    for what, number in (("max_length", max_length), ("vocabulary_lines", vocabulary_lines)):
        if number < 1:
            raise UserError(f"{what} must be at least 1, not {number}")
    out = Path(os.path.realpath(out))
    check_replaceable(out, overwrite)
    report = progress or (lambda stage, done, total: None)
    paths = {
        "train": (_listed(train_source), _listed(train_target)),
        "valid": (_listed(valid_source), _listed(valid_target)),
    }
    files = {split: survey_parallel(*both) for split, both in paths.items()}

    def learn(files: list[TextFile]) -> Tokenizer:
        return Tokenizer.train(
            _evenly_spaced(files, vocabulary_lines, report),
            vocab_size,
            algorithm=algorithm,
            normalization=normalization,
            character_coverage=character_coverage,
        )

    try:
        with whole_directory(out) as temporary:
            if shared:
                both = learn([*files["train"][0], *files["train"][1]])
                tokenizers = TokenizerPair(both, both)
            else:
                tokenizers = TokenizerPair(*map(learn, files["train"]))
            tokenizers.save(temporary)
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "settings": {
                    "vocab_size": vocab_size,
                    "algorithm": algorithm,
                    "shared": shared,
                    "max_length": max_length,
                    "normalization": normalization,
                    "character_coverage": character_coverage,
                    "vocabulary_lines": vocabulary_lines,
                },
                "vocabulary": {
                    "shared": tokenizers.shared,
                    "source": tokenizers.source.vocab_size,
                    "target": tokenizers.target.vocab_size,
                },
                "tokenizers": tokenizers.sha256,
                "files": {
                    split: {
                        side: [asdict(file) for file in found]
                        for side, found in zip(("source", "target"), both, strict=True)
                    }
                    for split, both in files.items()
                },
                "splits": {
                    split: write_split(
                        temporary, split, *files[split], tokenizers, max_length, report
                    )
                    for split in ("train", "valid")
                },
            }
            write_text(temporary, *paths["valid"])
            write_manifest(temporary, manifest)
            check_replaceable(out, overwrite)  # again: it may have been created in the meantime
    except OSError as error:
        raise UserError(f"cannot write the corpus {out}: {error.strerror}") from error
    return Corpus.open(out)


def _listed(paths: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def _evenly_spaced(files: list[TextFile], limit: int, report: Progress) -> Iterator[str]:
    """At most `limit` lines of the files, evenly spaced."""
    total = sum(file.lines for file in files)
    limit = min(limit, total)
    lines = itertools.chain.from_iterable(read_lines(file.path, warn=False) for file in files)
    for number, line in enumerate(lines):
        if number % _REPORT_EVERY == 0:
            report("vocabulary", number, total)
        if (number + 1) * limit // total > number * limit // total:
            yield line
    report("vocabulary", total, total)
