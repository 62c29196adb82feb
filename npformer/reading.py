"""Safe reading of untrusted files: only regular ones, of limited size, and strict JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from npformer.errors import UnreadableError, UserError

PathLike = str | os.PathLike[str]

JSON_LIMIT = 16 << 20  # bytes: more than any of our files needs, and read in a second or two
_DEPTH_LIMIT = 50  # of nested lists and objects


_TOO_MANY_OPEN = {errno.EMFILE: "ulimit -n", errno.ENFILE: "sysctl fs.file-max"}
_REFUSALS = {*_TOO_MANY_OPEN, errno.EACCES, errno.EPERM}


def reason(error: OSError) -> str:
    """What the system says of an error, and what to do where too many files are open."""
    how = _TOO_MANY_OPEN.get(error.errno or 0)
    return f"{error.strerror}; raise the limit ({how})" if how else f"{error.strerror}"


@contextmanager
def refusals_told(path: PathLike) -> Iterator[None]:
    """Raise UnreadableError where the system refuses to open `path`, which may be whole."""
    try:
        yield
    except OSError as error:
        if error.errno in _REFUSALS:
            raise UnreadableError(f"cannot read {path}: {reason(error)}") from error
        raise


def open_plain(path: PathLike) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises OSError for anything else, such as a directory, device, socket or named pipe. This does
    not block, where `open` would wait for a writer of the pipe. Raises UnreadableError for a file
    that may be whole and cannot be opened, so that no caller takes it for damaged.
    """

    def opened_at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with refusals_told(path):
        try:
            file = open(path, "rb", opener=opened_at_once)  # noqa: SIM115, returned to the caller
        except ValueError as error:  # a NUL byte, or half of a surrogate pair
            raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return file


def read_plain(path: PathLike, limit: int) -> bytes:
    """The contents of a regular file of at most `limit` bytes. Raises OSError for any other."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
        return file.read(size)


def read_json(path: PathLike, *, large: bool = False) -> Any:
    """The value in a JSON file. Raises OSError if it is unreadable, UserError like `parse_json`."""
    return parse_json(read_plain(path, JSON_LIMIT), path, large=large)


def parse_json(text: str | bytes, where: PathLike, *, large: bool = False) -> Any:
    """The value of JSON in UTF-8; `where` names its origin in messages.

    Raises UserError for invalid JSON, and for what programs interpret differently: duplicate
    names, integers beyond 64 bits, infinity, NaN and deep nesting. large: integers beyond 64 bits
    are read, as floats; other programs write some, for "no limit".
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_int=_large_number if large else _whole_number,
            parse_float=_number,
            parse_constant=_refuse_constant,
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
    """Whether `value` is exactly this integer; True and 1.0 are not versions."""
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


def _large_number(digits: str) -> int | float:
    try:
        return _whole_number(digits)
    except ValueError:
        return _number(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {reprlib.repr(digits)} is too large")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


def _check_depth(value: Any) -> None:
    """Raise ValueError for nesting so deep that recursion over it could overflow the stack."""
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
