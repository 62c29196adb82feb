"""The contents of a SentencePiece model file, a protobuf message."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from enum import IntEnum
from typing import NamedTuple

# Numbers of fields, from SentencePiece's sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3  # of a piece
_ALGORITHM, _BYTE_FALLBACK = 3, 35  # of the trainer's settings

_ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_FIXED_SIZES = {1: 8, 5: 4}  # bytes, by wire type


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.NORMAL  # as protobuf reads a value that it does not know


class Piece(NamedTuple):
    """A token of the vocabulary. score: the logarithm of its probability, or a merge's priority."""

    text: str
    score: float
    kind: Kind


class SentencePieceModel(NamedTuple):
    """What a segmentation needs to know. pieces: by id."""

    algorithm: str
    byte_fallback: bool
    pieces: list[Piece]

    @classmethod
    def of(cls, model: bytes) -> SentencePieceModel:
        """model: the contents of a file that SentencePiece has accepted."""
        pieces = []
        algorithm, byte_fallback = 1, 0
        for number, value in _fields(model):
            if number == _PIECES:
                about = dict(_fields(value))
                score: float = struct.unpack("<f", about.get(_SCORE, bytes(4)))[0]
                kind = Kind(_whole_number(about.get(_KIND, b"\x01")))
                pieces.append(Piece(about[_PIECE].decode(), score, kind))
            elif number == _TRAINER:
                about = dict(_fields(value))
                algorithm = _whole_number(about.get(_ALGORITHM, b"\x01"))
                byte_fallback = _whole_number(about.get(_BYTE_FALLBACK, b"\x00"))
        return cls(_ALGORITHMS.get(algorithm, "unigram"), bool(byte_fallback), pieces)


def is_whole(model: bytes) -> bool:
    """Whether `model` has all fields of a SentencePiece model: pieces, trainer, normalizer.

    SentencePiece accepts a file that is cut between two fields, and then silently normalizes in
    another way.
    """
    try:
        return {_PIECES, _TRAINER, _NORMALIZER} <= {number for number, _ in _fields(model)}
    except (IndexError, ValueError):
        return False


def restricted(model: bytes, pieces: Collection[str]) -> bytes:
    """A model that divides text only into these pieces and single characters.

    Others become unused, and keep their ids. This is what SentencePiece calls to set the
    vocabulary.
    """
    found = bytearray()
    for number, value, whole in _parts(model):
        if number == _PIECES:
            about = dict(_fields(value))
            text, kind = about[_PIECE].decode(), Kind(_whole_number(about.get(_KIND, b"\x01")))
            if kind is Kind.NORMAL and len(text) > 1 and text not in pieces:
                # The last value of a field counts.
                value += bytes([_KIND << 3, Kind.UNUSED])
                whole = bytes([_PIECES << 3 | 2]) + _encoded(len(value)) + value
        found += whole
    return bytes(found)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and the encoded value of each field of a protobuf message.

    Raises IndexError if it is cut short, ValueError if it is not one.
    """
    for number, value, _ in _parts(message):
        yield number, value


def _parts(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Of each field: its number, its encoded value, and the whole of it. Raises as `_fields`."""
    position = 0
    while position < len(message):
        first = begin = position
        position = _end_of_number(message, position)
        number, wire_type = divmod(_whole_number(message[begin:position]), 8)
        begin = position
        if wire_type == 0:
            position = _end_of_number(message, position)
        elif wire_type == 2:
            begin = _end_of_number(message, position)
            position = begin + _whole_number(message[position:begin])
        elif wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > len(message):
            raise IndexError("a field is cut short")
        yield number, message[begin:position], message[first:position]


def _end_of_number(message: bytes, position: int) -> int:
    while message[position] >= 0x80:
        position += 1
    return position + 1


def _whole_number(encoded: bytes) -> int:
    """A varint: 7 bits a byte, the lowest first."""
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(encoded))


def _encoded(number: int) -> bytes:
    """A number as a varint."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
