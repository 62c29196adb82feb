"""Files read with care: plain ones alone, no larger than expected, and JSON without surprises."""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
from typing import Any, BinaryIO

from npformer.errors import UserError

PathLike = str | os.PathLike[str]

JSON_LIMIT = 16 << 20  # bytes: more than any of our files needs, and read in a second or two
_DEPTH_LIMIT = 50  # of lists and objects within each other


def open_plain(path: PathLike) -> BinaryIO:
    """Open a plain file for reading bytes.

    Raises OSError where there is none: a directory, device, socket or named pipe in its place is
    refused at once, where a plain `open` would wait for somebody to write into the pipe.
    """

    def opened_at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=opened_at_once)  # noqa: SIM115, returned to the caller
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return file


def read_plain(path: PathLike, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes. Raises OSError for any other."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
        return file.read(size)


def read_json(path: PathLike) -> Any:
    """What a JSON file says. Raises OSError where it cannot be read, UserError as `parse_json`."""
    return parse_json(read_plain(path, JSON_LIMIT), path)


def parse_json(text: str | bytes, where: PathLike) -> Any:
    """What JSON in UTF-8 says; `where` it stands is for messages.

    Raises UserError for what is no JSON, and for what programs read in different ways: a name given
    twice, whole numbers beyond 64 bits, numbers that are infinite or none, and deep nesting.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=_no_number,
        )
        _check_depth(value)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not valid JSON (byte {error.start + 1} is not UTF-8)"
        ) from error
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error})") from error
    except RecursionError as error:
        raise UserError(f"{where} is not valid JSON (it is nested too deeply)") from error
    return value


def is_version(value: Any, version: int) -> bool:
    """Whether a file's word for its version is this one; true and 1.0 are no versions."""
    return type(value) is int and value == version


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {reprlib.repr(name)} is given twice")
        found[name] = value
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise ValueError(f"the number {digits[:20]}... is too large")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {reprlib.repr(digits)} is too large")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check_depth(value: Any) -> None:
    """Raise ValueError for nesting so deep that whoever walks through it may not survive."""
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("it is nested too deeply")
