"""What all formats share: a model as it comes in, and careful access to its arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.reading import JSON_LIMIT, read_plain
from npformer.tokenizer import TokenizerPair

LARGEST_WEIGHTS = 32 << 30  # bytes of a file


@dataclass(frozen=True)
class ImportedModel:
    """A model that was read from a directory of another program, with our names of parameters.

    program: that program, in words. source_language, target_language: their codes, empty where
    they are not known
    """

    config: TransformerConfig
    parameters: dict[str, np.ndarray]
    tokenizers: TokenizerPair
    program: str
    source_language: str = ""
    target_language: str = ""


class ForeignArrays:
    """The arrays of a file, each of which is taken once, with the shape that it must have."""

    def __init__(self, arrays: Mapping[str, np.ndarray], path: Path) -> None:
        self.path = path
        self._left = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array in float32. Raises UserError if it is missing, or is something else."""
        if name not in self._left:
            raise self._missing(name)
        array = self._left.pop(name)
        if array.shape != shape:
            raise UserError(
                f"{self.path}: {name!r:.100} has the shape {list(array.shape)}, and the "
                f"configuration asks for {list(shape)}"
            )
        if array.dtype.kind != "f":
            raise UserError(f"{self.path}: {name!r:.100} holds {array.dtype}, not real numbers")
        with np.errstate(all="ignore"):  # what float32 cannot hold becomes infinite
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{self.path}: {name!r:.100} has numbers that are not finite")
        return array

    def take_tied(self, names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
        """An array that has several names, of which a file may leave all out but one.

        Raises UserError if there are several arrays that differ.
        """
        present = [name for name in names if name in self] or [names[0]]
        first, *others = [self.take(name, shape) for name in present]
        for name, other in zip(present[1:], others, strict=True):
            if not np.array_equal(first, other):
                raise UserError(
                    f"{self.path}: {present[0]!r:.100} and {name!r:.100} have different numbers, "
                    "and the configuration says that they are one matrix"
                )
        return first

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """The shape of a matrix. Raises UserError if it is missing, or is no matrix."""
        array = self._left.get(name)
        if array is None:
            raise self._missing(name)
        if array.ndim != 2:
            raise UserError(f"{self.path}: {name!r:.100} has {array.ndim} dimensions, not 2")
        return array.shape[0], array.shape[1]

    def check_vocabulary(self, name: str, tokens: int, path: Path) -> None:
        """Raise UserError if a matrix, which need not be there, has not a row for each token.

        path: the file that the tokens are in.
        """
        if name in self and self.matrix_shape(name)[0] != tokens:
            raise UserError(
                f"{path} does not fit the model: it makes {tokens:,} tokens with the special ones, "
                f"and {name!r:.100} in {self.path} has {self.matrix_shape(name)[0]:,} rows"
            )

    def count(self, stem: str) -> int:
        """The number of parts that the names begin with: `stem`.0, `stem`.1 and so on."""
        part = re.compile(rf"{re.escape(stem)}\.([0-9]{{1,5}})\.")
        found = [int(match[1]) for name in self._left if (match := part.match(name))]
        return max(found, default=-1) + 1

    def first_of(self, *names: str) -> str:
        """The first of several names of the same array that is there, or the first of all."""
        return next((name for name in names if name in self._left), names[0])

    def _missing(self, name: str) -> UserError:
        return UserError(f"{self.path} lacks the array {name!r:.100}, which such a model has")

    def ignore(self, *names: str) -> None:
        """Leave arrays out that add nothing to the model."""
        for name in names:
            self._left.pop(name, None)

    def check_all_taken(self) -> None:
        """Raise UserError if there are arrays that belong to nothing."""
        if self._left:
            raise UserError(
                f"{self.path} has the array {min(self._left)!r:.100}, which such a model has no "
                "place for"
            )


def only_file(directory: Path, pattern: str, what: str) -> Path:
    """The file in a directory whose name fits a pattern.

    what: that it is, for a message. Raises UserError if there is none, or are several.
    """
    found = sorted(directory.glob(pattern))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{directory} holds no {what} ({pattern})")
    names = ", ".join(path.name for path in found)
    raise UserError(
        f"{directory} holds {len(found)} files {pattern} ({names:.200}); leave only that of the "
        "model there"
    )


def read_text(path: Path) -> str:
    """The text in a small file in UTF-8. Raises UserError if it cannot be read."""
    try:
        return read_plain(path, JSON_LIMIT).decode()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8") from error


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file of any program; bfloat16 comes as float32.

    Raises UserError if it is not such a file, or is cut short.
    """
    try:
        content = read_plain(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        found: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} cannot be read as safetensors: it is another kind of file, or cut short "
            f"({' '.join(str(error).split()):.100})"
        ) from error
    return {name: _array(path, name, **about) for name, about in found}


def _array(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    kind = "<u2" if dtype == "BF16" else _DTYPES.get(dtype)
    if kind is None:
        raise UserError(f"{path}: {name!r:.100} has the type {dtype:.20}, which is not supported")
    try:
        array = np.frombuffer(data, kind).reshape(shape)
    except ValueError as error:  # too many dimensions, or one too large beside one of 0
        raise UserError(
            f"{path}: {name!r:.100} has the shape {shape!r:.60}, which is not supported"
        ) from error
    return widened_bfloat16(array) if dtype == "BF16" else array


def widened_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The numbers whose bfloat16 bits are given, in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


_DTYPES = {
    "BOOL": "?",
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
