"""What a service tells about its model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from npformer.checkpoint import MODEL_FILES
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.model_card import CARD, languages_and_license
from npformer.reading import read_plain
from npformer.service.languages import Languages
from npformer.service.limits import Limits
from npformer.translator import Translator

_LARGEST_CARD = 1 << 20


@dataclass(frozen=True)
class Facts:
    """Facts of a model that were read when it was loaded.

    Attributes:
        stamps: of the files that were read, by which a change is seen
    """

    directory: Path
    languages: Languages
    config: Mapping[str, Any]
    parameters: int
    card: str
    loaded: str
    stamps: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, translator: Translator, directory: Path, languages: Languages) -> Facts:
        """Facts of a model that was loaded from `directory`.

        languages: where they are given, those of the card do not count.
        """
        model = translator.model
        models = model.models if isinstance(model, Ensemble) else [model]
        parameters = (p for each in models for p in each.parameters().values())
        return cls(
            directory,
            _languages(directory, languages),
            model.config.to_dict(),
            sum(p.size for p in parameters),
            _card(directory),
            datetime.now(UTC).isoformat(timespec="seconds"),
            stamps(directory),
        )

    def told(self, limits: Limits) -> dict[str, Any]:
        """What /model answers.

        `changed` says whether the files are no longer those that were loaded. The service goes on
        with what it has loaded, until it is started again.
        """
        own = self.languages
        return {
            "name": self.directory.resolve().name,
            "languages": {
                side: {"code": code, "name": own.name(code)} if code else None
                for side, code in (("source", own.source), ("target", own.target))
            },
            "config": self.config,
            "parameters": self.parameters,
            "card": self.card,
            "loaded": self.loaded,
            "changed": stamps(self.directory) != self.stamps,
            "limits": asdict(limits),
        }


def stamps(directory: Path) -> dict[str, tuple[int, ...]]:
    """What changes whenever a file of a model directory is replaced or written to."""
    found: dict[str, tuple[int, ...]] = {}
    for name in sorted(MODEL_FILES):
        try:
            state = os.stat(directory / name)
        except OSError:  # not every model has every file
            continue
        found[name] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def _languages(directory: Path, given: Languages) -> Languages:
    """Those that are given, or else those of a card that names two, the source first, as ours."""
    of_card, _ = languages_and_license(directory)
    source, target = of_card if len(of_card) == 2 else ("", "")
    return Languages(given.source or source, given.target or target)


def _card(directory: Path) -> str:
    try:
        return read_plain(directory / CARD, _LARGEST_CARD).decode(errors="replace")
    except (OSError, UserError):  # a card is no part of a model
        return ""
