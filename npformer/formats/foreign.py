"""What all formats share: a model as it comes in, and careful access to its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.reading import read_plain
from npformer.tokenizer import TokenizerPair

LARGEST_WEIGHTS = 32 << 30  # bytes of a file


@dataclass(frozen=True)
class ImportedModel:
    """A model that was read from a directory of another program, with our names of parameters."""

    config: TransformerConfig
    parameters: dict[str, np.ndarray]
    tokenizers: TokenizerPair


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
            raise UserError(f"{self.path} lacks the array {name!r:.100}, which such a model has")
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

    def first_of(self, *names: str) -> str:
        """The first of several names of the same array that is there, or the first of all."""
        return next((name for name in names if name in self._left), names[0])

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
