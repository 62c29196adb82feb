"""train.yaml: the settings of a run, with the fingerprint of its corpus and the run's id.

A run's state and its checkpoints bear its id, so that files of another run are never taken for its
own. Files from before there were ids have none, and are taken.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

from npformer.errors import UserError
from npformer.files import atomic_write
from train.settings import TrainSettings, settings_to_dict
from train.settings_file import dump_settings


class Identity:
    """What a run is: its settings file, and the id in it.

    Attributes:
        path: the settings file
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._id: str | None = None

    @property
    def id(self) -> str | None:
        """None for a run from before there were ids, and without its settings file."""
        if self._id is None and self.path.is_file():
            found = re.fullmatch("# run ([0-9a-f]{32})", self._first_lines()[1])
            self._id = found[1] if found else None
        return self._id

    def begin(self) -> None:
        """Make a new id."""
        self._id = secrets.token_hex(16)

    def restore(self, about: dict[str, Any]) -> None:
        """Take the id of a state where the settings file has lost it.

        about: what the state says about itself
        """
        self._id = self.id or about.get("run") or secrets.token_hex(16)

    def owns(self, about: dict[str, Any]) -> bool:
        """Whether a file that says this about itself is the run's."""
        return self.id is None or about.get("run") in (None, self.id)

    def write(self, settings: TrainSettings, corpus: str) -> None:
        """Write the settings file; corpus: the fingerprint of the corpus."""
        text = f"# corpus {corpus}\n"
        if self.id:
            text += f"# run {self.id}\n"
        text += dump_settings(settings_to_dict(settings))
        with atomic_write(self.path) as file:
            file.write(text.encode())

    def corpus(self) -> str:
        """The fingerprint of the corpus that the run was started with."""
        first = self._first_lines()[0]
        if not first.startswith("# corpus "):
            raise UserError(
                f"{self.path} has lost its first line, which says what corpus the run was "
                "started with; take it from a copy"
            )
        return first.removeprefix("# corpus ")

    def _first_lines(self) -> list[str]:
        try:
            with open(self.path, encoding="utf-8-sig", errors="replace") as file:
                return [file.readline(200).rstrip("\n") for _ in range(2)]
        except OSError as error:
            raise UserError(
                f"{self.path.parent} holds no run to resume: {self.path} cannot be read "
                f"({error.strerror})"
            ) from error
