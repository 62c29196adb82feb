"""The model card of a model directory: README.md, in the form that hubs of models read.

Its front matter is for hubs, the text below for people. The last line is a comment with a checksum
of all above it, by which npformer knows a card that it wrote itself. It replaces no other.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.parts import PAPER_PARTS, Parts
from npformer.reading import read_plain

CARD = "README.md"

LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")
"""A code of a language: ISO 639, with a region or a script after it if need be."""

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
"""An identifier of a licence as hubs have it: apache-2.0, cc-by-4.0, other."""

_LARGEST = 1 << 20  # bytes: a card is some kilobytes long


@dataclass(frozen=True)
class ModelCard:
    """What a card says of a model besides its configuration.

    Attributes:
        origin: where its parameters come from, in a sentence or several
        source_language, target_language: codes as in LANGUAGE, empty where they are not known
        languages: the codes of its languages where it is not known which is which
        license: as in LICENSE
        datasets: a hub's identifiers of the data that it was trained on
        metrics: a hub's identifiers of the metrics that it was evaluated by
        sections: Markdown by heading
        parts: the classes that it is built from
    """

    origin: str
    source_language: str = ""
    target_language: str = ""
    languages: Sequence[str] = ()
    license: str | None = None
    datasets: Sequence[str] = ()
    metrics: Sequence[str] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    parts: Parts = PAPER_PARTS

    def text(self, config: TransformerConfig, parameters: int) -> str:
        """The card of a model with so many parameters, complete with its checksum."""
        text = f"{self._front_matter()}\n{self._body(config, parameters)}\n"
        return text + _mark(text.encode()).decode()

    def _front_matter(self) -> str:
        """YAML, of words alone that need no escapes."""
        source, target = self.source_language, self.target_language
        values: dict[str, str | Sequence[str] | None] = {
            "language": [*dict.fromkeys(filter(None, (source, target, *self.languages)))],
            "license": self.license,
            "library_name": "npformer",
            "pipeline_tag": "translation",
            "tags": ["translation"],
            "datasets": self.datasets,
            "metrics": self.metrics,
        }
        lines = ["---"]
        for name, value in values.items():
            if isinstance(value, str):
                lines.append(f"{name}: {_word(value)}")
            elif value:
                lines += [f"{name}:", *(f"- {_word(item)}" for item in value)]
        return "\n".join([*lines, "---", ""])

    def _body(self, config: TransformerConfig, parameters: int) -> str:
        source, target = self.source_language, self.target_language
        direction = f", {source} to {target}" if source and target else ""
        sections = {
            f"# Transformer for translation{direction}": (
                "A Transformer encoder and decoder "
                f"([Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)) with {parameters:,} "
                f"parameters, for npformer{_of_version()}. {self.origin}"
            ),
            "## Use": _USE if self.parts == PAPER_PARTS else _use_with(self.parts),
            **{f"## {heading}": text for heading, text in self.sections.items()},
            "## Model": table(("setting", "value"), _settings_of(config).items()),
            "## Licence": f"`{self.license}`" if self.license else "No licence is named.",
            "## Citation": _CITATION,
        }
        return "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items()) + "\n"


def write_card(directory: Path, text: str) -> bool:
    """Write a card, unless something other than a card of npformer is in its place.

    Returns False if there is. Raises UnwritableError if it cannot be written.
    """
    path, content = directory / CARD, text.encode()
    if os.path.lexists(path):
        present = _own_content(path)
        if present is None:
            return False
        if present == content:
            return True
    with atomic_write(path) as file:
        file.write(content)
    return True


def is_own(path: Path) -> bool:
    """Whether npformer wrote this card, and nobody has changed it since."""
    return _own_content(path) is not None


def _own_content(path: Path) -> bytes | None:
    """The content of a card that npformer wrote; None if anything else is there."""
    if path.is_symlink():
        return None
    try:
        content = read_plain(path, _LARGEST)
    except (OSError, UserError):  # whatever it is, we cannot know it
        return None
    last_line = content.rfind(b"\n", 0, -1) + 1
    return content if content[last_line:] == _mark(content[:last_line]) else None


def _mark(text: bytes) -> bytes:
    """The last line of a card: what its text is known by."""
    digest = hashlib.sha256(text).hexdigest()
    return (
        f"<!-- written by npformer, which replaces it unless it is changed: {digest} -->\n".encode()
    )


def language_code(word: Any) -> str:
    """A word of another program, if it is a code as in LANGUAGE; else an empty one."""
    return word if isinstance(word, str) and LANGUAGE.fullmatch(word) else ""


def languages_and_license(directory: Path) -> tuple[tuple[str, ...], str | None]:
    """The languages and the licence that the front matter of a model's card names.

    What is not there, or is no identifier, is left out. The card may be any program's.
    """
    try:
        text = read_plain(directory / CARD, _LARGEST).decode("utf-8-sig")
    except (OSError, UserError, UnicodeDecodeError):
        return (), None
    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    values = _lists(found[1]) if found else {}
    languages = values.get("language", [])
    licenses = [name for name in values.get("license", []) if LICENSE.fullmatch(name)]
    return (
        tuple(code for code in languages if LANGUAGE.fullmatch(code)),
        licenses[0] if len(licenses) == 1 else None,
    )


def _lists(front_matter: str) -> dict[str, list[str]]:
    """The words and lists of words at the top level of YAML, all as lists; the rest is ignored."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for line in front_matter.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if item := re.fullmatch(r"\s*-\s+(.*)", line):
            words.append(_unquoted(item[1]))
        elif entry := re.fullmatch(r"(\w+):\s*(.*)", line):
            value = entry[2]
            is_list = value.startswith("[") and value.endswith("]")
            words = found[entry[1]] = [
                _unquoted(word) for word in (value[1:-1].split(",") if is_list else [value]) if word
            ]
        elif line:
            words = []  # something nested, whose items are not ours
    return found


def _unquoted(word: str) -> str:
    word = word.strip()
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def _word(word: str) -> str:
    """A word in YAML: in quotes where it would be read as true or false, as `no` would."""
    return f"'{word}'" if not word[0].isalpha() or word.lower() in _NO_WORDS else word


_NO_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def code(text: str) -> str:
    """Any text as code within a line of Markdown."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest or text.strip(" ") != text else ""
    return f"{fence}{space}{text}{space}{fence}"


def table(heads: tuple[str, str], rows: Any) -> str:
    """A table of Markdown, with two columns of words and numbers."""
    lines = [heads, ("---", "---"), *rows]
    return "\n".join(f"| {name} | {_cell(value)} |" for name, value in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _settings_of(config: TransformerConfig) -> dict[str, Any]:
    """The fields of a configuration that say what the model computes."""
    values = config.to_dict()
    del values["suppressed_ids"], values["initialisation"]
    if config.positions == "learned":
        del values["position_spacing"]
    else:
        del values["max_length"]
    return {name: value for name, value in values.items() if value is not None}


def _use_with(parts: Parts) -> str:
    own = {
        part.name: getattr(chosen, "__name__", type(chosen).__name__)
        for part in fields(parts)
        if (chosen := getattr(parts, part.name)) is not getattr(PAPER_PARTS, part.name)
    }
    said = ", ".join(f"`{name}` is {code(chosen)}" for name, chosen in own.items())
    return _USE_WITH_PARTS.format(said, ", ".join(f"{name}={own[name]}" for name in own))


def _of_version() -> str:
    try:
        return f" {version('npformer')}"
    except PackageNotFoundError:  # it runs from its source
        return ""


_USE = """In a copy of this directory, a line for a line:

```sh
npformer translate --model . < source.txt > translation.txt
```

Or from Python:

```python
from npformer import Translator

lines = open("source.txt", encoding="utf-8").read().splitlines()
for translation in Translator.load(".").translate(lines):
    print(translation.text)
```"""

_USE_WITH_PARTS = """Some of its parts are of classes that a model directory does not hold: {}.
Pass them when you load it, or it computes something else:

```python
from npformer import Parts, Translator

parts = Parts({})
lines = open("source.txt", encoding="utf-8").read().splitlines()
for translation in Translator.load(".", parts=parts).translate(lines):
    print(translation.text)
```"""

_CITATION = """```bibtex
@inproceedings{vaswani2017attention,
  title     = {Attention Is All You Need},
  author    = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and
               Jones, Llion and Gomez, Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {30},
  year      = {2017}
}
```"""
