"""A prepared corpus: parallel text as token ids on disk, mapped into memory and never loaded whole.

corpus/
  tokenizer.spm               or, if the vocabulary is not shared, source.spm and target.spm
  train.source.tokens.npy     [tokens], uint16 or uint32: all sentences, one after the other
  train.source.offsets.npy    [pairs + 1], int64: where each begins
  ...                         the same for train.target, valid.source and valid.target
  valid.source.txt            the text itself, every line of it, for BLEU
  valid.target.txt
  manifest.json               written last: what is here, and what it was made of
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npformer.errors import UserError
from npformer.files import atomic_write, sync_directory
from npformer.packed import Packed
from npformer.tokenizer import Algorithm, Normalization, Tokenizer, TokenizerPair
from train.text import PathLike, TextFile, read_lines, read_parallel, survey_parallel

logger = logging.getLogger("npformer")

FORMAT = "npformer corpus"
VERSION = 1

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
        manifest = _read_manifest(directory)
        for name, sha256 in manifest["tokenizers"].items():
            try:
                found = hashlib.sha256((directory / name).read_bytes()).hexdigest()
            except OSError as error:
                raise _damaged(directory, f"{name} cannot be read") from error
            if found != sha256:
                raise _damaged(directory, f"{name} has been altered")

        def split(name: str) -> ParallelTokens:
            facts = manifest["splits"][name]
            source, target = (
                _open_sentences(
                    directory, f"{name}.{side}", facts[f"{side}_tokens"], facts["pairs"]
                )
                for side in ("source", "target")
            )
            return ParallelTokens(source, target)

        for side in ("source", "target"):
            lines = sum(file["lines"] for file in manifest["files"]["valid"][side])
            try:
                with open(directory / f"valid.{side}.txt", "rb") as file:
                    count = sum(1 for _ in file)
            except OSError as error:
                raise _damaged(directory, f"valid.{side}.txt cannot be read") from error
            if count != lines:
                raise _damaged(directory, f"valid.{side}.txt has {count} lines and not {lines}")
        return cls(
            directory, split("train"), split("valid"), TokenizerPair.load(directory), manifest
        )

    @cached_property
    def fingerprint(self) -> str:
        """What tells this corpus from others: the SHA-256 of its manifest."""
        return hashlib.sha256((self.directory / "manifest.json").read_bytes()).hexdigest()

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

    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
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
            "tokenizers": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(temporary.glob("*.spm"))
            },
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
        with atomic_write(temporary / "manifest.json") as file:
            file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
        _check_replaceable(out, overwrite)  # again: it may have come into being meanwhile
        _move_into_place(temporary, out)
    except OSError as error:
        raise UserError(f"cannot write the corpus {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if all went well
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
        _SentencesWriter(directory, f"{split}.source", tokenizers.source.vocab_size) as source_out,
        _SentencesWriter(directory, f"{split}.target", tokenizers.target.vocab_size) as target_out,
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


class _ArrayWriter:
    """Writes a one-dimensional .npy file in pieces."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._file = open(path, "wb")  # noqa: SIM115, closed by __exit__
        self._write_header()

    def append(self, values: Any) -> None:
        array = np.asarray(values, dtype=self._dtype)
        self._file.write(array.data)
        self._length += len(array)

    def _write_header(self) -> None:
        # NumPy leaves room for the length to grow, so that a header can be rewritten in place.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._length,),
            },
        )

    def __enter__(self) -> _ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()
            self._file.flush()
            os.fsync(self._file.fileno())


class _SentencesWriter:
    """Writes `name`.tokens.npy and `name`.offsets.npy in pieces."""

    def __init__(self, directory: Path, name: str, vocab_size: int) -> None:
        self.tokens = 0
        self._stack = ExitStack()
        dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self._tokens = self._stack.enter_context(
            _ArrayWriter(directory / f"{name}.tokens.npy", dtype)
        )
        self._offsets = self._stack.enter_context(
            _ArrayWriter(directory / f"{name}.offsets.npy", np.int64)
        )
        self._offsets.append([0])

    def append(self, sentences: list[list[int]]) -> None:
        packed = Packed.of(sentences)
        self._tokens.append(packed.tokens)
        self._offsets.append(self.tokens + packed.offsets[1:])
        self.tokens += len(packed.tokens)

    def __enter__(self) -> _SentencesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _write_text(directory: Path, sources: list[PathLike], targets: list[PathLike]) -> None:
    """Write the validation text, its lines ended alike."""
    with (
        atomic_write(directory / "valid.source.txt") as source_file,
        atomic_write(directory / "valid.target.txt") as target_file,
    ):
        for source, target in read_parallel(sources, targets):
            source_file.write(source.encode() + b"\n")
            target_file.write(target.encode() + b"\n")


_ARRAYS = [
    f"{split}.{side}.{array}.npy"
    for split in ("train", "valid")
    for side in ("source", "target")
    for array in ("tokens", "offsets")
]
_OURS = {
    *_ARRAYS,
    "tokenizer.spm",
    "source.spm",
    "target.spm",
    "valid.source.txt",
    "valid.target.txt",
    "manifest.json",
}


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
        _read_manifest(out)
    except _LaterVersionError:
        pass
    except UserError as error:
        raise UserError(f"{out} is not empty and not a prepared corpus; choose another") from error
    if not overwrite:
        raise UserError(f"{out} already holds a prepared corpus; choose another, or overwrite it")
    if foreign := sorted(names - _OURS):
        raise UserError(f"{out} also holds {foreign[0]!r}, which is no part of the corpus; move it")


def _move_into_place(temporary: Path, out: Path) -> None:
    """Rename the finished directory, and an old corpus out of its way."""
    sync_directory(temporary)
    if out.exists() and any(out.iterdir()):
        old = temporary.with_suffix(".old")
        os.rename(out, old)
        os.rename(temporary, out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, out)
    sync_directory(out.parent)


class _LaterVersionError(UserError):
    """A corpus, but one that this version cannot read."""


def _damaged(directory: Path, what: str) -> UserError:
    return UserError(f"the corpus {directory} is damaged: {what}; prepare it again")


def _read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest. Raises UserError unless it has all that `Corpus.open` needs."""
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
    except OSError as error:
        raise UserError(
            f"{directory} holds no prepared corpus (manifest.json: {error.strerror}); "
            "make one with: npformer prepare"
        ) from error
    except ValueError as error:
        raise _damaged(directory, "manifest.json is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{directory} is not a prepared corpus: its manifest.json is another's")
    version = manifest.get("version")
    if isinstance(version, int) and version > VERSION:
        raise _LaterVersionError(
            f"the corpus {directory} has version {version}, this npformer reads {VERSION}: "
            "prepare the corpus again, or use the later npformer"
        )
    try:
        dict(manifest["tokenizers"])
        for split in ("train", "valid"):
            for count in ("pairs", "source_tokens", "target_tokens"):
                int(manifest["splits"][split][count])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory, "manifest.json is incomplete") from error
    return manifest


def _open_sentences(directory: Path, name: str, tokens: int, pairs: int) -> Sentences:
    try:
        mapped = np.load(directory / f"{name}.tokens.npy", mmap_mode="r")
        offsets = np.load(directory / f"{name}.offsets.npy")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(directory, f"the arrays {name}.*.npy are missing or cut short") from error
    # The plain array behind the map: slicing a np.memmap costs microseconds.
    sentences = Sentences(np.asarray(mapped), offsets)
    whole = (
        mapped.shape == (tokens,)
        and mapped.dtype.kind == "u"
        and offsets.shape == (pairs + 1,)
        and offsets.dtype == np.int64
        and offsets[0] == 0
        and offsets[-1] == tokens
        and sentences.lengths.min(initial=1) > 0
    )
    if not whole:
        raise _damaged(directory, f"the arrays {name}.*.npy do not belong to its manifest")
    return sentences
