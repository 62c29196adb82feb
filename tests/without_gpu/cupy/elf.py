"""The symbols of a shared library, read from its file (ELF, 64 bits, little-endian)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SECTIONS_AT, _SECTION_COUNT_AT = 0x28, 0x3C  # in the file's header
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_TABLES = {2, 11}  # kinds of sections: all symbols, and those that the loader uses
_FUNCTION = 2  # a kind of symbol


class Symbol(NamedTuple):
    """`place` is the offset from the library's address, or None if it is in another library."""

    name: str
    place: int | None
    size: int
    is_function: bool


def symbols(path: Path) -> Iterator[Symbol]:
    """The symbols that a library defines or needs, unless it was stripped of them."""
    data = path.read_bytes()
    (at,) = struct.unpack_from("<Q", data, _SECTIONS_AT)
    (count,) = struct.unpack_from("<H", data, _SECTION_COUNT_AT)
    sections = [_SECTION.unpack_from(data, at + i * _SECTION.size) for i in range(count)]
    for _, kind, _, _, start, size, names_in, *_ in sections:
        if kind not in _TABLES:
            continue
        names = sections[names_in][4]
        for name, info, _, section, value, length in _SYMBOL.iter_unpack(
            data[start : start + size]
        ):
            begin = names + name
            text = data[begin : data.index(b"\0", begin)].decode()
            bare = text.partition("@")[0]  # without the version of its library
            yield Symbol(bare, value if section else None, length, info & 15 == _FUNCTION)
