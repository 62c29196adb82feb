"""YAML files of settings: names and plain values, nested at most once."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from npformer.config import current_fields
from npformer.errors import UserError
from npformer.reading import read_plain
from train.settings import settings_from_dict

_LARGEST = 1 << 20  # bytes: a file of settings is some kilobytes long
_DEEPEST = 2  # settings, and those of the model


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file, by name, those of the model in a nested dictionary.

    Raises UserError, naming the file and the setting, for invalid YAML, a duplicate or unknown
    name, and an invalid value.
    """
    try:
        content = read_plain(path, _LARGEST)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    values = _parsed(_decoded(content, path), path)
    if values is None:
        raise UserError(f"{path} holds no settings; write them as 'name: value', a line each")
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold settings, as 'name: value', a line each")
    if values.get("model", {}) is None:
        raise UserError(f"{path}: model is empty; give its settings below it, or leave it out")
    # A flag may still choose the backend that the precision needs.
    checked = {**values, "backend": values.get("backend") or "cupy"}
    try:
        settings_from_dict(checked)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if "model" in values:
        values["model"] = current_fields(values["model"])
    return values


def as_flags(values: dict[str, Any]) -> list[str]:
    """The result of `read_settings` as flags of the command line."""
    flags = []
    for name, value in values.items():
        if isinstance(value, dict):
            flags += [f"--{name}.{flag[2:]}" for flag in as_flags(value)]
        elif value is not None:  # as it is unless given
            flags.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return flags


def dump_settings(values: dict[str, Any]) -> str:
    """The text of a file that `read_settings` reads as these settings."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Quotes words that `_Loader` would take for numbers, such as 1e-3, the name of a directory."""

    def word(self, value: str) -> yaml.ScalarNode:
        style = "'" if re.fullmatch(_NUMBER, value, re.ASCII) else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8"
        ) from error


def _parsed(text: str, path: Path) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:  # a control character, which YAML forbids
        raise UserError(f"{path} is not YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """YAML of plain values: without aliases, which can expand endlessly, and deep nesting."""

    depth = 0
    yaml_implicit_resolvers = {}  # noqa: RUF012, filled below

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(event, f"*{event.anchor}: settings refer to no others")
        if getattr(event, "tag", None) is not None:
            raise _refusal(event, f"{event.tag}: settings have no tags")
        if self.depth > _DEEPEST + isinstance(parent, yaml.SequenceNode):  # the items of a list
            raise _refusal(event, "settings are nested once at most")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "the name of a setting is a word")
            if key.value in seen:
                raise _refusal(key, f"{key.value} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """An int where it is written as one; with more digits than Python reads, a float."""
        try:
            return int(node.value)
        except ValueError:
            return float(node.value)


def _refusal(place: yaml.Event | yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(None, None, problem, mark)


_NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"

# Numbers as people write them: in YAML 1.1, which PyYAML reads, 1e-3 is a word, 010 is 8 and 1:30
# is 90; and no dates.
for tag, pattern, first in (
    ("number", _NUMBER, "-+.0123456789"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(tag, re.compile(f"({pattern})$", re.ASCII), list(first))
_Loader.add_constructor("number", _Loader.number)
_Dumper.add_representer(str, _Dumper.word)
