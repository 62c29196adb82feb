"""The settings of a model of another program, with their kinds checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.reading import read_json

_KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


class ForeignSettings:
    """The settings in a file, by name. Those of a section have its name before a dot."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, dict(_flat(values))

    def __call__(self, name: str, kind: type, default: Any = None) -> Any:
        """A setting, of the type `kind`. Raises UserError if it is of another, or is missing."""
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise self.error(f"{name} is missing; it must be {_KINDS[kind]}")
        kinds = (int, float) if kind is float else (kind,)
        if type(value) not in kinds:
            raise self.error(f"{name} must be {_KINDS[kind]}; it is {value!r:.60}")
        return value

    def alike(self, name: str, kind: type, default: Any = None) -> Any:
        """A setting that encoder and decoder have alike; the name has a * in place of theirs."""
        names = [name.replace("*", side) for side in ("encoder", "decoder")]
        values = [self(one, kind, default) for one in names]
        if values[0] != values[1]:
            raise self.error(
                f"{names[0]} is {values[0]!r:.40} and {names[1]} {values[1]!r:.40}; they must be "
                "equal"
            )
        return values[0]

    def require_off(self, *names: str) -> None:
        """Raise UserError if one of these settings is on: neither absent, false, 0 nor empty."""
        for name in names:
            if self.values.get(name):
                raise self.refused(name)

    def refused(self, name: str, advice: str = "") -> UserError:
        """The error for a setting with which we cannot compute."""
        return self.error(
            f"a model with {name} = {self.values.get(name)!r:.40} is not supported{advice}"
        )

    def check_size(self, name: str, size: int) -> None:
        """Raise UserError if this size is given, and the arrays have another."""
        if self(name, int, size) != size:
            raise self.error(
                f"{name} is {self.values[name]}, and the arrays of the model have {size}: they do "
                "not belong together"
            )

    def configuration(self, **fields: Any) -> TransformerConfig:
        """Our configuration with these fields. Raises UserError, with the file, if one is wrong."""
        try:
            return TransformerConfig(**fields)
        except UserError as error:
            raise self.error(str(error)) from error

    def error(self, what: str) -> UserError:
        """An error that names the file."""
        return UserError(f"{self.path}: {what}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_object(path: Path, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; an empty one if the file is optional and missing."""
    if optional and not path.exists():
        return {}
    try:
        values = read_json(path, large=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object, so it is not what its name says")
    return values
