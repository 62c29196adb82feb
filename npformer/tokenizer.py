"""Subword tokenization with SentencePiece (section 5.1)."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import sentencepiece

from npformer.errors import UserError
from npformer.files import atomic_write, sync_directory
from npformer.reading import read_plain
from npformer.sentencepiece_model import is_whole

Algorithm = Literal["bpe", "unigram"]
Normalization = Literal["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"]

# Everything that programs may split lines at, as str.splitlines does.
_LINE_SEPARATORS = re.compile("[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_LARGEST = 256 << 20  # bytes of a file; a piece takes some 20, so millions fit
_SURROGATES = re.compile("[\ud800-\udfff]")

_LARGEST_VOCABULARY = 1_000_000_000  # ids have 32 bits
_SPECIAL = 3  # the unknown, begin and end tokens
_LEAST_COVERAGE = 0.98  # the least that SentencePiece accepts


class Tokenizer:
    """A learned subword vocabulary.

    Id 0 is the unknown token, 1 the begin token and 2 the end token; there is no padding token,
    because batches are packed. With byte fallback (the default), a character outside the
    vocabulary becomes the ids of its UTF-8 bytes, and nothing is unknown.

    Text is normalized first: "nmt_nfkc" (NFKC, and control characters and unusual spaces become
    spaces), "nmt_nfkc_cf" (also case-folded), "nfkc", "nfkc_cf", or "identity" (unchanged).
    SentencePiece then strips spaces (U+0020) at both ends and merges repeated ones. With "identity"
    and byte fallback, `decode(encode(text))` returns everything else, with three exceptions:
    U+2581, SentencePiece's mark for a space, becomes a space, and may merge with spaces beside it;
    line separators become spaces; lone surrogates, which UTF-8 cannot hold, become U+FFFD.
    """

    def __init__(self, model: bytes) -> None:
        """model: the contents of a SentencePiece model file. Raises UserError if it is not one."""
        if not is_whole(model):
            raise UserError("this is not a SentencePiece model, or it is cut short")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            # SentencePiece accepts pieces that are not UTF-8, and fails when it uses them. Of
            # encoding, only the normalization fails with a damaged model.
            everything = range(self.vocab_size)
            self.decode(everything)
            self._processor.normalize(" ".join(self.pieces(everything)))
        except (RuntimeError, UnicodeDecodeError) as error:
            raise UserError("this is not a SentencePiece model, or it is damaged") from error
        if min(self.begin_id, self.end_id, self.unknown_id) < 0:
            raise UserError(
                "this vocabulary lacks one of <s>, </s> and <unk>; train one that has all three"
            )
        self._model = model

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        vocab_size: int,
        *,
        algorithm: Algorithm = "bpe",
        byte_fallback: bool = True,
        normalization: Normalization = "nmt_nfkc",
        character_coverage: float = 1.0,
    ) -> Tokenizer:
        """Learn a vocabulary of exactly `vocab_size` tokens; the same lines give the same one.

        lines: read once and kept in memory; may be an open text file.
        character_coverage: 0.98 to 1, the share of characters that get a token of their own; the
        rarest are left to byte fallback. Lines that are longer than 4192 bytes or contain U+2585
        are ignored. Raises UserError for invalid settings, also if `vocab_size` is too large or
        too small for this text.
        """
        _check_one_of("tokenizer algorithm", algorithm, get_args(Algorithm))
        _check_one_of("normalization", normalization, get_args(Normalization))
        if type(vocab_size) is not int or not 1 <= vocab_size <= _LARGEST_VOCABULARY:
            raise UserError(
                "the vocabulary size must be a whole number of at least 1 and at most "
                f"{_LARGEST_VOCABULARY:,}; it is {vocab_size}"
            )
        if not _LEAST_COVERAGE <= character_coverage <= 1:
            raise UserError(
                f"character coverage must be {_LEAST_COVERAGE} to 1, not {character_coverage}"
            )

        failures: list[BaseException] = []

        def guarded() -> Iterator[str]:
            # SentencePiece replaces an exception that `lines` raises by one of its own.
            try:
                for line in lines:
                    yield _without_surrogates(line.removesuffix("\n"))
            except BaseException as error:
                failures.append(error)
                raise

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=guarded(),
                model_writer=model,
                model_type=algorithm,
                # With a smaller one SentencePiece fails before it counts what the text needs.
                vocab_size=max(vocab_size, _SPECIAL),
                byte_fallback=byte_fallback,
                normalization_rule_name=normalization,
                character_coverage=character_coverage,
                pad_id=-1,
                num_threads=16,  # fixed, because the sums of unigram depend on it
                minloglevel=2,
            )
        except RuntimeError as error:
            if failures:
                raise failures[0] from None
            raise _explained(error, vocab_size, character_coverage) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a SentencePiece model file. Raises UserError if it is missing or is not one."""
        return cls._of(_content(path), path)

    @classmethod
    def _of(cls, model: bytes, path: str | os.PathLike[str]) -> Tokenizer:
        try:
            return cls(model)
        except UserError as error:
            raise UserError(f"cannot read the tokenizer {path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a SentencePiece model file, whole or not at all."""
        with atomic_write(path) as file:
            file.write(self._model)

    @property
    def model(self) -> bytes:
        """The contents of the file that `save` writes."""
        return self._model

    @property
    def vocab_size(self) -> int:
        """The number of tokens; ids are 0 to vocab_size - 1."""
        return int(self._processor.vocab_size())

    @property
    def begin_id(self) -> int:
        """The id of the begin token, which the decoder reads first."""
        return int(self._processor.bos_id())

    @property
    def end_id(self) -> int:
        """The id of the end token, which ends a sentence."""
        return int(self._processor.eos_id())

    @property
    def unknown_id(self) -> int:
        """The id for characters outside the vocabulary, if there is no byte fallback."""
        return int(self._processor.unk_id())

    def encode(self, text: str) -> list[int]:
        """The token ids of one sentence, without begin and end ids."""
        return self.encode_lines([text])[0]

    def encode_lines(self, lines: Sequence[str], *, threads: int | None = None) -> list[list[int]]:
        """The token ids of many sentences; much faster than one at a time.

        threads: of SentencePiece; by default one for each core.
        """
        texts = [_without_surrogates(text) for text in lines]
        ids: list[list[int]] = self._processor.encode(texts, num_threads=threads or -1)
        return ids

    def normalized(self, lines: Sequence[str]) -> list[str]:
        """Sentences as they are segmented: normalized, with U+2581 before each word."""
        texts: list[str] = self._processor.normalize([_without_surrogates(t) for t in lines])
        return texts

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, always a single line, without begin and end tokens.

        Bytes that are not UTF-8 become U+FFFD, and line separators become spaces. Raises
        IndexError for an id outside the vocabulary.
        """
        text: str = self._processor.decode([int(i) for i in ids])
        return _LINE_SEPARATORS.sub(" ", text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The piece of each id as in the vocabulary: with U+2581 for a space, <0x0A> for a byte."""
        found: list[str] = self._processor.id_to_piece([int(i) for i in ids])
        return found


SHARED = ("tokenizer.spm",)
SEPARATE = ("source.spm", "target.spm")


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of both languages; the same object if the vocabulary is shared."""

    source: Tokenizer
    target: Tokenizer

    @property
    def shared(self) -> bool:
        """Whether both languages share a vocabulary, as in the paper."""
        return self.source is self.target

    @property
    def files(self) -> dict[str, Tokenizer]:
        """The files that `save` writes: `tokenizer.spm` if shared, or one for each language."""
        if self.shared:
            return {"tokenizer.spm": self.source}
        return {"source.spm": self.source, "target.spm": self.target}

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each of the files."""
        return {name: hashlib.sha256(t.model).hexdigest() for name, t in self.files.items()}

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.spm` if the vocabulary is shared, or `source.spm` and `target.spm`."""
        directory = Path(directory)
        for name, tokenizer in self.files.items():
            tokenizer.save(directory / name)
        for name in {*SHARED, *SEPARATE} - set(self.files):
            (directory / name).unlink(missing_ok=True)
        sync_directory(directory)

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], sha256: Mapping[str, Any] | None = None
    ) -> TokenizerPair:
        """Read the files that `save` wrote.

        sha256: the checksums that the files must have. Raises UserError if they differ, or if
        files are missing or damaged.
        """
        directory = Path(directory)
        names = SHARED if (directory / SHARED[0]).exists() else SEPARATE
        if not any((directory / name).exists() for name in names):
            raise UserError(
                f"{directory} holds no tokenizer ({SHARED[0]}, or {' and '.join(SEPARATE)})"
            )
        contents = {name: _content(directory / name) for name in names}
        if sha256 is not None:
            _check_contents(directory, contents, sha256)
        tokenizers = [Tokenizer._of(c, directory / name) for name, c in contents.items()]
        return cls(tokenizers[0], tokenizers[-1])


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_plain(path, _LARGEST)
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror}") from error


def _check_contents(
    directory: Path, contents: Mapping[str, bytes], sha256: Mapping[str, Any]
) -> None:
    """Raise UserError unless these are exactly the files with those checksums."""
    if wrong := sorted(set(contents) ^ set(sha256)):
        what = "was added" if wrong[0] in contents else "is missing"
        raise UserError(f"the tokenizers of {directory} have been altered: {wrong[0]!r:.40} {what}")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sha256[name]:
            raise UserError(
                f"the tokenizer {directory / name} has been altered, or belongs to another "
                "model: its checksum is wrong"
            )


def _without_surrogates(text: str) -> str:
    return _SURROGATES.sub("\ufffd", text)


def _check_one_of(what: str, given: Any, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UserError(f"there is no {what} {given!r}; choose one of {', '.join(known)}")


def _explained(error: RuntimeError, vocab_size: int, character_coverage: float) -> Exception:
    """SentencePiece's error as a UserError, if it is the user's mistake."""
    message = str(error)
    if found := re.search(r"size too high \(\d+\)\. Please set it to a value <= (\d+)", message):
        return UserError(
            f"a vocabulary of {vocab_size} is too large for this text: "
            f"set the vocabulary size to {found[1]} or less, or give more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        advice = ""
        if character_coverage > _LEAST_COVERAGE:
            advice = (
                f", or lower the character coverage from {character_coverage:g} (to "
                f"{_LEAST_COVERAGE} at least)"
            )
        return UserError(
            f"a vocabulary of {vocab_size} is too small for the characters of this text: "
            f"set the vocabulary size to {found[1]} or more{advice}"
        )
    if "!sentences_.empty()" in message or "all_chars_count" in message:
        return UserError("there is no text to learn a vocabulary from: no line can be used")
    return error
