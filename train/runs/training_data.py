"""What a model card says of the data that a model was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from npformer.errors import UserError
from npformer.model_card import LANGUAGE, code
from train.corpora.corpus import Corpus
from train.corpora.filters import Filters
from train.corpora.text import STANDARD_INPUT
from train.datasets.catalogue import DATASETS
from train.wording import counted


@dataclass(frozen=True)
class TrainingData:
    """The training text of a corpus, as it is known without its files.

    Attributes:
        source, target: codes of its languages, empty where they are not known
        datasets: names of the public datasets that it holds
        texts: names of its files, without folders
        pairs, valid_pairs: pairs to train on, and to validate with
        valid_lines: pairs that are translated in a validation, which are all of its text
        dropped: for what reasons other pairs were left out, and how many
    """

    source: str = ""
    target: str = ""
    datasets: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    pairs: int = 0
    valid_pairs: int = 0
    valid_lines: int = 0
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(cls, corpus: Corpus) -> TrainingData:
        """The training text of a corpus, as its manifest describes it."""
        manifest = corpus.manifest
        files = manifest.get("files", {}).get("train", {})
        source, target = files.get("source", []), files.get("target", [])
        names = {f.name for f in dataclasses.fields(Filters)}
        settings = {k: v for k, v in manifest.get("settings", {}).items() if k in names}
        reasons = Filters(**settings).reasons if "max_length" in settings else {}
        dropped = {s: about.get("dropped", {}) for s, about in manifest["splits"].items()}
        return cls(
            _language(source),
            _language(target),
            tuple(sorted({file["dataset"] for file in (*source, *target) if "dataset" in file})),
            tuple(dict.fromkeys(_name(file["path"]) for file in (*source, *target))),
            len(corpus.train),
            len(corpus.valid),
            len(corpus.valid) + sum(dropped["valid"].values()),
            tuple(f"{n:,} {reasons[r]}" for r, n in dropped["train"].items() if n and r in reasons),
        )

    @classmethod
    def from_dict(cls, values: Any, path: Path) -> TrainingData:
        """What `to_dict` has given; `path` is the file that kept it, for messages."""
        fields = {f.name: f.default for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or values.keys() != fields.keys():
            raise UserError(f"{path} is damaged: it holds no description of its data")
        for name, default in fields.items():
            value = values[name]
            words = value if isinstance(default, tuple) else [value]
            kind = int if isinstance(default, int) else str
            if not isinstance(words, list | tuple) or any(type(word) is not kind for word in words):
                raise UserError(f"{path} is damaged: {name} of its data is {value!r:.60}")
        for language in (values["source"], values["target"]):
            if language and not LANGUAGE.fullmatch(language):
                raise UserError(f"{path} is damaged: {language!r:.60} is no language of its data")
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **lists})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_dict` reads them."""
        return dataclasses.asdict(self)

    @property
    def hub_ids(self) -> list[str]:
        """What hubs call its datasets, where that is known."""
        found = [DATASETS[name].hub_id for name in self.datasets if name in DATASETS]
        return list(dict.fromkeys(name for name in found if name))

    def text(self) -> str:
        """Markdown for a model card."""
        said = [
            f"It was trained on {counted(self.pairs, 'pair')} of sentences, and validated on "
            f"{self.valid_lines:,}."
        ]
        if self.texts:
            shown = ", ".join(map(code, self.texts[:_MOST_TEXTS]))
            more = len(self.texts) - _MOST_TEXTS
            said.append(f"Texts of training: {shown}{f' and {more:,} more' if more > 0 else ''}.")
        for name in self.datasets:
            if name in DATASETS:
                said.append(f"- {DATASETS[name].about}: {DATASETS[name].terms}.")
        if self.dropped:
            said.append(f"Pairs that were left out: {', '.join(self.dropped)}.")
        return "\n\n".join(said)


_MOST_TEXTS = 10


def _language(files: Iterable[Mapping[str, Any]]) -> str:
    """The language of all these texts, if it is known."""
    codes = {str(file.get("language", "")) for file in files}
    known = codes.pop() if len(codes) == 1 else ""
    return known if LANGUAGE.fullmatch(known) else ""


def _name(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else PurePath(path).name
