"""The vocabulary of a model from elsewhere, whose token ids are not those of SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from npformer.errors import UserError
from npformer.reading import PathLike, is_version, parse_json

_VERSION = 1


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of text that token ids stand for.

    SentencePiece divides text into pieces, and the ids of these are looked up here. A tag such as
    >>de<< at the beginning of a line, which tells a multilingual model the target language, is a
    piece of its own; it counts as a tag if it is in the vocabulary.

    Attributes:
        pieces: by id
        begin_id: what the decoder reads first; Marian's models have the padding token there
        end_id: what ends a sentence
        unknown_id: the id of pieces that are not in the vocabulary
    """

    pieces: Sequence[str]
    begin_id: int
    end_id: int
    unknown_id: int

    def __post_init__(self) -> None:
        """Raises UserError if the vocabulary is inconsistent."""
        for what in ("begin_id", "end_id", "unknown_id"):
            value = getattr(self, what)
            if type(value) is not int or not 0 <= value < len(self.pieces):
                raise UserError(
                    f"the vocabulary has the ids 0 to {len(self.pieces) - 1:,}, and {what} is "
                    f"{value!r:.20}"
                )
        for i, piece in enumerate(self.pieces):
            if not isinstance(piece, str) or not _is_unicode(piece):
                raise UserError(f"the token {i:,} of the vocabulary is not text: {piece!r:.40}")
        if len(self.ids) < len(self.pieces):
            twice = next(piece for i, piece in enumerate(self.pieces) if self.ids[piece] != i)
            raise UserError(f"the vocabulary has the token {twice!r:.40} twice")

    @classmethod
    def of_ids(
        cls, ids: Mapping[str, Any], size: int, *, begin_id: int, end_id: int, unknown: str
    ) -> Vocabulary:
        """The vocabulary with these ids of pieces, as vocab.json of Hugging Face has them.

        size: of the model's vocabulary. An id without a piece gets a name of its own. Raises
        UserError if the ids are not distinct numbers below `size`, or `unknown` is not among the
        pieces.
        """
        pieces = [f"<unused {i}>" for i in range(size)]
        taken = set()
        for piece, i in ids.items():
            if type(i) is not int or not 0 <= i < size:
                raise UserError(
                    f"the vocabulary does not fit the model: {piece!r:.40} has the id "
                    f"{i!r:.20}, and the model has {size:,} tokens"
                )
            if i in taken:
                raise UserError(f"the vocabulary has two tokens with the id {i:,}")
            taken.add(i)
            pieces[i] = piece
        if unknown not in ids:
            raise UserError(f"the vocabulary has no {unknown!r:.40}")
        return cls(pieces, begin_id, end_id, ids[unknown])

    @classmethod
    def of_json(cls, content: bytes, where: PathLike) -> Vocabulary:
        """The vocabulary in the contents of a file that `json` has made. Raises UserError."""
        values = parse_json(content, where)
        if not isinstance(values, dict) or values.get("format") != "npformer vocabulary":
            raise UserError(f"{where} is not a vocabulary that npformer has written")
        if not is_version(values.get("version"), _VERSION):
            raise UserError(
                f"{where} has format version {values.get('version')!r:.20}, and this npformer "
                f"reads {_VERSION}"
            )
        pieces = values.get("pieces")
        if not isinstance(pieces, list):
            raise UserError(f"{where} is incomplete: it has no pieces")
        try:
            return cls(pieces, *(values.get(name) for name in _IDS))  # type: ignore[arg-type]
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    @cached_property
    def json(self) -> bytes:
        """The contents of the file that a model directory keeps the vocabulary in."""
        values = {"format": "npformer vocabulary", "version": _VERSION}
        values |= {name: getattr(self, name) for name in _IDS}
        return json.dumps({**values, "pieces": list(self.pieces)}, indent=0).encode() + b"\n"

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece."""
        return {piece: i for i, piece in enumerate(self.pieces)}

    def split_tag(self, text: str) -> tuple[list[int], str]:
        """The id of the tag at the beginning of a line, if there is one, and the text after it."""
        end = text.find("<<") + 2 if text.startswith(">>") else 0
        if end < 3 or text[:end] not in self.ids:
            return [], text
        return [self.ids[text[:end]]], text[end:]


_IDS = ("begin_id", "end_id", "unknown_id")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
