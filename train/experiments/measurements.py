"""What an experiment has measured so far: each part once, kept in a folder."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from npformer.directories import check_not_a_file
from npformer.errors import UserError
from npformer.files import atomic_write, unfinished
from npformer.reading import JSON_LIMIT, parse_json, read_plain
from train.machine import machine, versions
from train.own_files import only_one_in

Tell = Callable[[str], None]


class Measurements:
    """The parts of an experiment, in `directory`; what it holds already is not measured again.

    measurements.of("n=64", lambda: {"ms": 1.25})

    Values are JSON. A part that is killed leaves nothing, and is measured anew; one that takes long
    can keep a state of its own in `work`.
    """

    def __init__(self, directory: Path, tell: Tell) -> None:
        self.directory, self.tell = directory, tell
        self._parts: dict[str, dict[str, Any]] = {}

    def of(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` returns, or what it has returned in an earlier run."""
        part = self.kept(name)
        if part is None:
            self.tell(f"{name} ...")
            began = time.monotonic()
            value = measure()
            part = self.keep(name, value, time.monotonic() - began)
            self.tell(f"{name}: {part['seconds']:,.1f} s")
        self._parts[name] = part
        return part["value"]

    def kept(self, name: str) -> dict[str, Any] | None:
        """The part of this name, if it was measured: its "value", "seconds", "machine" ..."""
        path = self._path(name)
        part: dict[str, Any] | None = _read(path)
        if part is not None and part.get("name") != name:
            raise ValueError(f"{path} is of {part.get('name')!r}, and not of {name!r}")
        return part

    def keep(self, name: str, value: Any, seconds: float) -> dict[str, Any]:
        """Keep what was measured, and how long it took. Returns the part, as it will be read."""
        part = {
            "name": name,
            "value": value,
            "seconds": round(seconds, 3),
            "machine": machine(),
            "versions": versions(),
        }
        path = self._path(name)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            file.write(_json(part))
        kept: dict[str, Any] = json.loads(_json(part))  # tuples are lists
        return kept

    def check_same(self, name: str, value: Any) -> None:
        """Keep what all parts depend on beside the settings, such as a digest of the data.

        Raises UserError if an earlier run had another value.
        """
        if (self.kept(name) or self.keep(name, value, 0.0))["value"] != value:
            raise UserError(f"{self.directory} was begun with other {name}; give another --out")

    def _path(self, name: str) -> Path:
        return self.directory / "parts" / f"{file_name(name)}.json"

    def all_of(self, measures: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The parts of these names, and progress: how many are done, and the time that is left."""
        values: dict[str, Any] = {}
        for done, (name, measure) in enumerate(measures.items()):
            if done:
                seconds = sum(self._parts[before]["seconds"] for before in values)
                left = seconds / done * (len(measures) - done)
                self.tell(f"{done} of {len(measures)} done, about {left:,.0f} s left")
            values[name] = self.of(name, measure)
        return values

    def work(self, name: str) -> Path:
        """A folder for what a part needs while it is measured, such as a run; it stays."""
        path = self.directory / "work" / file_name(name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def seconds(self) -> float:
        """The time that all parts took, whenever they were measured."""
        return sum(part["seconds"] for part in self._parts.values())

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machines that parts were measured on, each with its versions of packages."""
        found = [{**part["machine"], "versions": part["versions"]} for part in self._parts.values()]
        return [about for i, about in enumerate(found) if about not in found[:i]]

    def values(self) -> dict[str, Any]:
        """All parts by their names."""
        return {name: part["value"] for name, part in self._parts.items()}


@contextmanager
def measurements(directory: Path, about: Mapping[str, Any], tell: Tell) -> Iterator[Measurements]:
    """The measurements in a folder, which is made for them if it is new.

    about: the experiment and its settings, with which the folder was begun. Raises UserError if it
    holds something else, was begun with other settings, or is in use.
    """
    check_not_a_file(directory, "the experiment")
    directory.mkdir(parents=True, exist_ok=True)
    with only_one_in(directory):
        path = directory / "settings.json"
        wanted = json.loads(_json(about))
        begun = _read(path)
        if begun is None:
            for left in unfinished(directory, lambda name: name == path.name):
                left.unlink()
            if any(directory.iterdir()):
                raise UserError(
                    f"{directory} is not empty, and holds no experiment; give another --out"
                )
        elif begun != wanted and any(other != path for other in directory.iterdir()):
            raise UserError(
                f"{directory} was begun with {_difference(begun, wanted)}; give another --out"
            )
        if begun != wanted:
            with atomic_write(path) as file:
                file.write(_json(wanted))
        yield Measurements(directory, tell)


def file_name(name: str) -> str:
    """A part's name as that of a file: "self-attention, n = 64" becomes self-attention-n-64."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


def _read(path: Path) -> Any:
    """The JSON in a file; None if there is none."""
    try:
        content = read_plain(path, JSON_LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    value = parse_json(content, path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path} was not written by an experiment; delete it, or give another --out"
        )
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def _difference(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first value that is another one."""
    for key in [*wanted, *begun]:
        if begun.get(key) != wanted.get(key):
            return f"{key} {begun.get(key)}, and this is {wanted.get(key)}"
    raise ValueError("there is none")
