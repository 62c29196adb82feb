"""The model of the best validation, kept in a run as a model directory: best/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npformer.checkpoint import (
    CONFIG,
    WEIGHTS,
    load_arrays,
    load_header,
    save_arrays,
    save_config,
    save_weights,
)
from npformer.config import TransformerConfig
from npformer.errors import UnwritableError, UserError
from npformer.tokenizer import TokenizerPair


class BestModel:
    """The best model so far, and perhaps a better one that no state of the run knows of yet.

    A run that is killed continues from its last state, and may take other steps then. So a new best
    model waits in training/best.safetensors until a state is saved that counts its validation, and
    only then replaces the old one.
    """

    def __init__(self, run: Path) -> None:
        self.directory = run / "best"
        self.waiting = run / "training" / "best.safetensors"

    def keep(self, parameters: Mapping[str, np.ndarray], step: int, run_id: str | None) -> None:
        """Write the parameters of a step that is the best so far."""
        save_arrays(self.waiting, parameters, {"step": step, "run": run_id})

    def is_of(self, step: int) -> bool:
        """Whether the directory has the model of this step, as long as nobody removes it."""
        try:
            return load_header(self.directory / WEIGHTS)[1].get("step") == step
        except UserError:
            return False

    def publish(self, step: int, config: TransformerConfig, tokenizers: TokenizerPair) -> None:
        """Put the waiting model into place, if it is that of `step`, the best in the state.

        Otherwise it is of a step that a kill has undone, and is removed. At every moment the
        directory is a whole model. Raises UserError if the model that waits is damaged.
        """
        if not self.waiting.is_file():
            return
        try:
            if is_best := load_header(self.waiting)[1].get("step") == step:
                parameters, _ = load_arrays(self.waiting)
        except UserError as error:
            raise UserError(
                f"{error}; delete it, and --resume goes on without this best model"
            ) from error
        if is_best:
            try:
                self.directory.mkdir(exist_ok=True)
            except OSError as error:
                raise UnwritableError(
                    f"cannot create {self.directory}: {error.strerror}"
                ) from error
            tokenizers.save(self.directory)
            if not (self.directory / CONFIG).exists():
                save_config(self.directory, config)
            save_weights(
                self.directory,
                parameters,
                config,
                tokenizers,
                {"step": step},
                or_present_config=True,
            )
            save_config(self.directory, config)
        self.waiting.unlink(missing_ok=True)
