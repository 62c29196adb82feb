"""checkpoints/: the newest parameters of a run, a file a step, for averaging (section 6.1)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from npformer.checkpoint import load_header, save_arrays
from npformer.errors import UserError
from npformer.files import unfinished
from train.runs.identity import Identity

logger = logging.getLogger("npformer")


class CheckpointFiles:
    """The checkpoints of one run: 00001000.safetensors is that of step 1,000."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self.directory = directory
        self._identity = identity

    def paths(self) -> list[Path]:
        """The files that are named as checkpoints, oldest first."""
        ours = [
            path
            for path in self.directory.glob("*.safetensors")
            if re.fullmatch("[0-9]+", path.stem)
            and path == self._path(int(path.stem))
            and path.is_file()
        ]
        return sorted(ours, key=lambda path: int(path.stem))

    def check_own(self, path: Path) -> None:
        """Raise UserError if a checkpoint is of another run, or cannot be read."""
        if not self._is_of_run_and_step(path):
            raise UserError(
                f"{path} does not belong to the run in {self.directory.parent}; move it away, or "
                "put the right one in its place"
            )

    def has(self, step: int) -> bool:
        """Whether the parameters of this step are kept."""
        path = self._path(step)
        return path in self.paths() and self._is_own(path)

    def save(self, parameters: Mapping[str, np.ndarray], step: int) -> None:
        """Keep the parameters of a step, unless a file that is not the run's is in its place."""
        path = self._path(step)
        if self._is_own(path) or not os.path.lexists(path):
            save_arrays(path, parameters, {"step": step, "run": self._identity.id})

    def prune(self, newest: int, every: int) -> None:
        """Remove the run's own but the newest, and but multiples of `every` (0: none)."""
        own = [path for path in self.paths() if self._is_own(path)]
        for old in own[:-newest]:
            if not every or int(old.stem) % every:
                old.unlink(missing_ok=True)  # somebody may delete them for space, too

    def drop_after(self, step: int) -> None:
        """Remove the run's own of later steps, which a kill before their state has left."""
        self.directory.mkdir(exist_ok=True)  # it may have been deleted for space
        for path in self.paths():
            if not self._is_own(path):
                logger.warning(
                    "%s is damaged or not of this run, and is left alone; move it away, or it can "
                    "neither be averaged nor replaced",
                    path,
                )
            elif int(path.stem) > step:
                path.unlink()

    def unfinished(self) -> Iterator[Path]:
        """Files that a killed process left unfinished."""
        yield from unfinished(self.directory, re.compile(r"[0-9]{8,}\.safetensors").fullmatch)

    def _path(self, step: int) -> Path:
        return self.directory / f"{step:08d}.safetensors"

    def _is_own(self, path: Path) -> bool:
        try:
            return self._is_of_run_and_step(path)
        except UserError:  # nobody knows whose it is
            return False

    def _is_of_run_and_step(self, path: Path) -> bool:
        about = load_header(path)[1]
        # A model that somebody has copied here bears no id, but the step that it is of.
        return self._identity.owns(about) and str(about.get("step")) == str(int(path.stem))
