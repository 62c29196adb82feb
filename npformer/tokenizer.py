"""Text to subword ids and back (section 5.1), with SentencePiece."""

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

Algorithm = Literal["bpe", "unigram"]
Normalization = Literal["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"]

# Whatever some program splits text on: those of str.splitlines, of which "\n" is only one.
_LINE_SEPARATORS = re.compile("[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_LARGEST = 256 << 20  # bytes of a file: a piece takes some 20, so millions of them fit
_SURROGATES = re.compile("[\ud800-\udfff]")

_LARGEST_VOCABULARY = 1_000_000_000  # ids have 32 bits
_SPECIAL = 3  # the unknown token, the beginning and the end
_LEAST_COVERAGE = 0.98  # that SentencePiece takes


class Tokenizer:
    """A learnt vocabulary of subwords.

    Ids: 0 is the unknown token, 1 begins a sentence, 2 ends one; there is no padding, because
    batches are packed. With byte fallback (the default), a character outside the vocabulary becomes
    the ids of its UTF-8 bytes, and nothing is unknown.

    What a round trip keeps. `normalization` is applied to the text first: "nmt_nfkc" (NFKC, and
    control characters and odd spaces become plain ones), its case-folding form "nmt_nfkc_cf",
    "nfkc", "nfkc_cf", or "identity" (none). SentencePiece then strips spaces (U+0020) at both ends
    and makes one of several. Under "identity" with byte fallback `decode(encode(text))` gives back
    all the rest, but for three things: U+2581, SentencePiece's own mark for a space, comes back as
    a space (and may add to, or vanish with, those beside it); every line separator becomes a space;
    a lone surrogate, which no UTF-8 text holds, becomes U+FFFD.
    """

    def __init__(self, model: bytes) -> None:
        """`model`: what a SentencePiece model file holds. Raises UserError if it is none."""
        if not _is_whole(model):
            raise UserError("this is not a SentencePiece model, or it is cut short")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            # It accepts pieces that are not UTF-8, and fails when it comes upon them. To normalize
            # is what encoding begins with, and all of it that a damaged model makes fail.
            everything = range(self.vocab_size)
            self.decode(everything)
            self._processor.normalize(" ".join(self.pieces(everything)))
        except (RuntimeError, UnicodeDecodeError) as error:
            raise UserError("this is not a SentencePiece model, or it is damaged") from error
        if min(self.begin_id, self.end_id, self.unknown_id) < 0:
            raise UserError("this vocabulary lacks one of <s>, </s> and <unk>; train one with all")
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
        """Learn a vocabulary of exactly `vocab_size` ids; the same lines always give the same one.

        `lines` is read once and kept in memory while it is learnt from; an open text file will do.
        `character_coverage` (0.98 to 1) is the share of all characters that must get ids of their
        own; the rarest rest is left to byte fallback. Lines of more than 4192 bytes, or that hold
        U+2585, teach nothing. Raises UserError for a setting that cannot work, which includes a
        `vocab_size` that the lines are too few or too rich for.
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
            # SentencePiece turns an exception raised by the lines into one of its own.
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
                # With fewer SentencePiece fails before it has counted what the text needs.
                vocab_size=max(vocab_size, _SPECIAL),
                byte_fallback=byte_fallback,
                normalization_rule_name=normalization,
                character_coverage=character_coverage,
                pad_id=-1,
                num_threads=16,  # fixed: unigram's sums are split by threads, not by cores
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
        """What `save` writes."""
        return self._model

    @property
    def vocab_size(self) -> int:
        """Ids are 0 to vocab_size - 1."""
        return int(self._processor.vocab_size())

    @property
    def begin_id(self) -> int:
        """What the decoder reads first."""
        return int(self._processor.bos_id())

    @property
    def end_id(self) -> int:
        """What ends a sentence."""
        return int(self._processor.eos_id())

    @property
    def unknown_id(self) -> int:
        """What stands for a character outside the vocabulary, if there is no byte fallback."""
        return int(self._processor.unk_id())

    def encode(self, text: str) -> list[int]:
        """The ids of one sentence, with no begin and no end."""
        return self.encode_lines([text])[0]

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of many sentences; much faster than one at a time."""
        ids: list[list[int]] = self._processor.encode([_without_surrogates(t) for t in lines])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, always one line; begin and end leave no trace.

        Bytes that are not UTF-8 become U+FFFD, a line separator of any kind becomes a space.
        Raises IndexError for an id outside the vocabulary.
        """
        text: str = self._processor.decode([int(i) for i in ids])
        return _LINE_SEPARATORS.sub(" ", text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each id's piece as the vocabulary spells it: U+2581 for a space, <0x0A> for a byte."""
        found: list[str] = self._processor.id_to_piece([int(i) for i in ids])
        return found


SHARED = ("tokenizer.spm",)
SEPARATE = ("source.spm", "target.spm")


@dataclass(frozen=True)
class TokenizerPair:
    """The tokenizers of both languages: one and the same where the vocabulary is shared."""

    source: Tokenizer
    target: Tokenizer

    @property
    def shared(self) -> bool:
        """Whether both languages have one vocabulary, as in the paper."""
        return self.source is self.target

    @property
    def files(self) -> dict[str, Tokenizer]:
        """What `save` writes: `tokenizer.spm` where it is shared, else one for each language."""
        if self.shared:
            return {"tokenizer.spm": self.source}
        return {"source.spm": self.source, "target.spm": self.target}

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each of the files."""
        return {name: hashlib.sha256(t.model).hexdigest() for name, t in self.files.items()}

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.spm` where it is shared, else `source.spm` and `target.spm`."""
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
        """Read what `save` wrote.

        `sha256`, where it is given, is what the files must have. Raises UserError if they have
        not, or are missing or damaged.
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
    """Raise UserError unless these are the files of those checksums, no more and no fewer."""
    if wrong := sorted(set(contents) ^ set(sha256)):
        what = "does not belong there" if wrong[0] in contents else "is missing"
        raise UserError(f"the tokenizers of {directory} have been altered: {wrong[0]!r:.40} {what}")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sha256[name]:
            raise UserError(
                f"the tokenizer {directory / name} has been altered, or is of another model: its "
                "checksum is wrong"
            )


def _without_surrogates(text: str) -> str:
    return _SURROGATES.sub("\ufffd", text)


def _check_one_of(what: str, given: Any, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UserError(f"there is no {what} {given!r}; choose one of {', '.join(known)}")


def _explained(error: RuntimeError, vocab_size: int, character_coverage: float) -> Exception:
    """SentencePiece's complaint as a user's mistake, where it is one."""
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


def _is_whole(model: bytes) -> bool:
    """Whether `model` has the outer form of a SentencePiece model: pieces, trainer, normalizer.

    SentencePiece itself accepts a file that is cut between two of these, and then normalizes
    differently without a word. The form is a sequence of protobuf fields: tag, length, contents.
    """
    tags = set()
    position = 0
    try:
        while position < len(model):
            tags.add(model[position])
            length = shift = 0
            more = True
            while more:
                position += 1
                length |= (model[position] & 0x7F) << shift
                more = model[position] >= 0x80
                shift += 7
            position += 1 + length
    except IndexError:
        return False
    pieces, trainer, normalizer = 0x0A, 0x12, 0x1A
    return position == len(model) and {pieces, trainer, normalizer} <= tags
