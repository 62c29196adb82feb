"""Subword tokenization with SentencePiece (section 5.1)."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import sentencepiece

from npformer.errors import UserError
from npformer.files import atomic_write, sync_directory
from npformer.reading import read_plain
from npformer.sentencepiece_model import is_whole
from npformer.vocabulary import Vocabulary

Algorithm = Literal["bpe", "unigram"]
Normalization = Literal["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"]

_FEW = 64  # lines
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
    vocabulary becomes the ids of its UTF-8 bytes, and nothing is unknown. The model of another
    program may have other ids; then a Vocabulary says which piece of text has which.

    Text is normalized first: "nmt_nfkc" (NFKC, and control characters and unusual spaces become
    spaces), "nmt_nfkc_cf" (also case-folded), "nfkc", "nfkc_cf", or "identity" (unchanged).
    SentencePiece then strips spaces (U+0020) at both ends and merges repeated ones. With "identity"
    and byte fallback, `decode(encode(text))` returns everything else, with three exceptions:
    U+2581, SentencePiece's mark for a space, becomes a space, and may merge with spaces beside it;
    line separators become spaces; lone surrogates, which UTF-8 cannot hold, become U+FFFD.
    """

    def __init__(self, model: bytes, vocabulary: Vocabulary | None = None) -> None:
        """model: the contents of a SentencePiece model file.

        vocabulary: the ids of pieces, if they are not SentencePiece's. Raises UserError if `model`
        is not a SentencePiece model.
        """
        if not is_whole(model):
            raise UserError("this is not a SentencePiece model, or it is cut short")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            # SentencePiece accepts pieces that are not UTF-8, and fails when it uses them. Of
            # encoding, only the normalization fails with a damaged model.
            everything = list(range(self._processor.vocab_size()))
            self._processor.decode(everything)
            self._processor.normalize(" ".join(self._processor.id_to_piece(everything)))
        except (RuntimeError, UnicodeDecodeError) as error:
            raise UserError("this is not a SentencePiece model, or it is damaged") from error
        self.vocabulary = vocabulary
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
    def load(cls, path: str | os.PathLike[str], vocabulary: Vocabulary | None = None) -> Tokenizer:
        """Read what `save` has written. Raises UserError if it is missing or is something else.

        vocabulary: to use with a SentencePiece model of another program.
        """
        beside = _vocabulary_path(path)
        if vocabulary is None and beside.exists():
            vocabulary = Vocabulary.of_json(_content(beside), beside)
        return cls._of(_content(path), path, vocabulary)

    @classmethod
    def _of(
        cls, model: bytes, path: str | os.PathLike[str], vocabulary: Vocabulary | None = None
    ) -> Tokenizer:
        try:
            return cls(model, vocabulary)
        except UserError as error:
            raise UserError(f"cannot read the tokenizer {path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a SentencePiece model file, whole or not at all, and beside it the vocabulary.

        The vocabulary's file is written only if the ids are not SentencePiece's.
        """
        with atomic_write(path) as file:
            file.write(self._model)
        if self.vocabulary:
            with atomic_write(_vocabulary_path(path)) as file:
                file.write(self.vocabulary.json)

    @property
    def model(self) -> bytes:
        """The contents of the file that `save` writes."""
        return self._model

    @property
    def vocab_size(self) -> int:
        """The number of tokens; ids are 0 to vocab_size - 1."""
        own = self.vocabulary
        return len(own.pieces) if own else int(self._processor.vocab_size())

    @property
    def begin_id(self) -> int:
        """The id of the begin token, which the decoder reads first."""
        return self.vocabulary.begin_id if self.vocabulary else int(self._processor.bos_id())

    @property
    def end_id(self) -> int:
        """The id of the end token, which ends a sentence."""
        return self.vocabulary.end_id if self.vocabulary else int(self._processor.eos_id())

    @property
    def unknown_id(self) -> int:
        """The id for characters outside the vocabulary, if there is no byte fallback."""
        return self.vocabulary.unknown_id if self.vocabulary else int(self._processor.unk_id())

    def encode(self, text: str) -> list[int]:
        """The token ids of one sentence, without begin and end ids."""
        return self.encode_lines([text])[0]

    def encode_lines(
        self, lines: Sequence[str], *, threads: int | None = None, tags: bool = True
    ) -> list[list[int]]:
        """The token ids of many sentences; much faster than one at a time.

        threads: of SentencePiece; by default one for each core, and none for a few lines, which are
        done before threads have started. tags: whether a line may begin with a tag.
        """
        texts = [_without_surrogates(text) for text in lines]
        own = self.vocabulary
        if own is None:
            return self._encoded(texts, threads, int)
        tagged = [own.split_tag(text) if tags else ([], text) for text in texts]
        found = self._encoded([text for _, text in tagged], threads, str)
        return [
            [*tag, *(own.ids.get(piece, own.unknown_id) for piece in pieces)]
            for (tag, _), pieces in zip(tagged, found, strict=True)
        ]

    def _encoded(self, texts: list[str], threads: int | None, kind: type) -> list[list[Any]]:
        """SentencePiece's ids or pieces of each text; kind: int or str."""
        if threads is None and len(texts) <= _FEW:
            return [self._processor.encode(text, out_type=kind) for text in texts]
        found: list[list[Any]] = self._processor.encode(
            texts, out_type=kind, num_threads=threads or -1
        )
        return found

    def split_tag(self, text: str) -> tuple[list[int], str]:
        """The id of the tag at the beginning of a line, if there is one, and the text after it."""
        return self.vocabulary.split_tag(text) if self.vocabulary else ([], text)

    def own_ids(self, ids: Iterable[int]) -> list[int]:
        """The token ids for those that SentencePiece has for pieces."""
        return list(ids) if self.vocabulary is None else [self._own_ids[i] for i in ids]

    @cached_property
    def _own_ids(self) -> list[int]:
        own = self.vocabulary
        assert own is not None
        pieces = self._processor.id_to_piece(list(range(self._processor.vocab_size())))
        return [own.ids.get(piece, own.unknown_id) for piece in pieces]

    def normalized(self, lines: Sequence[str]) -> list[str]:
        """Sentences as they are segmented: normalized, with U+2581 before each word."""
        texts: list[str] = self._processor.normalize([_without_surrogates(t) for t in lines])
        return texts

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, always a single line, without begin and end tokens.

        Bytes that are not UTF-8 become U+FFFD, and line separators become spaces. Raises
        IndexError for an id outside the vocabulary.
        """
        own, wanted = self.vocabulary, [int(i) for i in ids]
        if own is None:
            text: str = self._processor.decode(wanted)
        else:
            control = (own.begin_id, own.end_id)
            pieces = self.pieces([i for i in wanted if i not in control])
            text = self._processor.decode_pieces(pieces).replace("\u2581", " ").strip(" ")
        return _LINE_SEPARATORS.sub(" ", text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The piece of each id as in the vocabulary: with U+2581 for a space, <0x0A> for a byte."""
        wanted = [int(i) for i in ids]
        if self.vocabulary is None:
            found: list[str] = self._processor.id_to_piece(wanted)
            return found
        if wrong := [i for i in wanted if not 0 <= i < self.vocab_size]:
            raise IndexError(f"{wrong[0]} is not an id of a vocabulary of {self.vocab_size:,}")
        return [self.vocabulary.pieces[i] for i in wanted]


SHARED = ("tokenizer.spm",)
SEPARATE = ("source.spm", "target.spm")


def vocabulary_file(name: str) -> str:
    """The file of the Vocabulary, if there is one, of the tokenizer in the file `name`."""
    return f"{name.removesuffix('.spm')}.vocab.json"


TOKENIZER_FILES = {f for name in (*SHARED, *SEPARATE) for f in (name, vocabulary_file(name))}


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of both languages; the same object if the vocabulary is shared."""

    source: Tokenizer
    target: Tokenizer

    @property
    def shared(self) -> bool:
        """Whether both languages share a vocabulary, as in the paper.

        Models of other programs may divide each language in its own way into pieces of one
        vocabulary.
        """
        own = self.source.vocabulary
        return self.source is self.target or (own is not None and own == self.target.vocabulary)

    @property
    def control_ids(self) -> dict[str, Any]:
        """The ids that `Batch.of` takes, by its names of them."""
        return {
            "begin_id": self.target.begin_id,
            "end_id": self.target.end_id,
            "source_end_id": self.source.end_id,
        }

    @property
    def files(self) -> dict[str, Tokenizer]:
        """The files that `save` writes: `tokenizer.spm` for both languages, or one for each."""
        if self.source is self.target:
            return {"tokenizer.spm": self.source}
        return {"source.spm": self.source, "target.spm": self.target}

    @property
    def contents(self) -> dict[str, bytes]:
        """The contents of all files, with those of foreign vocabularies."""
        found = {}
        for name, tokenizer in self.files.items():
            found[name] = tokenizer.model
            if tokenizer.vocabulary:
                found[vocabulary_file(name)] = tokenizer.vocabulary.json
        return found

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each of the files."""
        return {name: hashlib.sha256(c).hexdigest() for name, c in self.contents.items()}

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.spm` for both languages, or `source.spm` and `target.spm`."""
        directory = Path(directory)
        for name, tokenizer in self.files.items():
            tokenizer.save(directory / name)
        for name in TOKENIZER_FILES - set(self.contents):
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
        foreign = [n for n in map(vocabulary_file, names) if (directory / n).exists()]
        contents = {name: _content(directory / name) for name in (*names, *foreign)}
        if sha256 is not None:
            _check_contents(directory, contents, sha256)
        return cls.of_contents(contents, directory)

    @classmethod
    def of_contents(
        cls, contents: Mapping[str, bytes], directory: str | os.PathLike[str] = ""
    ) -> TokenizerPair:
        """The tokenizers whose `contents` are given; directory: where they are, for messages."""

        def tokenizer(name: str) -> Tokenizer:
            beside = vocabulary_file(name)
            vocabulary = None
            if beside in contents:
                vocabulary = Vocabulary.of_json(contents[beside], Path(directory) / beside)
            return Tokenizer._of(contents[name], Path(directory) / name, vocabulary)

        if SHARED[0] in contents:
            both = tokenizer(SHARED[0])
            return cls(both, both)
        return cls(*map(tokenizer, SEPARATE))


def _vocabulary_path(path: str | os.PathLike[str]) -> Path:
    return Path(path).with_name(vocabulary_file(Path(path).name))


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
    if not isinstance(text, str):
        raise TypeError(f"a line must be a str, got {type(text).__name__}")
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
