"""A prepared corpus: parallel text as token ids on disk, mapped into memory and never loaded whole.

corpus/
  tokenizer.spm               or, if the vocabulary is not shared, source.spm and target.spm
  train.source.tokens.npy     [tokens], uint16 or uint32: all sentences, one after the other
  train.source.offsets.npy    [pairs + 1], int64: where each begins
  ...                         the same for train.target, valid.source and valid.target
  valid.source.txt            the text itself, every line of it, for BLEU
  valid.target.txt
  manifest.json               written last: what is here, and what it was made of

The manifest holds the SHA-256 of every other file, and of itself.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npformer.errors import UserError
from npformer.files import atomic_write, whole_directory
from npformer.packed import Packed
from npformer.tokenizer import Algorithm, Normalization, Tokenizer, TokenizerPair
from train.arrays import OFFSETS, SentencesWriter, ids_dtype, open_array
from train.manifest import (
    CONTENTS,
    FORMAT,
    OURS,
    VERSION,
    OtherVersionError,
    check_contents,
    checksums,
    damaged,
    read_manifest,
    signature,
)
from train.text import PathLike, TextFile, read_lines, read_parallel, survey_parallel

logger = logging.getLogger("npformer")

# Lines that are encoded at a time: enough to keep SentencePiece's threads busy.
_CHUNK = 10_000

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total), in lines; stages are "vocabulary", "train", "valid"."""


@dataclass(frozen=True, eq=False)
class Sentences:
    """Many sentences of ids in two arrays.

    `tokens` is [total], unsigned; `offsets` is [sentences + 1], int64: sentence i is
    tokens[offsets[i] : offsets[i + 1]]. There are no begin or end ids.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[int]]) -> Sentences:
        """Sentences in memory."""
        packed = Packed.of(sentences)
        return cls(packed.tokens, packed.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[Any]:
        """The ids of sentence i, a view."""
        if not 0 <= i < len(self):
            raise IndexError(f"there is no sentence {i} among {len(self)}")
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[sentences]: ids a sentence."""
        return np.diff(self.offsets)

    def take(self, indices: NDArray[np.integer[Any]]) -> Packed:
        """The sentences at `indices` [n], in that order: Packed, int32."""
        lengths = self.lengths[indices]
        # Token k of the result lies as far into its sentence as k is beyond the sentence's start.
        shifts = self.offsets[:-1][indices] - (np.cumsum(lengths) - lengths)
        positions = np.arange(lengths.sum()) + np.repeat(shifts, lengths)
        return Packed(self.tokens[positions].astype(np.int32), lengths)


@dataclass(frozen=True, eq=False)
class ParallelTokens:
    """Pairs of sentences as ids, with no begin or end: sources[i] and targets[i] are a pair."""

    sources: Sentences
    targets: Sentences

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"{len(self.sources)} sources, but {len(self.targets)} targets")

    @classmethod
    def of(
        cls, sources: Iterable[Sequence[int]], targets: Iterable[Sequence[int]]
    ) -> ParallelTokens:
        """Pairs in memory."""
        return cls(Sentences.of(sources), Sentences.of(targets))

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.sources)

    def source(self, i: int) -> NDArray[Any]:
        """The source ids of pair i, a view."""
        return self.sources[i]

    def target(self, i: int) -> NDArray[Any]:
        """The target ids of pair i, a view."""
        return self.targets[i]

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """[pairs]: source ids a pair."""
        return self.sources.lengths

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """[pairs]: target ids a pair."""
        return self.targets.lengths


@dataclass(frozen=True, eq=False)
class Corpus:
    """A prepared corpus, open for reading."""

    directory: Path
    train: ParallelTokens
    valid: ParallelTokens
    tokenizers: TokenizerPair
    manifest: dict[str, Any]

    @classmethod
    def open(cls, directory: PathLike) -> Corpus:
        """Open what `prepare` wrote.

        Raises UserError for anything else: a missing or foreign directory, a later version's, or
        one whose files are cut short or do not belong together.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        try:
            tokenizers = TokenizerPair.load(directory, manifest["tokenizers"])
        except UserError as error:
            raise damaged(directory, str(error)) from error
        check_contents(directory, manifest)
        vocabularies = {
            "source": tokenizers.source.vocab_size,
            "target": tokenizers.target.vocab_size,
        }

        def split(name: str) -> ParallelTokens:
            facts = manifest["splits"][name]
            source, target = (
                _open_sentences(
                    directory,
                    f"{name}.{side}",
                    facts[f"{side}_tokens"],
                    facts["pairs"],
                    vocabularies[side],
                )
                for side in ("source", "target")
            )
            return ParallelTokens(source, target)

        return cls(directory, split("train"), split("valid"), tokenizers, manifest)

    @cached_property
    def fingerprint(self) -> str:
        """What tells this corpus from others: the SHA-256 of what its manifest says."""
        return signature(self.manifest)

    def valid_text(self) -> tuple[list[str], list[str]]:
        """The validation text, source and target, of every pair (`valid` may lack some of them)."""
        source, target = (
            list(read_lines(self.directory / f"valid.{side}.txt")) for side in ("source", "target")
        )
        return source, target


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
    """Learn the vocabulary, turn the text into ids, and write the corpus directory `out`.

    Text is given as files or lists of files (the n-th source file belongs to the n-th target file).
    `shared` learns one vocabulary of both languages, as in the paper, else each gets one of
    `vocab_size`. A pair is dropped, and counted in the manifest, if either side is empty or has
    more than `max_length` ids (not counting the end). At most `vocabulary_lines` lines, spread
    evenly, teach the vocabulary: they must fit into memory, and nothing else must.

    The directory appears under its name when it is complete (a killed run leaves at most a hidden
    `.name.*.tmp` beside it, which may be deleted). One that holds a prepared corpus is
    replaced if `overwrite` is set; nothing else ever is. The same files and settings give the same
    bytes. Raises UserError for unusable files or settings.
    """
    for what, number in (("max_length", max_length), ("vocabulary_lines", vocabulary_lines)):
        if number < 1:
            raise UserError(f"{what} must be at least 1, not {number}")
    out = Path(os.path.realpath(out))
    _check_replaceable(out, overwrite)
    report = progress or (lambda stage, done, total: None)
    paths = {
        "train": (_listed(train_source), _listed(train_target)),
        "valid": (_listed(valid_source), _listed(valid_target)),
    }
    files = {split: survey_parallel(*both) for split, both in paths.items()}

    def learn(files: list[TextFile]) -> Tokenizer:
        return Tokenizer.train(
            _spread(files, vocabulary_lines, report),
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
                    split: _encode_split(
                        temporary, split, *files[split], tokenizers, max_length, report
                    )
                    for split in ("train", "valid")
                },
            }
            _write_text(temporary, *paths["valid"])
            manifest["contents"] = checksums(temporary)
            manifest["sha256"] = signature(manifest)
            with atomic_write(temporary / "manifest.json") as file:
                text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
                # A path that is not UTF-8 has surrogates, and \udcff is how JSON writes one.
                file.write(text.encode(errors="backslashreplace"))
            _check_replaceable(out, overwrite)  # again: it may have come into being meanwhile
    except OSError as error:
        raise UserError(f"cannot write the corpus {out}: {error.strerror}") from error
    return Corpus.open(out)


def _listed(paths: PathLike | Sequence[PathLike]) -> list[PathLike]:
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)


def _spread(files: list[TextFile], limit: int, report: Progress) -> Iterator[str]:
    """At most `limit` lines of the files, evenly spread."""
    total = sum(file.lines for file in files)
    limit = min(limit, total)
    lines = itertools.chain.from_iterable(read_lines(file.path, warn=False) for file in files)
    for number, line in enumerate(lines):
        if number % _CHUNK == 0:
            report("vocabulary", number, total)
        if (number + 1) * limit // total > number * limit // total:
            yield line
    report("vocabulary", total, total)


def _encode_split(
    directory: Path,
    split: str,
    sources: list[TextFile],
    targets: list[TextFile],
    tokenizers: TokenizerPair,
    max_length: int,
    report: Progress,
) -> dict[str, Any]:
    """Write the ids of one split. Returns its part of the manifest."""
    total = sum(file.lines for file in sources)
    pairs = read_parallel([file.path for file in sources], [file.path for file in targets])
    empty = too_long = done = 0
    with (
        SentencesWriter(directory, f"{split}.source", tokenizers.source.vocab_size) as source_out,
        SentencesWriter(directory, f"{split}.target", tokenizers.target.vocab_size) as target_out,
    ):
        while chunk := list(itertools.islice(pairs, _CHUNK)):
            report(split, done, total)
            encoded = zip(
                tokenizers.source.encode_lines([source for source, _ in chunk]),
                tokenizers.target.encode_lines([target for _, target in chunk]),
                strict=True,
            )
            kept = []
            for pair in encoded:
                shorter, longer = sorted(map(len, pair))
                if shorter == 0:
                    empty += 1
                elif longer > max_length:
                    too_long += 1
                else:
                    kept.append(pair)
            source_out.append([source for source, _ in kept])
            target_out.append([target for _, target in kept])
            done += len(chunk)
    report(split, done, total)
    dropped = f"{empty} empty on a side, {too_long} longer than {max_length} tokens"
    if empty + too_long == total:
        raise UserError(f"no pair of the {split} text is left: of {total}, {dropped}")
    if empty + too_long:
        logger.warning("%s: %d of %d pairs dropped: %s", split, empty + too_long, total, dropped)
    return {
        "pairs": total - empty - too_long,
        "source_tokens": source_out.tokens,
        "target_tokens": target_out.tokens,
        "dropped": {"empty": empty, "too_long": too_long},
    }


def _write_text(directory: Path, sources: list[PathLike], targets: list[PathLike]) -> None:
    """Write the validation text, its lines ended alike."""
    with (
        atomic_write(directory / "valid.source.txt") as source_file,
        atomic_write(directory / "valid.target.txt") as target_file,
    ):
        for source, target in read_parallel(sources, targets):
            source_file.write(source.encode() + b"\n")
            target_file.write(target.encode() + b"\n")


def _check_replaceable(out: Path, overwrite: bool) -> None:
    """Raise UserError unless `out` is free, or a prepared corpus and nothing else."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; choose a directory for the corpus")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        read_manifest(out)
    except OtherVersionError:
        pass
    except UserError as error:
        # A damaged manifest asks for the corpus to be prepared again: then it may be, if all else
        # says that it is one.
        if not {"manifest.json", *CONTENTS} <= names <= OURS:
            raise UserError(
                f"{out} is not empty and not a prepared corpus; choose another"
            ) from error
    if not overwrite:
        raise UserError(f"{out} already holds a prepared corpus; choose another, or overwrite it")
    if foreign := sorted(names - OURS):
        raise UserError(f"{out} also holds {foreign[0]!r}, which is no part of the corpus; move it")
    for path in out.iterdir():
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is no file of a corpus; move it")


def _open_sentences(
    directory: Path, name: str, tokens: int, pairs: int, vocab_size: int
) -> Sentences:
    """Map sentences into memory, after it is known that they are what the manifest says."""
    try:
        ids = open_array(directory / f"{name}.tokens.npy", ids_dtype(vocab_size), tokens)
        offsets = open_array(directory / f"{name}.offsets.npy", OFFSETS, pairs + 1)
    except UserError as error:
        raise damaged(directory, str(error)) from error
    if not (offsets[0] == 0 and offsets[-1] == tokens and (offsets[1:] > offsets[:-1]).all()):
        raise damaged(directory, f"the offsets in {name}.offsets.npy are not those of sentences")
    if ids.max() >= vocab_size:
        raise damaged(directory, f"{name}.tokens.npy has ids that its vocabulary has not")
    return Sentences(ids, offsets)
